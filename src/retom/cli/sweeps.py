"""Arguments of the commands that compare: which ratios, scopes and levels, and what is told."""

from __future__ import annotations

import argparse
from pathlib import Path

from retom.cli import arguments
from retom.config import SCOPES


def add_sweep(group: argparse._ArgumentGroup) -> None:
    """Every combination of ``--ratios`` and ``--scopes``, on the ``--levels``."""
    group.add_argument(
        "--ratios", nargs="+", type=_positive_ratio, default=[0.5], metavar="R",
        help="shares of the tokens to remove, default 0.5",
    )  # fmt: skip
    group.add_argument(
        "--scopes", nargs="+", choices=SCOPES, default=["auto"],
        help="layers that run on fewer tokens, default auto: attention in a UNet, block in a "
        "transformer",
    )  # fmt: skip
    group.add_argument(
        "--levels", type=arguments.levels, default=(0,), metavar="0,1",
        help="all, or attention levels, largest first; default 0",
    )  # fmt: skip


def add_folder(group: argparse._ArgumentGroup, default: str, what: str) -> None:
    """Where the results go, and what is told of them."""
    group.add_argument(
        "-o", "--output", type=Path, default=Path(default), metavar="DIR",
        help=f"{what}, default {default}",
    )  # fmt: skip
    arguments.add_telling(group, "results")


def _positive_ratio(text: str) -> float:
    number = arguments.ratio(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(
            f"a number above 0 and below 1 is needed, {text!r} was given"
        )
    return number
