// Tables sort by a click on a heading; without scripts they stay in the order of quality.
document.querySelectorAll("table:not(.gallery)").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    if (column === 0 || body.rows.length < 2) return;
    heading.dataset.sort = "";
    heading.tabIndex = 0;
    const sort = () => {
      const falling = heading.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => {
        const text = row.cells[column].dataset.value;
        return text === undefined ? (falling ? -Infinity : Infinity) : Number(text);
      };
      [...body.rows]
        .sort((a, b) => (falling ? value(b) - value(a) : value(a) - value(b)))
        .forEach((row) => body.append(row));
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort();
      }
    });
  });
});
