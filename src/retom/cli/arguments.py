"""Arguments that several commands have: what they may say, and how they are told."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from retom.methods.window import WindowSize
    from retom.rules import Levels

_SEED_LIMIT = 2**64  # torch takes 64 bits


def whole_number(least: int, limit: int | None = None) -> Callable[[str], int]:
    """A parser for whole numbers of at least ``least`` and less than ``limit``."""

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text) else None
        if number is None or number < least or (limit is not None and number >= limit):
            below = "" if limit is None else f" and less than {limit}"
            raise argparse.ArgumentTypeError(
                f"a whole number of at least {least}{below} is needed, {text!r} was given"
            )
        return number

    return parse


seed = whole_number(0, _SEED_LIMIT)


def guidance(text: str) -> float:
    """A finite number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"a number of at least 0 is needed, {text!r} was given")
    return number


def ratio(text: str) -> float:
    """A number; whether it is in range, the method says."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"a number of at least 0 and less than 1 is needed, {text!r} was given"
        ) from error


def height_by_width(text: str) -> tuple[int, int]:
    """``HxW`` as (H, W); a single number is both."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(
            f"height x width is needed, such as 2x2 or 192x256, {text!r} was given"
        )
    return int(sides[0]), int(sides[-1])


def window(text: str) -> WindowSize:
    """``HxW`` as (H, W), or ``auto``."""
    try:
        return "auto" if text == "auto" else height_by_width(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"height x width in tokens, such as 2x2, or auto is needed, {text!r} was given"
        ) from error


def levels(text: str) -> Levels:
    """``all``, or whole numbers with commas."""
    if text == "all":
        return "all"
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"all, or levels with commas such as 0,1 are needed, {text!r} was given"
        )
    return tuple(int(part) for part in parts)


def refresh(text: str) -> int | tuple[float, ...]:
    """A whole number of steps, or noise levels with commas."""
    if text.isdecimal():
        return int(text)
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"a whole number, or noise levels with commas such as 0.9,0.5 are needed, {text!r} was "
            "given"
        ) from error


def noise(text: str) -> tuple[float, ...]:
    """Two noise levels with a comma; whether they are in range, the configuration says."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "the lowest and the highest noise level with a comma are needed, such as 0.2,1, "
            f"{text!r} was given"
        ) from error
    return low, high


def prompt(text: str) -> str:
    """Text; bytes that are no text are refused here, before a tokenizer meets them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            "the text is not valid in this terminal's encoding"
        ) from error
    return text


def add_picture(group: argparse._ArgumentGroup) -> None:
    """What is drawn."""
    group.add_argument("prompt", type=prompt, help="what to draw")
    group.add_argument(
        "--negative-prompt", type=prompt, metavar="TEXT", help="what to steer away from"
    )
    group.add_argument("--seed", type=seed, default=0, metavar="N", help="of the noise, default 0")
    add_sampling(group)
    pixels = whole_number(1)
    group.add_argument("--height", type=pixels, metavar="PX", help="overrides that of --size")
    group.add_argument("--width", type=pixels, metavar="PX", help="overrides that of --size")


def add_sampling(group: argparse._ArgumentGroup) -> None:
    """What a model has a default of: steps, guidance and size."""
    group.add_argument(
        "--steps", type=whole_number(1), metavar="N", help="denoising steps, by default the model's"
    )
    group.add_argument(
        "--guidance",
        type=guidance,
        metavar="G",
        help="guidance scale, by default the model's",
    )
    group.add_argument(
        "--size",
        type=height_by_width,
        metavar="HxW",
        help="in pixels, by default the model's",
    )


def add_model(group: argparse._ArgumentGroup, *, several: bool = False) -> None:
    """What draws, and where; ``several`` takes the option more than once."""
    group.add_argument(
        "--model",
        metavar="MODEL",
        action="append" if several else "store",
        help="a diffusers folder or hub id, or a bundled model: retom-emoji-256, which is the "
        "default, or retom-emoji-128" + ("; once for each model to choose from" if several else ""),
    )
    group.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="cpu, cuda, mps, ...; auto is an accelerator if there is one",
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="precision; auto is float16 on CUDA, else float32",
    )
    group.add_argument(
        "--threads", type=whole_number(1, 1025), metavar="N", help="CPU threads to compute on"
    )


def add_file(group: argparse._ArgumentGroup, default: str, what: str) -> None:
    """Where a picture goes."""
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(default),
        metavar="FILE",
        help=f"{what}; default {default}",
    )
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")


def add_output(group: argparse._ArgumentGroup) -> None:
    """What is told, and where the picture goes."""
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out.png"),
        metavar="FILE",
        help="default out.png",
    )
    group.add_argument(
        "--compare", action="store_true", help="also draw un-merged: side by side, and measured"
    )
    group.add_argument(
        "--repeat",
        type=whole_number(1),
        metavar="N",
        help="pairs that --compare times, default 1",
    )
    add_telling(group, "result")


def add_telling(group: argparse._ArgumentGroup, what: str) -> None:
    """Whether the command tells people, programs or nobody."""
    group.add_argument("--json", action="store_true", help=f"print the {what} as JSON")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors and --json")
