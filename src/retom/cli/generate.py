"""``retom generate``: draw a picture with merging, and compare it with the un-merged one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

from retom.cli import arguments, merging
from retom.cli.running import require, threads
from retom.drawing.files import check_output
from retom.drawing.png import save_png
from retom.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from retom.config import Config
    from retom.drawing.generation import OnStep, Result, Settings
    from retom.drawing.loading import Model

_EXTRA = ("rich", "numpy", "PIL", "transformers", "diffusers")


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom generate`` its arguments."""
    parser.set_defaults(run=run)
    arguments.add_picture(parser.add_argument_group("picture"))
    merging.add_merging(parser.add_argument_group("merging"))
    arguments.add_model(parser.add_argument_group("model"))
    arguments.add_output(parser.add_argument_group("output"))


def run(options: argparse.Namespace) -> None:
    """Check everything that can be checked, load the model, draw, save, report.

    Raises:
        RetomError: Something that the user gave does not work; no file was written.
    """
    config = merging.config_of(options)
    if options.repeat is not None and not options.compare:
        raise ConfigError("--repeat measures pairs, so it needs --compare.")
    check_output(options.output)
    require("generate", _EXTRA, "cli")

    from retom.cli import report
    from retom.cli.progress import StepBar
    from retom.drawing.loading import load_model, quiet_libraries

    with quiet_libraries(), threads(options.threads):
        with StepBar(hidden=options.quiet) as bar:
            bar.wait("loading")
            model = load_model(options.model, device=options.device, dtype=options.dtype)
            settings = settings_of(options, model)
            result = _draw(options, model, settings, config, bar.step)
        record = report.record_of(model, settings, config, result, options.output)
        save_png(report.picture_of(record, result), options.output, record)
    if options.json:
        report.print_json(record)
    elif not options.quiet:
        report.print_result(record)


def _draw(
    options: argparse.Namespace, model: Model, settings: Settings, config: Config, on_step: OnStep
) -> Result:
    from retom.drawing.generation import compare, draw

    try:
        if options.compare:
            return compare(model, settings, config, repeat=options.repeat or 1, on_step=on_step)
        return draw(model, settings, config, on_step=on_step)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"A picture of {settings.height}x{settings.width} with {model.name} does not fit into "
            f"the memory of {model.device}; use a smaller --size or another --device."
        ) from error


def settings_of(options: argparse.Namespace, model: Model) -> Settings:
    """What to draw, the model's defaults filled in."""
    from retom.drawing.generation import Settings, check_size

    size = options.size or model.default_size
    height = options.height or (size and size[0])
    width = options.width or (size and size[1])
    if height is None or width is None:
        raise ConfigError(f"{model.name} names no size of its own; give one with --size.")
    check_size(model, height, width)
    limit, length = model.prompt_limit, model.prompt_length(options.prompt)
    if limit is not None and length > limit and not options.quiet:
        print(
            f"retom: note: the prompt is {length} tokens long; the model reads the first {limit}.",
            file=sys.stderr,
        )
    return Settings(
        prompt=options.prompt,
        negative_prompt=options.negative_prompt,
        seed=options.seed,
        steps=options.steps or model.steps,
        guidance=model.guidance if options.guidance is None else options.guidance,
        height=height,
        width=width,
    )
