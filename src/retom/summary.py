"""What merges where, and what that saves: the receipt of an application."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from retom.grid import Grid
from retom.hooks.layers import merges_apart
from retom.skipping import Decision, decisions_of, skips, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from retom.config import Config
    from retom.methods import Method
    from retom.models.layout import AttentionSite, Layout, Site
    from retom.state import MergeState


LAYERS = {
    "attention": "self-attention",
    "attention+mlp": "self-attention and MLP",
    "block": "transformer block",
    "kv": "self-attention",
}
"""What the FLOPs of a scope are those of."""


@dataclass(frozen=True, slots=True)
class LevelSummary:
    """One attention level of the denoiser, at some noise.

    Attributes:
        level: 0 for the largest grid.
        grid: Height and width in tokens.
        layers: Transformer blocks on it.
        noise: (low, high) of the noise levels that the row speaks of; (0, 1) is all of them.
        tokens: Tokens before merging.
        kept: Tokens after merging; equal to ``tokens`` where the level does not merge. Where
            queries merge apart from keys and values, the mean of both.
        kept_queries: Of these, the queries; all of ``tokens`` in scope ``kv``.
        kept_keys: Of these, the keys and values.
        flops: Multiply-adds x 2 of the layers in scope for one image un-merged: projections, QKᵀ
            and AV, with the MLP and the text attention's query and output where they are in scope.
            Blocks of transformers are counted whole, text tokens included, at the text length of
            the last call; None before one that merged.
        flops_kept: The same with ``kept`` tokens where they merge.
        skipped: How many of ``layers`` run un-merged because ``skip`` leaves them out. Where all
            do, the row is that of a level that does not merge.
    """

    level: int
    grid: Grid
    layers: int
    noise: tuple[float, float]
    tokens: int
    kept: int
    kept_queries: int
    kept_keys: int
    flops: int | None
    flops_kept: int | None
    skipped: int = 0

    @property
    def flops_saved(self) -> float | None:
        """Share of the level's FLOPs in scope that merging saves; None where not counted."""
        if self.flops is None or self.flops_kept is None:
            return None
        return 1 - self.flops_kept / self.flops


@dataclass(frozen=True, slots=True)
class Summary:
    """The receipt of ``retom.apply``; ``str()`` gives a table.

    Attributes:
        denoiser: Class name.
        config: What was applied.
        enabled: Whether it is switched on, and was not removed.
        seen: Whether the grids were seen in a call; else they are those of the model's default
            size.
        levels: One row a level, or one for each stretch of noise where rules tell them apart.
        shares_plan: Whether the pictures of a batch share one plan, as they share rotary tables.
        unmerged: Names of blocks that run un-merged because retom cannot merge them, and why.
        decisions: Layers that were timed for ``skip="unprofitable"``, and those that ``skip``
            names, with the shapes of calls that a decision holds for.
    """

    denoiser: str
    config: Config
    enabled: bool
    seen: bool
    levels: tuple[LevelSummary, ...]
    shares_plan: bool = False
    unmerged: dict[str, str] = field(default_factory=dict[str, str])
    decisions: tuple[Decision, ...] = ()

    @property
    def skipped(self) -> tuple[Decision, ...]:
        """Where ``skip`` leaves merging off, and why."""
        return tuple(decision for decision in self.decisions if decision.skipped)

    @property
    def skipped_sites(self) -> tuple[str, ...]:
        """Names of blocks that are skipped on these grids, for any batch or method.

        As ``skip`` of a configuration they fix what was decided: for a file, another machine, or a
        compiled graph, in which nothing can be timed.
        """
        grids = {row.level: row.grid for row in self.levels}
        names = (d.site for d in self.skipped if d.grid in (None, grids.get(d.level)))
        return tuple(dict.fromkeys(names))

    @property
    def told(self) -> tuple[str, ...]:
        """What was decided for ``skip``, in sentences."""
        return tuple(told(self.config.skip, self.decisions))

    @property
    def flops_saved(self) -> float | None:
        """Share of the FLOPs in scope that merging saves, averaged evenly over noise levels.

        None where they were not counted.
        """
        total = kept = 0.0
        for row in self.levels:
            if row.flops is None or row.flops_kept is None:
                return None
            total += row.flops * (row.noise[1] - row.noise[0])
            kept += row.flops_kept * (row.noise[1] - row.noise[0])
        return 1 - kept / total if total else 0.0

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
            "flops_of": LAYERS[self.config.scope],
            "flops_saved": self.flops_saved,
            "shares_plan": self.shares_plan,
            "unmerged": self.unmerged,
            "decisions": [asdict(decision) for decision in self.decisions],
        }

    def __str__(self) -> str:
        method = self.config.method
        layers = LAYERS[self.config.scope]
        where = "in the last call" if self.seen else "at the model's default size"
        state = "" if self.enabled else " (switched off)"
        saved_title = f"{layers} FLOPs saved"
        rules = len({row.noise for row in self.levels}) > 1
        lines = [
            f"{self.denoiser}: {method}, scope {self.config.scope}{state}; grids {where}",
            f"{'level':>5}  {'grid':>9}  {'layers':>6}  {'noise':>9}  {'tokens':>6}  {'kept':>6}  "
            f"{saved_title}",
        ]
        for row in self.levels:
            counted = "?" if row.flops_saved is None else f"{row.flops_saved:.0%}"
            saved = counted if row.kept < row.tokens else "not merged"
            noise = f"{row.noise[0]:g}-{row.noise[1]:g}"
            lines.append(
                f"{row.level:>5}  {row.grid!s:>9}  {row.layers:>6}  {noise:>9}  {row.tokens:>6}  "
                f"{row.kept:>6}  {saved:>{len(saved_title)}}"
            )
            if row.kept_queries != row.kept_keys and self.config.scope != "kv":
                lines.append(
                    f"{'':>5}  {row.kept_queries} as queries, {row.kept_keys} as keys and values"
                )
            if 0 < row.skipped < row.layers:
                lines.append(f"{'':>5}  {row.skipped} of the {row.layers} layers are skipped")
        if not self.levels:
            lines.append(
                "The model's configuration names no default size: run it once, then ask again."
            )
        else:
            even = ", all noise levels counting alike" if rules else ""
            if self.flops_saved is None:
                lines.append(
                    "FLOPs are counted from an un-compiled call that merged: make one, ask again."
                )
            else:
                lines.append(f"All {layers}: {self.flops_saved:.0%} of the FLOPs saved{even}.")
        if self.shares_plan:
            lines.append("The pictures of a batch share one plan, as they share rotary tables.")
        for reason in dict.fromkeys(self.unmerged.values()):
            count = sum(reason == other for other in self.unmerged.values())
            lines.append(f"{count} blocks run un-merged: {reason}")
        return "\n".join([*lines, *self.told])


