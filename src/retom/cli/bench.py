"""``retom bench``: how fast, how large, and how near to merging that costs nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retom.cli import arguments
from retom.cli.running import require, threads
from retom.cli.sweeps import add_folder, add_sweep
from retom.errors import ConfigError

if TYPE_CHECKING:
    from retom.benchmarking.result import Bench, Case
    from retom.benchmarking.scaling_result import Scaling

_EXTRA = ("rich", "numpy", "transformers", "diffusers")
_PARTS = ("auto", "layer", "block", "denoiser", "picture")
_WIDTH = 160
_QUICK: dict[str, Any] = {"sizes": [(256, 256)], "rounds": 7}


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom bench`` its arguments."""
    parser.set_defaults(run=run)
    _add_what(parser.add_argument_group("what is timed"))
    _add_how(parser.add_argument_group("how"))
    arguments.add_model(parser.add_argument_group("model"))
    output = parser.add_argument_group("output")
    add_folder(output, "retom-bench", "folder for bench.json, .csv, .md and .svg")


def run(options: argparse.Namespace) -> None:
    """Time, write the files, print the tables.

    Raises:
        RetomError: Something that the user gave does not work; nothing was written.
    """
    _check(options)
    require("bench", _EXTRA, "cli")

    from retom.benchmarking.files import check_folder, write_files
    from retom.cli.progress import WorkBar
    from retom.drawing.loading import quiet_libraries

    check_folder(options.output)
    with quiet_libraries(), threads(options.threads):
        with WorkBar(hidden=options.quiet) as bar:
            bar.wait("loading")
            found = (_scaling if options.scaling else _bench)(options, bar.step)
        files = write_files(found, options.output)
    if options.json:
        json.dump(found.to_dict(), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    elif not options.quiet:
        _print(found, files)


def _bench(options: argparse.Namespace, tell: Any) -> Bench:  # noqa: ANN401 - a function
    from retom.benchmarking.bench import bench
    from retom.benchmarking.lineup import default_methods
    from retom.benchmarking.settings import Settings

    quick = _QUICK if options.quick else {}
    methods = options.methods
    if methods is None and options.quick:
        methods = default_methods(quick=True)
    settings = Settings(
        sizes=options.sizes or quick.get("sizes"),
        methods=methods,
        ratios=options.ratios,
        scopes=options.scopes,
        levels=options.levels,
        part=options.part,
        rounds=options.rounds or quick.get("rounds", Settings().rounds),
        batch=options.batch,
        seed=options.seed,
        compiled=options.compile,
        steps=options.steps,
        guidance=options.guidance,
    )
    return bench(
        options.model,
        settings,
        device=options.device,
        dtype=options.dtype,
        command=options.command,
        on_progress=tell,
    )


def _scaling(options: argparse.Namespace, tell: Any) -> Scaling:  # noqa: ANN401 - a function
    from retom.benchmarking.scaling import scale
    from retom.benchmarking.scaling_result import ScalingSettings

    plain = ScalingSettings()
    settings = ScalingSettings(
        methods=options.methods,
        ratio=options.ratios[0],
        most_tokens=options.max_tokens or (16_384 if options.quick else plain.most_tokens),
        channels=options.channels or plain.channels,
        batch=options.batch or plain.batch,
        rounds=options.rounds or (_QUICK["rounds"] if options.quick else plain.rounds),
        seed=options.seed,
    )
    return scale(
        settings,
        device=options.device,
        dtype=options.dtype,
        command=options.command,
        on_progress=tell,
    )


def _check(options: argparse.Namespace) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigError: There are some.
    """
    if options.scaling:
        unused = [
            name
            for name, value, plain in (
                ("--model", options.model, None),
                ("--sizes", options.sizes, None),
                ("--scopes", options.scopes, ["auto"]),
                ("--levels", options.levels, (0,)),
                ("--part", options.part, "auto"),
                ("--compile", options.compile, False),
                ("several --ratios", len(options.ratios) > 1, False),
            )
            if value != plain
        ]
        where = "--scaling times plan, merge and un-merge on tokens of its own, without a model"
    else:
        given = (("--max-tokens", options.max_tokens), ("--channels", options.channels))
        unused = [name for name, value in given if value is not None]
        where = "without --scaling"
    if not options.scaling and options.part != "picture":
        given = (("--steps", options.steps), ("--guidance", options.guidance))
        unused += [name for name, value in given if value is not None]
        if options.steps is not None or options.guidance is not None:
            where = "without --part picture"
    if unused:
        raise ConfigError(f"{' and '.join(unused)} would do nothing: {where}. Leave it out.")


def _print(found: Bench | Scaling, files: list[Path]) -> None:
    """Print tables for people, on stdout."""
    from rich.console import Console
    from rich.text import Text

    from retom.benchmarking.result import Bench

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)  # lines may wrap; numbers must not
    if isinstance(found, Bench):
        about = f"{found.denoiser}, {found.dtype}, {found.rounds} rounds. {found.why}"
        console.print(Text(f"\n{found.model}", style="bold"))
        console.print(Text(about, style="dim"))
        for case in found.cases:
            console.print(Text(f"\n{case.name}", style="bold"))
            console.print(_table(case))
        for note in found.notes():
            console.print(Text(note, style="dim"))
    else:
        console.print(Text(str(found)))
    console.print(Text("\nWritten: " + ", ".join(map(str, files))))


def _table(case: Case) -> Any:  # noqa: ANN401 - a table of rich
    from rich.table import Table

    from retom.benchmarking.result import case_cells

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    header, rows = case_cells(case)
    table.add_column(header[0], no_wrap=True)
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sizes", nargs="+", type=arguments.height_by_width, metavar="HxW",
        help="of pictures in pixels, by default the model's",
    )  # fmt: skip
    group.add_argument(
        "--methods", nargs="+", metavar="SPEC",
        help="as in retom eval, such as retom retom:reach=0,share=level toma tomesd; unmerged and "
        "oracle, merging that costs nothing, always take part; a few of each kind if not given",
    )  # fmt: skip
    add_sweep(group)
    group.add_argument(
        "--part", choices=_PARTS, default="auto",
        help="what one timed call is: a self-attention layer, a block, the denoiser, a whole "
        "picture; auto is the denoiser where it fits into memory, else blocks, and says which",
    )  # fmt: skip
    group.add_argument(
        "--scaling", action="store_true",
        help="instead of a model, plan + merge + un-merge on 1024 tokens and more",
    )  # fmt: skip
    number = arguments.whole_number
    group.add_argument("--max-tokens", type=number(2048), metavar="N", help="of --scaling, 262144")
    group.add_argument("--channels", type=number(1), metavar="C", help="of --scaling, default 320")


def _add_how(group: argparse._ArgumentGroup) -> None:
    number = arguments.whole_number
    group.add_argument(
        "--quick", action="store_true",
        help="within three minutes: fewer methods, 7 rounds, 256x256 px; other options hold",
    )  # fmt: skip
    group.add_argument(
        "--rounds", type=number(2), metavar="N",
        help="in each every contender runs once; default 11",
    )  # fmt: skip
    group.add_argument(
        "--batch", type=number(1), metavar="N",
        help="pictures in a call, default 2, what guidance takes for one picture; 1 where guidance "
        "is distilled into the model",
    )  # fmt: skip
    group.add_argument("--compile", action="store_true", help="torch.compile every contender")
    group.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="default 0")
    group.add_argument("--steps", type=number(1), metavar="N", help="of --part picture")
    group.add_argument("--guidance", type=arguments.guidance, metavar="G", help="the same")
