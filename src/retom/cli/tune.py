"""``retom tune``: a schedule for a speed or a closeness that is asked for."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from retom.cli import arguments
from retom.cli.evaluate import folder_of
from retom.cli.running import require, threads
from retom.config import SCOPES

if TYPE_CHECKING:
    from retom.drawing.loading import Model
    from retom.tuning.result import Tuned
    from retom.tuning.settings import Settings

_EXTRA = ("rich", "numpy", "PIL", "transformers", "diffusers", "safetensors")
CONFIG = "config.json"
_METHODS = ["retom", "retom:reach=0"]
_RATIOS = [0.15, 0.3, 0.5, 0.7, 0.85]


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom tune`` its arguments."""
    parser.set_defaults(run=run)
    _add_target(parser.add_argument_group("target"))
    _add_candidates(parser.add_argument_group("candidates"))
    _add_samples(parser.add_argument_group("pictures"))
    arguments.add_model(parser.add_argument_group("model"))
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", type=Path, default=Path("retom-tune"), metavar="DIR",
        help="where measurements grow and config.json is written, default retom-tune",
    )  # fmt: skip
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors and --json")


def run(options: argparse.Namespace) -> None:
    """Measure what is missing, write the configuration, print the tables.

    Raises:
        RetomError: Something that the user gave does not work; what was measured stays.
    """
    require("tune", _EXTRA, "cli")

    from retom.cli.progress import WorkBar
    from retom.drawing.loading import load_model, quiet_libraries
    from retom.tuning.settings import check_target
    from retom.tuning.tune import tune

    check_target(options.target_speedup, options.target)
    with quiet_libraries(), threads(options.threads):
        with WorkBar(hidden=options.quiet) as bar:
            bar.wait("loading the model")
            model = load_model(options.model, device=options.device, dtype=options.dtype)
            tuned = tune(
                model,
                _settings(options, model),
                options.output,
                command=options.command,
                on_progress=bar.step,
            )
        files = _write(tuned, options.output)
    if options.json:
        json.dump(tuned.to_dict(), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    elif not options.quiet:
        _print(tuned, files)


def _settings(options: argparse.Namespace, model: Model) -> Settings:
    from retom.evaluation.prompts import prompts_of
    from retom.tuning.settings import Settings

    height, width = options.size or (None, None)
    return Settings(
        prompts=prompts_of(folder_of(options.model), options.prompts_file),
        target_speedup=options.target_speedup,
        target_psnr=options.target,
        methods=options.methods,
        ratios=options.ratios,
        scope=options.scope,
        levels=options.levels,
        plateaus=options.plateaus,
        tuning=options.prompts,
        verification=options.judge,
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
        height=height,
        width=width,
        rounds=options.rounds,
        batch=options.batch,
        thorough=options.thorough,
    )


def _write(tuned: Tuned, folder: Path) -> list[Path]:
    """The numbers, the tables, and last the configuration, so that it is there if all of it is."""
    from retom.evaluation.store import write_whole

    data = json.dumps(tuned.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    config = json.dumps(tuned.config.to_dict(), indent=2)
    texts = {"tune.json": data, "tune.md": str(tuned).rstrip(), CONFIG: config}
    for name, text in texts.items():
        write_whole(folder / name, (text + "\n").encode())
    return [folder / name for name in texts]


def _print(tuned: Tuned, files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from retom.tuning import result

    console = Console(highlight=False, soft_wrap=True)
    titles = {
        "Schedule": result.schedule_cells(tuned),
        "On other prompts": result.judged_cells(tuned),
        "Uniform settings": result.baseline_cells(tuned),
        "Predicted and measured": result.prediction_cells(tuned),
    }
    for title, (header, rows) in titles.items():
        if not rows:
            continue
        shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for name in header:
            shown.add_column(name)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        console.print()
    for name, reason in tuned.left_out.items():
        console.print(f"Left out: {name}. {reason}", markup=False)
    console.print(tuned.verdict, markup=False)
    console.print(f"Written: {', '.join(map(str, files))}", markup=False)


def _psnr(text: str) -> float:
    """``psnr=30``."""
    name, equals, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        equals = ""
        number = 0.0
    if name != "psnr" or not equals:
        raise argparse.ArgumentTypeError(
            f"psnr=DB is needed, such as psnr=30, {text!r} was given; a speed is --target-speedup"
        )
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"a number is needed, {text!r} was given") from error


def _add_target(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--target-speedup", type=_number, metavar="X",
        help="how many times as fast the denoiser is to be over a picture, such as 1.3",
    )  # fmt: skip
    group.add_argument(
        "--target", type=_psnr, metavar="psnr=DB",
        help="instead of a speed, how close pictures are to stay to the un-merged ones",
    )  # fmt: skip


def _add_candidates(group: argparse._ArgumentGroup) -> None:
    number = arguments.whole_number
    group.add_argument(
        "--methods", nargs="+", metavar="SPEC", default=_METHODS,
        help=f"as in retom eval, default {' '.join(_METHODS)}",
    )  # fmt: skip
    group.add_argument(
        "--ratios", nargs="+", type=arguments.ratio, default=_RATIOS, metavar="R",
        help=f"of each, default {' '.join(map(str, _RATIOS))}; where windows cannot reach one, it "
        "is left out",
    )  # fmt: skip
    group.add_argument(
        "--scope", choices=SCOPES, default="auto",
        help="layers that run on fewer tokens, default auto: attention in a UNet, block in a "
        "transformer",
    )  # fmt: skip
    group.add_argument(
        "--levels", type=arguments.levels, default="all", metavar="0,1",
        help="that may merge, largest grid first; default all",
    )  # fmt: skip
    group.add_argument(
        "--plateaus", type=number(1), default=4, metavar="N",
        help="stretches of noise that choose for themselves, default 4",
    )  # fmt: skip
    group.add_argument(
        "--thorough", action="store_true",
        help="draw with every candidate on every level and stretch of noise, instead of one of "
        "them and the denoiser's error for the others",
    )  # fmt: skip


def _add_samples(group: argparse._ArgumentGroup) -> None:
    number = arguments.whole_number
    group.add_argument(
        "--prompts", type=number(2), default=4, metavar="N", help="to tune on, default 4"
    )
    group.add_argument(
        "--judge", type=number(2), default=8, metavar="N", help="others to judge on, default 8"
    )
    group.add_argument(
        "--prompts-file", type=Path, metavar="FILE",
        help="one a line; the model's own, or some that come along, if not given",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=number(0, 2**31), default=0, metavar="N", help="of the noise, default 0"
    )
    arguments.add_sampling(group)
    group.add_argument(
        "--batch", type=number(2), default=4, metavar="N", help="prompts at once, even, default 4"
    )
    group.add_argument(
        "--rounds", type=number(3), default=7, metavar="N",
        help="timed rounds, in each of which every candidate runs once; default 7",
    )  # fmt: skip