def summarise(
    denoiser: str,
    config: Config,
    layout: Layout,
    *,
    enabled: bool,
    state: MergeState,
    counted: Callable[[int, int, frozenset[str]], int | None],
) -> Summary:
    """Put together what is known: grids seen in a call, else those of the model's default size.

    ``counted`` gives the FLOPs of a level's blocks with a number of tokens left, and all of them in
    blocks of some names.
    """
    rows: list[LevelSummary] = []
    for level in layout.levels:
        grid = state.seen.get(level) or (layout.default_grids or {}).get(level)
        if grid is None:
            continue
        sites = [site for site in layout.sites if site.level == level]
        for noise in config.plateaus():
            method = config.method_at(level, sum(noise) / 2)
            tokens = grid.num_tokens
            whole = [s for s in sites if method and skips(state, s.name, grid, method)]
            if len(whole) == len(sites):
                method = None
            kept = tokens - (0 if method is None else method.num_removed(grid))
            apart = state.mask is None and all(_apart(config.scope, site) for site in sites)
            queries, keys = _kept_apart(method, config.scope, grid, apart=apart)
            if all(site.inside is not None for site in sites):
                full = _flops(sites, config.scope, tokens, tokens)
                rest = [site for site in sites if site not in whole]
                merged = _flops(rest, config.scope, queries, keys)
                merged += _flops(whole, config.scope, tokens, tokens)
            else:
                names = frozenset(site.name for site in whole)
                full, merged = (counted(level, count, names) for count in (tokens, kept))
            rows.append(
                LevelSummary(
                    level,
                    grid,
                    len(sites),
                    noise,
                    tokens,
                    kept,
                    queries,
                    keys,
                    full,
                    merged,
                    skipped=len(whole),
                )
            )
    return Summary(
        denoiser,
        config,
        enabled,
        any(state.seen.values()),
        tuple(rows),
        shares_plan=layout.shares_plan,
        unmerged=layout.unmerged,
        decisions=decisions_of(layout, state),
    )


def _apart(scope: str, site: Site) -> bool:
    """Whether the hooks of a site let its queries and keys merge apart."""
    inside = site.inside
    return inside is not None and merges_apart(scope, inside.attention, softmax=not inside.linear)


def _kept_apart(method: Method | None, scope: str, grid: Grid, *, apart: bool) -> tuple[int, int]:
    """Queries, and keys and values, that are left for self-attention."""
    tokens = grid.num_tokens
    if method is None:
        return tokens, tokens
    removed = method.num_removed(grid)
    if scope == "kv":
        return tokens, tokens - removed
    lean = getattr(method, "removed_apart", None) if apart else None
    queries, keys = lean(grid) if lean else (removed, removed)
    return tokens - queries, tokens - keys


def _flops(sites: list[Site], scope: str, asking: int, kept: int) -> int:
    """FLOPs of the layers in scope for one image with so many queries, and keys and values, left.

    The text attention's keys, values and products depend on the text's length and are left out.
    """
    total = 0
    for site in sites:
        layers = cast("AttentionSite", site.inside)
        total += 2 * 2 * (asking + kept) * layers.channels * layers.inner_channels
        if layers.linear:
            heads_width = layers.inner_channels // layers.heads
            total += 2 * (asking + kept) * layers.inner_channels * heads_width
        else:
            total += 2 * 2 * asking * kept * layers.inner_channels
        if scope in ("attention+mlp", "block"):
            total += 2 * kept * layers.mlp_weights
        if scope == "block":
            total += 2 * kept * layers.text_weights
    return total
