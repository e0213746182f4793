"""Where merging does not pay: the option ``skip``, and what was measured for it.

``skip="unprofitable"`` times each distinct layer, un-merged and merged, when it first meets a call
of a shape, and leaves merging off where it is not clearly faster. A decision is made once for a
shape and holds until the configuration changes: a picture never depends on a second stopwatch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Literal, cast

from retom.errors import ConfigError
from retom.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch
    from torch import nn

    from retom.grid import Grid
    from retom.methods import Method

Skip = Literal["unprofitable"] | tuple[str, ...] | None

UNPROFITABLE = "unprofitable"

LEAST, MOST = 5, 25
"""Timed rounds, as many as fit into :data:`SECONDS`."""

SECONDS = 0.5
"""Aimed at for each distinct layer; layers that take longer get :data:`LEAST` rounds."""

DOUBT = 0.05
"""How often a layer that does not pay may be taken for one that does."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a decision holds for.

    Attributes:
        grid: Height and width in tokens.
        batch: Items of a call.
        channels: Of a token.
        dtype: Of the tokens.
        device: Where they are.
        method: What merges them.
        references: Tokens of reference pictures behind them.
        protected: Whether some tokens are protected, which changes what a plan costs and saves.
    """

    grid: Grid
    batch: int
    channels: int
    dtype: torch.dtype
    device: torch.device
    method: Method
    references: int = 0
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One layer or block, un-merged against merged, in interleaved rounds.

    Attributes:
        shape: What it was called with.
        speedup: Median over rounds of un-merged / merged seconds.
        surely: Lower end of the one-sided 95 % interval of that median.
        rounds: Timed rounds.
        unmerged_ms: Median of milliseconds as it is.
        merged_ms: The same with its share of a plan, merging and un-merging.
    """

    shape: Shape
    speedup: float
    surely: float
    rounds: int
    unmerged_ms: float
    merged_ms: float

    @property
    def pays(self) -> bool:
        """Whether merging stays on.

        The allowance for noise is the interval itself. The promise is never to be slower, and the
        two ways to be wrong are not alike: to merge in vain breaks it, to skip in vain loses a gain
        too small to be told from noise. A fixed margin would be too wide on a quiet machine and too
        narrow on a busy one.
        """
        return self.surely > 1

    @property
    def why(self) -> str:
        """In plain words, why it runs un-merged."""
        times = (
            f"medians over {self.rounds} rounds: of the ratio within a round "
            f"{self.speedup:.2f}x, of the times {self.unmerged_ms:.3g} ms un-merged and "
            f"{self.merged_ms:.3g} ms merged"
        )
        if self.speedup < 1:
            return f"merged it takes {1 / self.speedup:.2f} times as long ({times})"
        return (
            f"merged it is {self.speedup:.2f} times as fast, which is not told from 1 "
            f"({times}; at least {self.surely:.2f}x with 95 % confidence)"
        )


@dataclass(slots=True, eq=False)
class Peers:
    """The modules that may be timed, by level.

    A copy begins empty, and the denoiser's next call fills it: a block that is copied alone does
    not take all others along.

    Attributes:
        blocks: Whole blocks.
        attentions: The self-attention inside of each.
    """

    blocks: dict[int, list[nn.Module]] = field(default_factory=dict[int, list["nn.Module"]])
    attentions: dict[int, list[nn.Module]] = field(default_factory=dict[int, list["nn.Module"]])

    def __reduce__(self) -> tuple[type[Peers], tuple[()]]:
        return Peers, ()

    def fill(self, modules: Iterable[tuple[int, nn.Module, nn.Module | None]]) -> None:
        """Take in level, block and self-attention of a denoiser's sites, if there are none yet."""
        if self.blocks:
            return
        for level, block, attention in modules:
            self.blocks.setdefault(level, []).append(block)
            if attention is not None:
                self.attentions.setdefault(level, []).append(attention)


