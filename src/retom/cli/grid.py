"""``retom grid``: methods and ratios across, seeds down, on one page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retom.cli import arguments
from retom.cli.generate import settings_of
from retom.cli.running import require, threads
from retom.drawing.files import check_output, whole_file
from retom.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from retom.config import Config
    from retom.drawing.generation import OnStep, Settings
    from retom.drawing.loading import Model
    from retom.viz import Cell

_EXTRA = ("rich", "numpy", "PIL", "transformers", "diffusers")


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom grid`` its arguments."""
    parser.set_defaults(run=run)
    arguments.add_picture(parser.add_argument_group("picture"))
    axes = parser.add_argument_group("axes")
    axes.add_argument(
        "--methods",
        nargs="+",
        default=["retom"],
        metavar="SPEC",
        help="such as retom, tome or retom:reach=0,merge=representative; default retom",
    )
    axes.add_argument(
        "--ratios", nargs="+", type=arguments.ratio, default=[0.5], metavar="R", help="default 0.5"
    )
    axes.add_argument(
        "--seeds",
        nargs="+",
        type=arguments.seed,
        metavar="N",
        help="one row each, instead of the one of --seed",
    )
    arguments.add_model(parser.add_argument_group("model"))
    arguments.add_file(parser.add_argument_group("output"), "grid.png", "a .png")


def run(options: argparse.Namespace) -> None:
    """Draw all pictures, then save the page.

    Raises:
        RetomError: Something that the user gave does not work; no file was written.
    """
    check_output(options.output)
    require("grid", _EXTRA, "cli")

    from retom import viz
    from retom.cli.progress import StepBar
    from retom.drawing.loading import load_model, quiet_libraries

    columns = _columns(options.methods, options.ratios)
    with quiet_libraries(), threads(options.threads):
        with StepBar(hidden=options.quiet) as bar:
            bar.wait("loading")
            model = load_model(options.model, device=options.device, dtype=options.dtype)
            settings = settings_of(options, model)
            seeds = options.seeds or [options.seed]
            rows = [
                _row(model, replace(settings, seed=seed), list(columns.values()), bar.step)
                for seed in seeds
            ]
        page = viz.grid_of(
            rows,
            columns=["un-merged", *columns],
            rows=[f"seed {seed}" for seed in seeds],
            title=settings.prompt,
        )
        with whole_file(options.output) as file:
            page.save(file, "PNG")
    if not options.quiet:
        print(f"Saved to {options.output}")


def _columns(methods: list[str], ratios: list[float]) -> dict[str, Config]:
    """The configuration of each column by its label."""
    from retom.evaluation.specs import describe, expand
    from retom.evaluation.tomesd import Tomesd

    columns: dict[str, Config] = {}
    for spec in methods:
        for config in expand(spec):
            if isinstance(config, Tomesd):
                raise ConfigError(
                    "retom grid draws retom's own methods, and tome is the one closest to tomesd; "
                    "retom eval compares with the installed tomesd."
                )
            for ratio in ratios:
                columns[f"{describe(config)} {ratio:g}"] = config.with_options(ratio=ratio)
    return columns


def _row(model: Model, settings: Settings, configs: list[Config], on_step: OnStep) -> list[Cell]:
    """The un-merged picture and each merged one, from one seed."""
    from retom.drawing.generation import Comparison, draw, draw_once
    from retom.viz import Cell

    # Merged first: a configuration that does not suit the model fails before any time is spent.
    merged = [draw(model, settings, config, on_step=on_step).merged for config in configs]
    unmerged = draw_once(model, settings, "un-merged", on_step)
    cells = [Cell(unmerged.image)]
    for series in merged:
        comparison = Comparison.of(unmerged, series)
        cells.append(Cell(series.image, f"{comparison.psnr:.1f} dB · SSIM {comparison.ssim:.3f}"))
    return cells
