"""``retom inspect``: draw a picture with merging, and show what merged where in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retom.cli import arguments, merging
from retom.cli.generate import settings_of
from retom.cli.running import require, threads
from retom.drawing.files import check_output, whole_file
from retom.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from typing import BinaryIO

    from PIL.Image import Image

    from retom.viz import Map, Recording

SHOWS = ("page", "groups", "windows", "similarity", "error", "coherence")
SUFFIXES = (".png", ".svg", ".gif", ".webp")
_ANIMATED = (".gif", ".webp")
_EXTRA = ("rich", "numpy", "PIL", "transformers", "diffusers")
_FRAME_MILLISECONDS = 300


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom inspect`` its arguments."""
    parser.set_defaults(run=run)
    arguments.add_picture(parser.add_argument_group("picture"))
    look = parser.add_argument_group("look")
    look.add_argument(
        "--layer",
        metavar="NAME",
        help="which layer, by its name or its place in --list; the first that merges if not given",
    )
    look.add_argument(
        "--call",
        type=int,
        metavar="N",
        help="which call of the denoiser, from 0; negative from the end; by default the last one "
        "in which the layer merged",
    )
    look.add_argument(
        "--show",
        choices=SHOWS,
        help="one map, or a page with all; page is the default for PNG, groups for the others",
    )
    look.add_argument("--list", action="store_true", help="print the layers that merged")
    merging.add_merging(parser.add_argument_group("merging"))
    arguments.add_model(parser.add_argument_group("model"))
    arguments.add_file(
        parser.add_argument_group("output"),
        "inspect.png",
        "a .png, an .svg, or an animation over all calls as .gif or .webp",
    )


def run(options: argparse.Namespace) -> None:
    """Draw once, record, save.

    Raises:
        RetomError: Something that the user gave does not work; no file was written.
    """
    config = merging.config_of(options)
    suffix = options.output.suffix.lower()
    show: Map | None = None if options.show == "page" else options.show
    if show is None and suffix != ".png":
        show = "groups"
    if options.show == "page" and suffix != ".png":
        raise ConfigError(
            f"A page is a PNG; {options.output} is not. Choose one map with --show for {suffix}."
        )
    check_output(options.output, SUFFIXES)
    require("inspect", _EXTRA, "cli")

    from retom import viz
    from retom.cli.progress import StepBar
    from retom.drawing.generation import draw_once
    from retom.drawing.loading import load_model, quiet_libraries
    from retom.handle import applied

    with quiet_libraries(), threads(options.threads):
        with StepBar(hidden=options.quiet) as bar:
            bar.wait("loading")
            model = load_model(options.model, device=options.device, dtype=options.dtype)
            settings = settings_of(options, model)
            with applied(model.pipe, config) as handle, viz.record(handle) as recording:
                image = draw_once(model, settings, "drawing", bar.step).image
        layer = _layer(options.layer)
        look = recording.look(layer, options.call)

        with whole_file(options.output) as file:
            if show is None:
                viz.page(look, image, title=settings.prompt).save(file, "PNG")
            elif suffix == ".svg":
                file.write(viz.to_svg(viz.drawn(look, show), image).encode("utf-8"))
            elif suffix in _ANIMATED:
                frames = viz.animation(recording.of_layer(layer), image, show)
                _save_frames(frames, file, suffix)
            else:
                viz.to_picture(viz.drawn(look, show), image).save(file, "PNG")
    if options.list:
        _print_layers(recording)
    if not options.quiet:
        kept = f"{look.grid.num_tokens} tokens to {look.num_kept}"
        print(f"{look.layer}, call {look.call} of {recording.calls}: {kept}")
        print(f"Saved to {options.output}")


def _layer(text: str | None) -> str | int:
    if text is None:
        return 0
    return int(text) if text.isdecimal() else text


def _print_layers(recording: Recording) -> None:
    for place, name in enumerate(recording.layers):
        looks = recording.of_layer(name)
        error = sum(look.error.mean().item() for look in looks) / len(looks)
        grid, kept = looks[0].grid, looks[0].num_kept
        print(f"{place:3}  {name}  {grid}, {grid.num_tokens} to {kept}, mean error {error:.3f}")


def _save_frames(frames: list[Image], file: BinaryIO, suffix: str) -> None:
    options: dict[str, Any] = {"duration": _FRAME_MILLISECONDS, "loop": 0, "save_all": True}
    kind = suffix.removeprefix(".").upper()
    frames[0].save(file, kind, append_images=frames[1:], **options)
