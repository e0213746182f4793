"""``retom explain``: what merging can gain on a model, before it runs and without its weights."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING

from retom.cli import arguments, merging
from retom.cli.running import require

if TYPE_CHECKING:
    from rich.table import Table

    from retom.explanation import Explanation

WIDTH = 110
"""Columns of the tables where there is no terminal to ask."""

_EXTRA = ("rich", "transformers", "diffusers")


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom explain`` its arguments."""
    parser.set_defaults(run=run)
    pixels = arguments.whole_number(1)
    model = parser.add_argument_group("model")
    model.add_argument(
        "model",
        metavar="MODEL",
        help="a name such as flux-dev (an unknown one lists all), a bundled model such as "
        "retom-emoji-256, or a diffusers folder",
    )
    model.add_argument(
        "--size",
        type=arguments.height_by_width,
        metavar="HxW",
        help="in pixels, by default the model's",
    )
    model.add_argument("--height", type=pixels, metavar="PX", help="overrides that of --size")
    model.add_argument("--width", type=pixels, metavar="PX", help="overrides that of --size")
    model.add_argument(
        "--text-tokens", type=pixels, metavar="N", help="length of the text, by default the model's"
    )
    model.add_argument(
        "--balance",
        type=_positive,
        metavar="F",
        help="FLOPs that the hardware computes while it moves a byte, default 300 (a data-centre "
        "GPU); about 10 on a CPU",
    )
    merging.add_merging(parser.add_argument_group("merging"), times=False)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print every layer as JSON")


def run(options: argparse.Namespace) -> None:
    """Explain, and print it.

    Raises:
        RetomError: Something that the user gave does not work.
    """
    config = merging.config_of(options)
    require("explain", _EXTRA, "cli")

    from retom.drawing.bundled import BUNDLED, bundled_folder
    from retom.drawing.loading import quiet_libraries
    from retom.explanation import explain

    name = options.model
    size = options.size or (None, None)
    balance = {} if options.balance is None else {"balance": options.balance}
    with quiet_libraries():
        explanation = explain(
            str(bundled_folder(name)) if name in BUNDLED else name,
            config,
            height=options.height or size[0],
            width=options.width or size[1],
            text_tokens=options.text_tokens,
            **balance,
        )
    if options.json:
        json.dump(explanation.to_dict(), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    else:
        print_explanation(explanation)


def print_explanation(explanation: Explanation) -> None:
    """Print the answer for people, on stdout."""
    from rich.console import Console
    from rich.text import Text

    from retom.explanation.result import readable

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    method = explanation.config.method
    console.print()
    console.print(Text(f"{explanation.name} · {explanation.denoiser}", style="bold"))
    facts = [
        f"{explanation.height}x{explanation.width} px",
        f"{explanation.text_tokens} text tokens ({explanation.text_tokens_from})",
        f"{readable(explanation.flops)}FLOPs a call and picture",
    ]
    console.print(Text(" · ".join(facts), style="dim"))
    parts = [f"{part} {share:.0%}" for part, share in explanation.parts.items()]
    console.print(Text(" · ".join(parts), style="dim"))
    if not explanation.unsupported:
        merging = f"{method.name}, ratio {method.ratio:g}, scope {explanation.scope}"
        console.print(Text(merging, style="dim"))
    console.print()
    console.print(_layers(explanation))
    console.print()
    if explanation.unsupported:
        console.print(Text(explanation.unsupported))
        return
    console.print(_ceilings(explanation))
    for sentence in explanation.advice:
        console.print(Text(f"\n{sentence}"))


def _layers(explanation: Explanation) -> Table:
    from rich.table import Table

    from retom.explanation.result import readable

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layers", no_wrap=True)
    for name in ("tokens", "kept", "attention", "projections", "MLP", "text", "saved", "pays"):
        table.add_column(name, justify="right")
    rules = len({layer.noise for layer in explanation.layers}) > 1
    for count, row in explanation.rows():
        kind = f"like {row.name}" if row.level is None else f"x level {row.level}, {row.grid}"
        noise = f", noise {row.noise[0]:g}-{row.noise[1]:g}" if rules else ""
        flops = row.flops
        table.add_row(
            f"{count} {kind}{noise}",
            "" if row.tokens is None else str(row.tokens),
            "" if row.kept is None else str(row.kept),
            *(
                readable(part).strip()
                for part in (flops.attention, flops.projections, flops.mlp, flops.text)
            ),
            f"{row.saved:.0%}" if row.merges else "",
            {None: "", True: "yes", False: "no"}[row.pays],
        )
    return table


def _ceilings(explanation: Explanation) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("at most, the whole denoiser")
    table.add_column("configured levels", justify="right")
    table.add_column("all levels", justify="right")
    refusals: list[str] = []
    for scope in dict.fromkeys(entry.scope for entry in explanation.ceilings):
        cells: list[str] = []
        for levels in ("configured", "all"):
            entry = explanation.ceiling(scope, levels)
            cells.append("-" if entry.speedup is None else f"{entry.speedup:.2f}x")
            refusals += [entry.refusal] if entry.refusal else []
        table.add_row(f"scope {scope}", *cells)
    if refusals:
        table.caption = "\n".join(dict.fromkeys(refusals))
    return table


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, {text!r} was given")
    return number
