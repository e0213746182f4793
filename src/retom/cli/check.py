"""``retom check``: see in a few pictures whether a setting pays."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retom.cli import arguments, merging
from retom.cli.running import require, threads

if TYPE_CHECKING:
    import argparse

    from retom.drawing.loading import Model
    from retom.evaluation.checking import Check

_EXTRA = ("rich", "numpy", "PIL", "transformers", "diffusers")
FORMAT = 1
"""Version of the record; it grows by keys alone as long as this stays."""


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom check`` its arguments."""
    parser.set_defaults(run=run)
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "prompts", nargs="*", type=arguments.prompt, help="what to draw; two of its own if none"
    )
    group.add_argument(
        "--seeds", nargs="+", type=arguments.seed, default=[0, 1], metavar="N",
        help="each draws every prompt once; default 0 1",
    )  # fmt: skip
    arguments.add_sampling(group)
    merging.add_merging(parser.add_argument_group("merging"))
    arguments.add_model(parser.add_argument_group("model"))
    arguments.add_telling(parser.add_argument_group("output"), "result")


def run(options: argparse.Namespace) -> None:
    """Draw the pairs and print what they say.

    Raises:
        RetomError: Something that the user gave does not work.
    """
    config = merging.config_of(options)
    require("check", _EXTRA, "cli")

    from retom.cli.progress import StepBar
    from retom.drawing.loading import load_model, quiet_libraries
    from retom.evaluation.checking import PROMPTS, check

    bar = StepBar(hidden=options.quiet)
    with quiet_libraries(), threads(options.threads), bar:
        bar.wait("loading")
        model = load_model(options.model, device=options.device, dtype=options.dtype)
        found = check(
            model.pipe,
            config,
            prompts=options.prompts or PROMPTS,
            seeds=options.seeds,
            on_picture=bar.step,
            call=_call(options, model),
        )
    if options.json:
        json.dump(_record(found, options, model), sys.stdout, indent=2, allow_nan=False)
        print()
    elif not options.quiet:
        print(found)


def _call(options: argparse.Namespace, model: Model) -> dict[str, Any]:
    """Arguments of the pipeline, the model's defaults filled in."""
    from retom.drawing.generation import check_size

    size = options.size or model.default_size
    call: dict[str, Any] = {
        "num_inference_steps": options.steps or model.steps,
        "guidance_scale": model.guidance if options.guidance is None else options.guidance,
    }
    if size is not None:
        check_size(model, *size)
        call |= {"height": size[0], "width": size[1]}
    return call


def _record(found: Check, options: argparse.Namespace, model: Model) -> dict[str, Any]:
    from retom.evaluation.provenance import provenance

    return {
        "format": FORMAT,
        "model": Path(model.name).name,
        **found.to_dict(),
        "source": provenance(options.command, model.device),
    }
