"""``retom studio``: a page in the browser to try merging on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retom.cli import arguments
from retom.cli.arguments import whole_number
from retom.cli.running import require, threads
from retom.drawing.bundled import DEFAULT
from retom.errors import ConfigError
from retom.studio import PACKAGES, Limits, serve

if TYPE_CHECKING:
    import argparse

    from retom.drawing.loading import Model

_PORTS = 2**16


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom studio`` its arguments."""
    parser.set_defaults(run=run)
    model = parser.add_argument_group("model")
    arguments.add_model(model, several=True)
    address = parser.add_argument_group("address")
    address.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen on; 127.0.0.1, the default, is this machine alone; 0.0.0.0 others too",
    )
    address.add_argument(
        "--port", type=whole_number(1, _PORTS), default=7860, metavar="N", help="default 7860"
    )
    address.add_argument("--open", action="store_true", help="open the page in a browser")
    own = Limits()
    limits = parser.add_argument_group("limits")
    for name, default, words in (
        ("side", own.side, "height and width of a picture in pixels at most"),
        ("steps", own.steps, "steps of a picture at most"),
        ("prompt", own.prompt, "characters of a prompt at most"),
        ("queue", own.queue, "pictures that may wait"),
    ):
        limits.add_argument(
            f"--max-{name}",
            type=whole_number(1),
            default=default,
            metavar="N",
            help=f"{words}; default {default}",
        )


def run(options: argparse.Namespace) -> None:
    """Load the models, then serve until interrupted.

    Raises:
        RetomError: Something that the user gave does not work.
    """
    limits = Limits(
        side=options.max_side,
        steps=options.max_steps,
        prompt=options.max_prompt,
        queue=options.max_queue,
    )
    names = [_shown_name(source) for source in options.model or [None]]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Two models are called {name}; a model is shown by the last part of its path. "
                "Rename a folder, or give it once."
            )
    require("studio", PACKAGES, "studio")

    from retom.drawing.loading import load_model, quiet_libraries

    with quiet_libraries(), threads(options.threads):
        models: dict[str, Model] = {}
        for name, source in zip(names, options.model or [None], strict=True):
            models[name] = load_model(source, device=options.device, dtype=options.dtype)
            models[name].pipe.set_progress_bar_config(disable=True)
        serve(
            models,
            limits,
            host=options.host,
            port=options.port,
            on_start=lambda: print(
                f"retom studio: http://{options.host}:{options.port} (Ctrl-C ends it)", flush=True
            ),
            inbrowser=options.open,
        )


def _shown_name(source: str | None) -> str:
    """What visitors see of a model: no folder above it, and of a hub id everything."""
    if source is None:
        return DEFAULT
    path = Path(source)
    return path.resolve().name if path.is_dir() or path.is_absolute() else source
