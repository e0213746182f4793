"""The contenders: every setting of retom, its baselines, and tomesd 0.1.3 on the same layers.

A variant is applied in place with :func:`apply`, or to a copy that shares its weights with
:func:`merged_copy`, so that several contenders stand ready in one process.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, ClassVar

from torch import Tensor, nn

import retom
from retom.evaluation.timing import shared_copy
from retom.evaluation.tokens import tokens_in_layers
from retom.evaluation.tomesd import Tomesd
from retom.methods import (
    SDTM,
    ImportanceToMe,
    Method,
    RandomRepresentative,
    ReToM,
    SiTo,
    ToMA,
    ToMe,
    WindowCorner,
)
from retom.methods.local import LocalMethod

UNMERGED = "un-merged"
TOMESD = "tomesd/random"
DEFAULT = "retom/similarity/2x2/reach1/mean/layer+sized"
CHEAPEST = "retom/similarity/2x2/reach0/mean/level"
SHARINGS = ("level", "layer", "layer+sized")
"""Who shares a plan, and whether attention is weighted by the sizes of merged tokens."""


@dataclass(frozen=True)
class Variant:
    """One contender.

    Attributes:
        name: What globs select: family/allocation/window/reach/merge/sharing, then other options;
            for peers the family and what they have of these.
        method: A retom method, or None for tomesd.
        sharing: One of :data:`SHARINGS`.
        use_rand: tomesd's own option: a random destination in each cell, or its corner.
        score: What plans compare, see ``retom.Config``.
    """

    name: str
    method: Method | None
    sharing: str = "level"
    use_rand: bool = True
    score: Any = "input"

    def at(self, ratio: float) -> Variant:
        """The same contender at another ratio."""
        if self.method is None:
            return self
        return replace(self, method=replace(self.method, ratio=ratio))


@dataclass(frozen=True)
class SlicePlan:
    """Stands in for a plan: keep the first K tokens, repeat them afterwards."""

    batch_size: int
    num_tokens: int
    num_kept: int

    def merge(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, K, C): one copy, which saves each projection one of its own."""
        return x[:, : self.num_kept].contiguous()

    def unmerge(self, y: Tensor) -> Tensor:
        """(B, K, C) -> (B, N, C): the K tokens over and over, one copy."""
        return y.repeat(1, -(-self.num_tokens // self.num_kept), 1)[:, : self.num_tokens]


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Merging that costs nothing and knows nothing: a bound on speed, no way to draw."""

    name: ClassVar[str] = "oracle"

    ratio: float = 0.5

    def num_removed(self, grid: retom.Grid) -> int:
        """R = floor(ratio N)."""
        return math.floor(round(self.ratio * grid.num_tokens, 9))

    def check_protected(self, protected: Tensor, grid: retom.Grid) -> None:
        """Refuse: no benchmark protects tokens."""
        raise retom.ConfigError("The oracle knows no tokens, and can protect none.")

    def plan(self, x: Tensor, grid: retom.Grid, hints: object = None) -> SlicePlan:
        """No look at ``x``."""
        return SlicePlan(len(x), grid.num_tokens, grid.num_tokens - self.num_removed(grid))


def all_variants() -> list[Variant]:
    """Every contender at ratio 0.5: tomesd, every setting of ReToM, its options, peers."""
    found = [Variant(TOMESD, None), Variant("tomesd/corner", None, use_rand=False)]
    sides, merges = (2, 4), ("mean", "norm_mean", "representative")
    for allocation, side, reach, merge, sharing in itertools.product(
        ("similarity", "coherence", "uniform", "multiscale"), sides, (0, 1, 2), merges, SHARINGS
    ):
        if allocation == "multiscale" and reach:
            continue
        options: Any = {"allocation": allocation, "window": (side, side)}
        method = ReToM(reach=reach, merge=merge, **options)
        found.append(_variant("retom", method, sharing))
    for kind, side, reach, merge, sharing in itertools.product(
        (RandomRepresentative, WindowCorner), sides, (0, 1), merges, SHARINGS
    ):
        method = kind(window=(side, side), reach=reach, merge=merge)
        found.append(_variant(kind.name, method, sharing))
    return found + _with_options() + _peers()


def _with_options() -> list[Variant]:
    """ReToM's other options, one at a time, on its best setting and on its cheapest."""
    found: list[Variant] = []
    for base, sharing in ((ReToM(reach=1), SHARINGS[-1]), (ReToM(reach=0), SHARINGS[0])):
        plain = _variant("retom", base, sharing)
        found += [
            replace(plain, name=f"{plain.name}/{option}", **changes)
            for option, changes in {
                "rematch": {"method": replace(base, rematch=True)},
                "soft": {"method": replace(base, unmerge="similarity")},
                "rematch+soft": {"method": replace(base, rematch=True, unmerge="similarity")},
                "score-block": {"score": "block"},
                "score-keys": {"score": "keys"},
            }.items()
        ]
    return found


def _peers() -> list[Variant]:
    """Methods of other papers, written again under retom's protocol.

    Each plans in every layer, as its authors have it, and takes the weights by size if it can.
    """
    named = {"tome/2x2": ToMe(), "sito/2x2": SiTo(), "sdtm/2x2": SDTM()}
    named |= {"importance/2x2": ImportanceToMe()}
    found = [
        Variant(f"{name}/{sharing}", method, sharing)
        for name, method in named.items()
        for sharing in SHARINGS[1:]
    ]
    return found + [
        Variant(f"toma/4x4/{inverse}/layer", ToMA(inverse=inverse), "layer")
        for inverse in ("transpose", "pseudo_inverse")
    ]


def select(globs: Sequence[str]) -> list[Variant]:
    """The variants whose name matches one of ``globs``.

    Raises:
        SystemExit: A glob matches none.
    """
    everything = all_variants()
    for glob in globs:
        if not any(fnmatch.fnmatchcase(variant.name, glob) for variant in everything):
            parts = zip_longest(*(variant.name.split("/") for variant in everything))
            choices = [" ".join(sorted({part for part in column if part})) for column in parts]
            listing = "\n  ".join(choices)
            raise SystemExit(
                f"No variant matches {glob!r}. Names are parts joined by /, which may be, in order,"
                f"\n  {listing}"
            )
    return [v for v in everything if any(fnmatch.fnmatchcase(v.name, glob) for glob in globs)]


def apply(
    unet: nn.Module, variant: Variant, *, ratio: float, levels: int = 1, seed: int = 0
) -> Callable[[], None]:
    """Make ``unet`` merge on its ``levels`` largest grids.

    Args:
        unet: A denoiser without merging.
        variant: The contender.
        ratio: Fraction of the tokens removed.
        levels: Grids that merge, largest first.
        seed: Of tomesd's draws.

    Returns:
        What removes it again.
    """
    if variant.method is not None:
        config = retom.Config(
            method=variant.at(ratio).method,
            levels=tuple(range(levels)),
            share="level" if variant.sharing == "level" else "layer",
            size_weighted=variant.sharing.endswith("+sized"),
            score=variant.score,
        )
        return retom.apply(unet, config).remove
    merging = Tomesd(use_rand=variant.use_rand, ratio=ratio, num_levels=levels, seed=seed)
    return merging.apply(unet)


def merged_copy(
    unet: nn.Module, variant: Variant, *, ratio: float, levels: int = 1, seed: int = 0
) -> nn.Module:
    """A copy of ``unet`` that shares its weights and merges for good."""
    twin = shared_copy(unet)
    apply(twin, variant, ratio=ratio, levels=levels, seed=seed)
    return twin


def tokens_in_self_attention(unet: nn.Module, call: Callable[[], object]) -> dict[str, int]:
    """Tokens that each self-attention layer really computes on during ``call()``."""
    return {
        name.removesuffix(".to_q"): counts[-1]
        for name, counts in tokens_in_layers(unet, call).items()
        if name.endswith("attn1.to_q")
    }


def _variant(family: str, method: LocalMethod, sharing: str) -> Variant:
    height, width = method.window
    window = f"{height}x{width}"
    parts = (family, method.allocation, window, f"reach{method.reach}", method.merge, sharing)
    return Variant("/".join(parts), method, sharing)
