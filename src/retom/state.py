"""What lives between the hooks of one denoiser: the switch, and the plans of the running call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retom.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from retom.config import Config
    from retom.grid import Grid
    from retom.plan import Plan


@dataclass(slots=True, eq=False)
class MergeState:
    """Mutable state shared by the hooks of one denoiser.

    A plan is made by the first layer of a level in a call of the denoiser and shared by the level's
    other layers in that call. Nothing outlives the call, except the grids of its levels, for the
    summary.

    Attributes:
        config: What to merge; replaced as a whole by ``Handle.update``.
        levels: Attention levels that merge.
        enabled: The user's switch.
        running: Whether a call of the denoiser is under way and merging is on in it.
        plans: Plan of each (level, batch size) in this call; None where nothing is to remove.
        source_grid: Grid that each grid source saw in this call, by the source's number.
        in_flight: Plan of the attention layer that is running, by site number.
        seen: Grid of each level in the last call that merged; None before it. The keys never
            change, so that a compiled graph does not depend on whether a call came before.
    """

    config: Config
    levels: frozenset[int]
    enabled: bool = True
    running: bool = False
    plans: dict[tuple[int, int], Plan | None] = field(default_factory=dict)
    source_grid: dict[int, Grid] = field(default_factory=dict)
    in_flight: dict[int, Plan] = field(default_factory=dict)
    seen: dict[int, Grid | None] = field(default_factory=dict)

    def begin(self, grids: dict[int, Grid]) -> None:
        """Start a call of the denoiser: forget the last one and check the budget of every level."""
        self.end()
        if not self.enabled or self.config.method.ratio == 0:
            return
        for level, grid in grids.items():
            if level in self.levels:
                self.config.method.num_removed(grid)
        self.seen.update(grids)
        self.running = True

    def end(self) -> None:
        """Forget everything of the call, however it ended."""
        self.running = False
        self.plans.clear()
        self.source_grid.clear()
        self.in_flight.clear()

    def plan_for(self, level: int, source: int, tokens: Tensor) -> Plan | None:
        """The plan of a level in this call, made from ``tokens`` (B, N, C) if there is none yet.

        Raises:
            ShapeError: ``tokens`` are not the tokens of the grid that was read.
        """
        grid = self.source_grid[source]
        if tokens.shape[1] != grid.num_tokens:
            raise ShapeError(
                f"A self-attention layer of level {level} got {tokens.shape[1]} tokens where the "
                f"feature map in front of it is {grid}, {grid.num_tokens} tokens. Something "
                "between them changes the tokens; remove it, or leave this level out with levels=."
            )
        key = (level, tokens.shape[0])
        if key not in self.plans:
            method = self.config.method
            self.plans[key] = method.plan(tokens, grid) if method.num_removed(grid) else None
        return self.plans[key]
