"""The contenders: every setting of retom, its baselines, and tomesd 0.1.3 on the same layers.

A variant is applied in place with :func:`merging`, or to a copy that shares its weights with
:func:`merged_copy`, so that several contenders stand ready in one process.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

import retom
from retom.evaluation.timing import shared_copy
from retom.evaluation.tomesd import Tomesd
from retom.methods import Method, RandomRepresentative, ReToM, WindowCorner
from retom.methods.local import LocalMethod

UNMERGED = "un-merged"
TOMESD = "tomesd/random"
DEFAULT = "retom/similarity/2x2/reach0/mean"


@dataclass(frozen=True)
class Variant:
    """One contender.

    Attributes:
        name: What globs select: family/allocation/window/reach/merge.
        method: A retom method, or None for tomesd.
        use_rand: tomesd's own option: a random destination in each cell, or its corner.
    """

    name: str
    method: Method | None
    use_rand: bool = True

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
    """Every contender at ratio 0.5: tomesd, ReToM 36 times, other representatives."""
    found = [Variant(TOMESD, None), Variant("tomesd/corner", None, use_rand=False)]
    sides, merges = (2, 4), ("mean", "representative")
    for allocation, side, reach, merge in itertools.product(
        ("similarity", "coherence", "uniform"), sides, (0, 1, 2), merges
    ):
        options: Any = {"allocation": allocation, "window": (side, side)}
        method = ReToM(reach=reach, merge=merge, **options)
        found.append(Variant(_name("retom", method), method))
    for kind, side, reach, merge in itertools.product(
        (RandomRepresentative, WindowCorner), sides, (0, 1), merges
    ):
        method = kind(window=(side, side), reach=reach, merge=merge)
        found.append(Variant(_name(kind.name, method), method))
    return found


def select(globs: Sequence[str]) -> list[Variant]:
    """The variants whose name matches one of ``globs``.

    Raises:
        SystemExit: A glob matches none.
    """
    everything = all_variants()
    for glob in globs:
        if not any(fnmatch.fnmatchcase(variant.name, glob) for variant in everything):
            names = "\n  ".join(variant.name for variant in everything)
            raise SystemExit(f"No variant matches {glob!r}. There are\n  {names}")
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
        config = retom.Config(method=variant.at(ratio).method, levels=tuple(range(levels)))
        return retom.apply(unet, config).remove
    merging = Tomesd(use_rand=variant.use_rand, ratio=ratio, num_levels=levels, seed=seed)
    return merging.apply(unet)


@contextlib.contextmanager
def merging(
    unet: nn.Module, variant: Variant, *, ratio: float, levels: int = 1, seed: int = 0
) -> Iterator[None]:
    """Merge inside the block; takes what :func:`apply` takes."""
    remove = apply(unet, variant, ratio=ratio, levels=levels, seed=seed)
    try:
        yield
    finally:
        remove()


def merged_copy(
    unet: nn.Module, variant: Variant, *, ratio: float, levels: int = 1, seed: int = 0
) -> nn.Module:
    """A copy of ``unet`` that shares its weights and merges for good."""
    twin = shared_copy(unet)
    apply(twin, variant, ratio=ratio, levels=levels, seed=seed)
    return twin


def tokens_in_self_attention(unet: nn.Module, call: Callable[[], object]) -> dict[str, int]:
    """Tokens that each self-attention layer really computes on during ``call()``."""
    seen: dict[str, int] = {}
    removables = []
    for name, module in unet.named_modules():
        if name.endswith("attn1.to_q"):

            def note(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                seen[name.removesuffix(".to_q")] = args[0].shape[1]

            removables.append(module.register_forward_pre_hook(note))
    try:
        call()
    finally:
        for removable in removables:
            removable.remove()
    return seen


def _name(family: str, method: LocalMethod) -> str:
    height, width = method.window
    return f"{family}/{method.allocation}/{height}x{width}/reach{method.reach}/{method.merge}"
