"""The arguments that say how to merge, and the configuration that they add up to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from retom.cli import arguments
from retom.config import SCOPES, SCORES, SHARINGS, Config
from retom.errors import ConfigError
from retom.methods import METHODS
from retom.methods.local import LOCAL_ALLOCATIONS, UNMERGES
from retom.plan import MERGE_MODES
from retom.presets import PRESETS
from retom.profit import UNPROFITABLE
from retom.rules import method_to_dict

_OF_CONFIG = (
    *("ratio", "window", "allocation", "reach", "rematch", "merge", "unmerge", "kv_lean", "scope"),
    *("levels", "noise", "refresh", "alternate", "share", "score", "size_weighted", "skip"),
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


def add_merging(group: argparse._ArgumentGroup, *, times: bool = True) -> None:
    """How it merges; :func:`config_of` reads them. ``times``: whether layers can be timed."""
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="a configuration that the options below change; paper is the paper's own form",
    )
    group.add_argument(
        "--ratio",
        type=arguments.ratio,
        metavar="R",
        help="share of the tokens to remove, default 0.5; 0 is none",
    )
    group.add_argument("--method", choices=tuple(METHODS), help="how tokens are chosen and merged")
    group.add_argument(
        "--window",
        type=arguments.window,
        metavar="HxW",
        help="tokens of a local window; auto, the default of retom, follows the ratio",
    )
    group.add_argument("--allocation", choices=LOCAL_ALLOCATIONS, help="which tokens go")
    group.add_argument(
        "--reach",
        type=arguments.whole_number(0),
        metavar="N",
        help="windows a token may look around",
    )
    group.add_argument(
        "--rematch",
        action=argparse.BooleanOptionalAction,
        help="let a token join the most similar kept token beside it, not only a representative",
    )
    group.add_argument("--merge", choices=MERGE_MODES, help="how tokens become one")
    group.add_argument(
        "--unmerge",
        choices=UNMERGES,
        help="what a merged token gets back: with linear, which auto takes, its own part of the "
        "output as well; with similarity a mixture of the outputs around it; or a copy",
    )
    group.add_argument(
        "--kv-lean", type=arguments.ratio, metavar="L",
        help="how much more keys and values lose than queries, 0 to 1",
    )  # fmt: skip
    group.add_argument("--scope", choices=SCOPES, help="which layers run on fewer tokens")
    group.add_argument(
        "--refresh",
        type=arguments.refresh,
        metavar="N",
        help="renew plans at every Nth step, or at noise levels such as 0.9,0.5",
    )
    group.add_argument(
        "--alternate",
        action=argparse.BooleanOptionalAction,
        help="shift the windows by half a window whenever plans are renewed",
    )
    group.add_argument(
        "--levels",
        type=arguments.levels,
        metavar="0,1",
        help="all, or attention levels, largest first",
    )
    group.add_argument(
        "--noise",
        type=arguments.noise,
        metavar="LOW,HIGH",
        help="merge at these noise levels alone, 1 for pure noise: 0.2,1 leaves the last steps "
        "whole",
    )
    group.add_argument(
        "--share", choices=SHARINGS, help="who shares a plan: the layers of a level, or none"
    )
    group.add_argument(
        "--score", choices=SCORES, help="what plans compare: the layer's input, block's or keys"
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
