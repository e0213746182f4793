"""The evaluation of the model as Markdown, for its card."""

from __future__ import annotations

from typing import Any

_SPLITS = {"trained": "training pictures", "held_out": "held-out pictures"}


def markdown(found: dict[str, Any]) -> str:
    """Write what :mod:`.evaluate` found.

    Args:
        found: Its record, plain data.
    """
    parts = [
        f"Model {found['model']}, {found['steps']} steps, guidance {found['guidance']:g}, seed"
        f" {found['seed']}; torch {found['versions']['torch']}, {found['versions']['machine']}.",
        "### Like its data?\n\n" + _kid(found["kid"]),
        "### What it is asked for?\n\n" + _retrieval(found["retrieval"], found["head"]),
        "### Copies?\n\n" + _neighbours(found["neighbours"]),
        "Sheets: `sheet64.png`, 64 fixed prompts in blocks of eight; `neighbours.png`, drawn"
        " pictures beside the training pictures nearest by features and by pixels.",
    ]
    return "\n\n".join(parts) + "\n"


def _kid(rows: dict[str, Any]) -> str:
    columns = list(next(iter(rows.values())))
    cells = [
        [name, str(next(iter(row.values()))["n"]), *(_interval(row[to]) for to in columns)]
        for name, row in rows.items()
    ]
    head = ["", "n", *(f"KID to {_SPLITS[to]}" for to in columns)]
    return (
        f"{_table(head, cells)}\n\n"
        "On features of EfficientNet-Lite0, unbiased, 95 % bootstrap intervals over pictures; lower"
        " is closer. Real against itself is one half against the other, the floor; real against"
        " the other split is what another choice of concepts scores."
    )


def _retrieval(rows: dict[str, Any], validated: dict[str, Any] | None) -> str:
    cells = [
        [name, str(one["n"]), count, f"{one['top1']:.0%}", f"{one['top5']:.0%}"]
        for name, row in rows.items()
        for count, one in row.items()
    ]
    text = _table(["pictures", "n", "prompts to choose from", "top-1", "top-5"], cells)
    text += (
        "\n\nRandom trained concepts, one picture each; a picture is right if its own prompt is the"
        " first, or among the first five, by the alignment head. Real pictures of the same concepts"
        " show what the head can do at best."
    )
    if any("further word" in name for name in rows):
        text += (
            " A further word is one that the text encoder learned after the pictures; right is the"
            " concept that it stands for."
        )
    if validated is not None:
        text += (
            f" Of concepts that the head never saw it finds {validated['top5']:.0%} among"
            f" {validated['num_texts']} in the first five."
        )
    return text


def _neighbours(rows: dict[str, Any]) -> str:
    cells = [
        [
            name, str(row["n"]), f"{row['median cosine']:.3f}", f"{row['median PSNR']:.1f}",
            str(row["near copies"]), str(row.get("own concept", "")),
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    head = ["pictures", "n", "cosine", "PSNR (dB)", "near copies", "nearest is its own concept"]
    return (
        f"{_table(head, cells)}\n\n"
        "To the nearest training picture on the same background: medians of the cosine of features"
        " and of PSNR. A near copy reaches 25 dB. Each concept was trained on one picture a style,"
        " so that a good picture of it is near that one; pictures of held-out concepts are the"
        " ones that could not be copied."
    )


def _interval(one: dict[str, Any]) -> str:
    return f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| :-- |{' --: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
