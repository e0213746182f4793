"""The arguments of ``retom generate``: what they may say, and the configuration they add up to."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retom.config import SCOPES, SHARINGS, Config
from retom.errors import ConfigError
from retom.methods import METHODS
from retom.methods.local import LOCAL_ALLOCATIONS
from retom.plan import MERGE_MODES
from retom.presets import PRESETS
from retom.profit import UNPROFITABLE
from retom.rules import method_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

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


def prompt(text: str) -> str:
    """Text; bytes that are no text are refused here, before a tokenizer meets them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            "the text is not valid in this terminal's encoding"
        ) from error
    return text


_OF_CONFIG = (
    *("ratio", "window", "allocation", "reach", "merge", "kv_lean", "scope", "levels", "refresh"),
    *("share", "size_weighted", "skip"),
)
"""Options of a method or configuration, by the names that both sides use."""


def config_of(options: argparse.Namespace) -> Config:
    """The configuration of ``--config`` or ``--preset``, with the other options on top.

    Raises:
        ConfigError: The file cannot be read, a preset is given with it, or an option is unknown to
            the method or out of its range.
    """
    if options.config and options.preset:
        raise ConfigError(
            f"--config and --preset {options.preset} were both given, and either is a whole "
            "configuration. Give one of them, and single options on top of it."
        )
    config = Config.load(options.config) if options.config else Config()
    if options.preset:
        config = Config.preset(options.preset)
    if options.method is not None and options.method != config.method.name:
        method = METHODS[options.method]()
        kept = method_to_dict(config.method) if options.config or options.preset else {}
        kept.pop("name", None)
        config = config.with_options(method=method).with_options(**kept)
    given: dict[str, Any] = {
        name: value for name in _OF_CONFIG if (value := getattr(options, name, None)) is not None
    }
    return config.with_options(**given)


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


def add_merging(group: argparse._ArgumentGroup, *, times: bool = True) -> None:
    """How it merges; :func:`config_of` reads them. ``times``: whether layers can be timed."""
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="a configuration that the options below change; paper is the paper's own form",
    )
    group.add_argument(
        "--ratio",
        type=ratio,
        metavar="R",
        help="share of the tokens to remove, default 0.5; 0 is none",
    )
    group.add_argument("--method", choices=tuple(METHODS), help="how tokens are chosen and merged")
    group.add_argument(
        "--window", type=height_by_width, metavar="HxW", help="tokens of a local window"
    )
    group.add_argument("--allocation", choices=LOCAL_ALLOCATIONS, help="which tokens go")
    group.add_argument(
        "--reach", type=whole_number(0), metavar="N", help="windows a token may look around"
    )
    group.add_argument("--merge", choices=MERGE_MODES, help="how tokens become one")
    group.add_argument(
        "--kv-lean", type=ratio, metavar="L",
        help="how much more keys and values lose than queries, 0 to 1",
    )  # fmt: skip
    group.add_argument("--scope", choices=SCOPES, help="which layers run on fewer tokens")
    group.add_argument(
        "--refresh",
        type=refresh,
        metavar="N",
        help="renew plans at every Nth step, or at noise levels such as 0.9,0.5",
    )
    group.add_argument(
        "--levels", type=levels, metavar="0,1", help="all, or attention levels, largest first"
    )
    group.add_argument(
        "--share", choices=SHARINGS, help="who shares a plan: the layers of a level, or none"
    )
    group.add_argument(
        "--size-weighted",
        action=argparse.BooleanOptionalAction,
        help="let a merged token weigh in attention as much as its members did",
    )
    if times:
        group.add_argument(
            "--skip",
            choices=(UNPROFITABLE,),
            help="time each distinct layer, and merge where it pays",
        )
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="a configuration that the options above change"
    )


def add_model(group: argparse._ArgumentGroup, *, several: bool = False) -> None:
    """What draws, and where; ``several`` takes the option more than once."""
    group.add_argument(
        "--model",
        metavar="MODEL",
        action="append" if several else "store",
        help="a diffusers folder or hub id; the bundled model if not given"
        + ("; once for each model to choose from" if several else ""),
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
