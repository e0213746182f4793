"""What ``skip`` leaves un-merged on a denoiser, and why: rows for its summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retom.profit import UNPROFITABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retom.grid import Grid
    from retom.methods import Method
    from retom.models.layout import Layout
    from retom.profit import Skip
    from retom.state import MergeState

NAMED = "skip names them"
"""The reason where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one layer, or block, merges in calls of one shape.

    Attributes:
        site: Qualified name of its block.
        level: Attention level.
        skipped: Whether it runs un-merged.
        why: In words, if it does.
        grid: Height and width in tokens that the decision is for; None, as all below, for layers
            that ``skip`` names, which were not measured.
        batch: Items of a call.
        ratio: Of the method.
        dtype: Of the tokens.
        device: Where they were.
        speedup: Median of un-merged / merged seconds, with the layer's share of a plan.
        surely: Lower end of its one-sided 95 % interval: above 1 it merges.
        rounds: Timed rounds.
        unmerged_ms: Median of milliseconds as it is.
        merged_ms: Median of milliseconds merged.
    """

    site: str
    level: int
    skipped: bool
    why: str = ""
    grid: Grid | None = None
    batch: int | None = None
    ratio: float | None = None
    dtype: str | None = None
    device: str | None = None
    speedup: float | None = None
    surely: float | None = None
    rounds: int | None = None
    unmerged_ms: float | None = None
    merged_ms: float | None = None


def decisions_of(layout: Layout, state: MergeState) -> tuple[Decision, ...]:
    """Every decision that holds, in the order of the model's blocks.

    Those of all shapes that were met since the configuration last changed.
    """
    return tuple(_decisions(layout, state))


def _decisions(layout: Layout, state: MergeState) -> Iterator[Decision]:
    skip = state.config.skip
    for site in layout.sites:
        if isinstance(skip, tuple) and site.name in skip:
            yield Decision(site.name, site.level, skipped=True, why=NAMED)
        for shape, found in state.profit.by_site.get(site.name, {}).items():
            yield Decision(
                site=site.name,
                level=site.level,
                skipped=not found.pays,
                why="" if found.pays else found.why,
                grid=shape.grid,
                batch=shape.batch,
                ratio=shape.method.ratio,
                dtype=str(shape.dtype).removeprefix("torch."),
                device=str(shape.device),
                speedup=found.speedup,
                surely=found.surely,
                rounds=found.rounds,
                unmerged_ms=found.unmerged_ms,
                merged_ms=found.merged_ms,
            )


def skips(state: MergeState, site: str, grid: Grid, method: Method) -> bool:
    """Whether a site ran un-merged when it last met a method on a grid; False before."""
    if isinstance(state.config.skip, tuple):
        return site in state.config.skip
    found = state.profit.latest.get((site, grid, method))
    return found is not None and not found.pays


def told(skip: Skip, decisions: Sequence[Decision]) -> list[str]:
    """Lines for people; layers that were measured together stand in one."""
    lines: list[str] = []
    groups = Counter(
        (d.level, d.grid, d.batch, d.ratio, d.device, d.dtype, d.why)
        for d in decisions
        if d.skipped
    )
    for (level, grid, batch, ratio, device, dtype, why), count in groups.items():
        layers = "1 layer runs" if count == 1 else f"{count} layers run"
        where = f"level {level}"
        if grid is not None:
            where += f", grid {grid}, batch {batch}, ratio {ratio:g}, {dtype} on {device}"
        lines.append(f"{layers} un-merged ({where}): {why}.")
    if skip != UNPROFITABLE:
        return lines
    merging = [d.speedup for d in decisions if not d.skipped and d.speedup is not None]
    if not decisions:
        lines.append("Nothing was timed yet: skip='unprofitable' does it in the next call.")
    elif merging:
        least, most = min(merging), max(merging)
        span = f"{least:.2f}" if f"{least:.2f}" == f"{most:.2f}" else f"{least:.2f} to {most:.2f}"
        layers = "1 layer merges" if len(merging) == 1 else f"{len(merging)} layers merge"
        lines.append(f"{layers}: timed, {span} times as fast merged.")
    return lines