@dataclass(slots=True, eq=False)
class Profit:
    """What was measured on one denoiser.

    Attributes:
        clock: Seconds.
        peers: What else is on a level.
        measuring: Whether a layer is under the stopwatch, so that its calls are no part of any
            picture.
        by_kind: By what tells layers apart that may cost something else, and by shape.
        by_site: The same by the site's name.
        latest: What decided at a site when it last ran, by its name, grid and method.
    """

    clock: Callable[[], float] = time.perf_counter
    peers: Peers = field(default_factory=Peers)
    measuring: bool = False
    by_kind: dict[tuple[object, Shape], Measured] = field(
        default_factory=dict[tuple[object, Shape], Measured]
    )
    by_site: dict[str, dict[Shape, Measured]] = field(
        default_factory=dict[str, dict[Shape, Measured]]
    )
    latest: dict[tuple[str, Grid, Method], Measured] = field(
        default_factory=dict[tuple[str, "Grid", "Method"], Measured]
    )

    def forget(self) -> None:
        """Measure everything again."""
        self.by_kind.clear()
        self.by_site.clear()
        self.latest.clear()


def time_pays(
    shape: Shape,
    calls: Mapping[str, Callable[[], object]],
    share: int,
    *,
    synchronise: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Time a layer in rounds and judge.

    A merged call costs its plan, F - H, and the rest, H, where F is a call that makes its plan and
    H one that finds it made. A plan that serves ``share`` calls is counted at one share of its
    cost: F / share + (1 - 1 / share) H.

    Args:
        shape: What the calls are made with.
        calls: ``unmerged``; ``merged`` with a new plan; ``reused`` with the last one's plan, needed
            where ``share`` is more than 1.
        share: How many calls one plan serves.
        synchronise: Waits for the device.
        clock: Seconds.
    """
    # The first round of all loads kernels and fills caches; the next one tells how long a round is.
    timed = partial(interleave, calls, synchronise=synchronise, clock=clock)
    once = sum(seconds[0] for seconds in timed(1, warmup=1).values())
    rounds = max(LEAST, min(MOST, int(SECONDS / max(once, 1e-9))))
    taken = timed(rounds, warmup=0)
    reused = taken.get("reused", taken["merged"])
    merged = [f / share + h * (1 - 1 / share) for f, h in zip(taken["merged"], reused, strict=True)]
    ratios = [u / m for u, m in zip(taken["unmerged"], merged, strict=True)]
    return Measured(
        shape=shape,
        speedup=median(ratios),
        surely=surely(ratios),
        rounds=rounds,
        unmerged_ms=1e3 * median(taken["unmerged"]),
        merged_ms=1e3 * median(merged),
    )


def median(values: Sequence[float]) -> float:
    """As ``statistics.median``, which is slow to import.

    Example:
        >>> median([3.0, 1.0, 2.0]), median([4.0, 1.0])
        (2.0, 2.5)
    """
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2


def surely(ratios: Sequence[float]) -> float:
    """Lower end of the one-sided 95 % interval of a median, from at least five values.

    The sign test turned round: were the median below the k-th smallest value, fewer than k of n
    values would lie below it, which has the chance P(Binomial(n, 1/2) < k). k is the largest for
    which that is at most :data:`DOUBT`. It supposes nothing about how noise is distributed; one
    slow moment of the machine costs one rank at most.

    Example:
        >>> surely([1.3, 1.1, 1.2, 0.9, 1.4]), surely([1.3, 1.1, 1.2, 0.9, 1.4, 1.2, 1.3, 1.2])
        (0.9, 1.1)
    """
    count, rank, chance = len(ratios), 0, 0.0
    while (chance := chance + comb(count, rank) / 2**count) <= DOUBT:
        rank += 1
    return sorted(ratios)[rank - 1]


def check_skip(skip: object) -> Skip:
    """Return ``skip``, names as a tuple, or raise :class:`ConfigError` with what is allowed."""
    if skip is None or skip == UNPROFITABLE:
        return cast("Skip", skip)
    if isinstance(skip, (tuple, list)):
        names = tuple(cast("Sequence[object]", skip))
        if all(isinstance(name, str) for name in names):
            return tuple(dict.fromkeys(cast("tuple[str, ...]", names)))
    raise ConfigError(
        "skip is None (every layer in scope merges), 'unprofitable' (each is timed, and those that "
        "merging does not make faster run un-merged), or the names of blocks that run un-merged, "
        f"as summary().skipped_sites lists them; {skip!r} was given."
    )
