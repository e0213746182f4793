"""The page: its sections in order, with style and script inside."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from retom.evaluation.measures import ERROR, PSNR
from retom.evaluation.report.charts import by_noise, quality_against_speed
from retom.evaluation.report.findings import findings
from retom.evaluation.report.gallery import gallery
from retom.evaluation.report.tables import glossary, group_table, numbered, references_table
from retom.evaluation.store import write_whole
from retom.evaluation.tables import BRACKETS, setting_lines

if TYPE_CHECKING:
    from pathlib import Path

    from retom.evaluation.results import Results

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Sent to the browser, which then refuses to load anything from anywhere."""


def write_report(results: Results, path: Path) -> Path:
    """Write the report, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_whole(path, page(results).encode())
    return path


def page(results: Results) -> str:
    """The report as one self-contained HTML document."""
    numbers = numbered(results)
    sections = [
        _section("findings", "What it shows", findings(results)),
        _section("speed", "Quality against speed", _charts(results, numbers)),
        _section("pictures", "Pictures", gallery(results, numbers)),
        *(
            _section(
                f"group-{place}",
                f"Ratio {group[0]:g}, scope {escape(group[1])}",
                group_table(results, group, numbers),
            )
            for place, group in enumerate(results.groups)
        ),
        _section("floors", "Noise floors", references_table(results)),
        _section("left-out", "Left out", _left_out(results)),
        _section("measures", "How to read the numbers", glossary(results)),
        _section("provenance", "Where the numbers come from", _provenance(results)),
    ]
    body = "\n".join(section for section in sections if section)
    title = f"Token merging on {results.model}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="retom eval">
<title>{escape(title)}</title>
<style>
{_file("style.css")}
</style>
</head>
<body>
<main>
<header>
<p class="kind">retom eval</p>
<h1>{escape(title)}</h1>
{_facts(results)}
</header>
{body}
</main>
<script>
{_file("script.js")}
</script>
</body>
</html>
"""


def _section(name: str, title: str, content: str) -> str:
    """A section; nothing where it has no content."""
    if not content:
        return ""
    return f'<section id="{name}">\n<h2>{title}</h2>\n{content}\n</section>'


def _facts(results: Results) -> str:
    content, settings = results.content, results.settings
    facts = [
        f"{len(settings['prompts'])} prompts × {len(settings['seeds'])} "
        f"seed{'s' if len(settings['seeds']) > 1 else ''}",
        f"{content['height']}×{content['width']} px",
        f"{content['steps']} steps, guidance {content['guidance']:g}",
        f"{results.sources[-1]['hardware']['device']}, {content['dtype']}",
        f"{len(results.merged)} contenders",
    ]
    spans = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    notes = "".join(f"<p>{escape(note)}</p>" for note in results.notes)
    return f'<ul class="facts">{spans}</ul>' + (
        f'<div class="notes">{notes}</div>' if notes else ""
    )


def _charts(results: Results, numbers: dict[str, int]) -> str:
    charts = [
        quality_against_speed(results, PSNR, numbers),
        quality_against_speed(results, ERROR, numbers),
        by_noise(results, numbers),
    ]
    drawn = [chart for chart in charts if chart]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _left_out(results: Results) -> str:
    items = [
        f"<li><strong>{escape(name)}</strong>: {escape(reason)}</li>"
        for name, reason in results.left_out.items()
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _provenance(results: Results) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in setting_lines(results))
    blocks: list[str] = []
    for source in results.sources:
        hardware = source["hardware"]
        versions = ", ".join(f"{k} {v}" for k, v in source["versions"].items() if v)
        commit = str(source["commit"] or "unknown")[:12]
        changed = " with uncommitted changes" if source["uncommitted_changes"] else ""
        rows = {
            "command": f"<code>{escape(source['command'])}</code>",
            "time": escape(source["time_utc"]),
            "commit": escape(commit + changed),
            "versions": escape(versions),
            "hardware": escape(
                f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} threads, "
                f"device {hardware['device']}, load average {hardware['load_average_at_start']} "
                "at start"
            ),
        }
        cells = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
        blocks.append(f"<dl>{cells}</dl>")
    earlier = blocks[:-1]
    more = (
        f"<details><summary>{len(earlier)} earlier run{'s' if len(earlier) > 1 else ''} whose "
        f"numbers stand here</summary>{''.join(earlier)}</details>"
        if earlier
        else ""
    )
    prompts = "".join(f"<li>{escape(prompt)}</li>" for prompt in results.settings["prompts"])
    listed = f"<details><summary>The prompts</summary><ol>{prompts}</ol></details>"
    return f"<ul>{lines}</ul>{blocks[-1]}{more}{listed}<p>{BRACKETS}</p>"


def _file(name: str) -> str:
    return files("retom.evaluation.report").joinpath(name).read_text(encoding="utf-8").strip()
