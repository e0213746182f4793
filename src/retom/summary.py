"""What merges where, and what that saves: the receipt of an application."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retom.grid import Grid

if TYPE_CHECKING:
    from retom.config import Config
    from retom.models.layout import AttentionSite, Layout


@dataclass(frozen=True, slots=True)
class LevelSummary:
    """One attention level of the denoiser.

    Attributes:
        level: 0 for the largest grid.
        grid: Height and width in tokens.
        layers: Self-attention layers on it.
        tokens: Tokens before merging.
        kept: Tokens after merging; equal to ``tokens`` where the level does not merge.
        flops: Multiply-adds x 2 of these layers for one image un-merged: projections, QKᵀ and AV.
        flops_kept: The same with ``kept`` tokens.
    """

    level: int
    grid: Grid
    layers: int
    tokens: int
    kept: int
    flops: int
    flops_kept: int

    @property
    def flops_saved(self) -> float:
        """Share of the level's self-attention FLOPs that merging saves."""
        return 1 - self.flops_kept / self.flops


@dataclass(frozen=True, slots=True)
class Summary:
    """The receipt of ``retom.apply``; ``str()`` gives a table.

    Attributes:
        denoiser: Class name.
        config: What was applied.
        enabled: Whether it is switched on.
        seen: Whether the grids were seen in a call; else they are those of the model's default
            size.
        levels: One row a level.
    """

    denoiser: str
    config: Config
    enabled: bool
    seen: bool
    levels: tuple[LevelSummary, ...]

    @property
    def flops_saved(self) -> float:
        """Share of all self-attention FLOPs of the denoiser that merging saves."""
        total = sum(level.flops for level in self.levels)
        return 1 - sum(level.flops_kept for level in self.levels) / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "denoiser": self.denoiser,
            "config": self.config.to_dict(),
            "enabled": self.enabled,
            "seen": self.seen,
            "levels": [
                {**asdict(level), "flops_saved": level.flops_saved} for level in self.levels
            ],
            "self_attention_flops_saved": self.flops_saved,
        }

    def __str__(self) -> str:
        method = self.config.method
        where = "in the last call" if self.seen else "at the model's default size"
        state = "" if self.enabled else " (switched off)"
        lines = [
            f"{self.denoiser}: {method}, scope {self.config.scope}{state}; grids {where}",
            f"{'level':>5}  {'grid':>9}  {'layers':>6}  {'tokens':>6}  {'kept':>6}  "
            f"{'self-attention FLOPs saved':>26}",
        ]
        for row in self.levels:
            saved = f"{row.flops_saved:.0%}" if row.kept < row.tokens else "not merged"
            lines.append(
                f"{row.level:>5}  {row.grid!s:>9}  {row.layers:>6}  {row.tokens:>6}  "
                f"{row.kept:>6}  {saved:>26}"
            )
        if not self.levels:
            lines.append(
                "The model's configuration names no default size: run it once, then ask again."
            )
        else:
            lines.append(f"All self-attention: {self.flops_saved:.0%} of the FLOPs saved.")
        return "\n".join(lines)


def summarise(
    denoiser: str,
    config: Config,
    layout: Layout,
    *,
    levels: frozenset[int],
    enabled: bool,
    seen: dict[int, Grid | None],
) -> Summary:
    """Put together what is known: grids seen in a call, else those of the model's default size."""
    rows: list[LevelSummary] = []
    for level in layout.levels:
        grid = seen.get(level) or (layout.default_grids or {}).get(level)
        if grid is None:
            continue
        sites = [site for site in layout.sites if site.level == level]
        removed = config.method.num_removed(grid) if level in levels else 0
        kept = grid.num_tokens - removed
        rows.append(
            LevelSummary(
                level=level,
                grid=grid,
                layers=len(sites),
                tokens=grid.num_tokens,
                kept=kept,
                flops=sum(_attention_flops(site, grid.num_tokens) for site in sites),
                flops_kept=sum(_attention_flops(site, kept) for site in sites),
            )
        )
    return Summary(denoiser, config, enabled, any(seen.values()), tuple(rows))


def _attention_flops(site: AttentionSite, tokens: int) -> int:
    """FLOPs of q, k, v and output projections, QKᵀ and AV for one image of ``tokens`` tokens."""
    projections = 4 * 2 * tokens * site.channels * site.inner_channels
    return projections + 2 * 2 * tokens * tokens * site.inner_channels
