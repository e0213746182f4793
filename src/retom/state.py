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
class LevelState:
    """One attention level in the running call; all hooks of the level share it.

    Attributes:
        merges: Whether the configuration merges on this level.
        source_grid: Grid of the feature map that the level's next layers turn to tokens.
        plan: Made by the level's first layer, used by all.
    """

    merges: bool
    source_grid: Grid | None = None
    plan: Plan | None = None


@dataclass(slots=True, eq=False)
class MergeState:
    """Mutable state shared by the hooks of one denoiser.

    A plan is made by the first layer of a level in a call of the denoiser and shared by the level's
    other layers in that call. Nothing outlives the call, except the grids of its levels, for the
    summary.

    Attributes:
        config: What to merge; replaced as a whole by ``Handle.update``.
        levels: Every attention level of the denoiser.
        enabled: The user's switch.
        running: Whether a call of the denoiser is under way and merging is on in it.
        in_flight: Plan of the attention layer that is running.
        seen: Grid of each level in the last call that merged; None before it. The keys never
            change, so that a compiled graph does not depend on whether a call came before.
    """

    config: Config
    levels: dict[int, LevelState]
    enabled: bool = True
    running: bool = False
    in_flight: Plan | None = None
    seen: dict[int, Grid | None] = field(default_factory=dict)

    def begin(self, grids: dict[int, Grid]) -> None:
        """Start a call of the denoiser: forget the last one and check the budget of every level."""
        self.end()
        if not self.enabled or self.config.method.ratio == 0:
            return
        for number, grid in grids.items():
            if self.levels[number].merges:
                self.config.method.num_removed(grid)
        self.seen.update(grids)
        self.running = True

    def end(self) -> None:
        """Forget everything of the call, however it ended."""
        self.running = False
        self.in_flight = None
        for level in self.levels.values():
            level.source_grid = None
            level.plan = None

    def plan_for(self, level: LevelState, tokens: Tensor) -> Plan | None:
        """The plan of a level in this call, made from ``tokens`` (B, N, C) if there is none yet.

        Returns:
            None where nothing is to remove.

        Raises:
            ShapeError: ``tokens`` are not the tokens of the grid that was read.
        """
        grid = level.source_grid
        if grid is None or tokens.shape[1] != grid.num_tokens:
            raise ShapeError(
                f"A self-attention layer got {tokens.shape[1]} tokens where the feature map in "
                f"front of it is {grid}. Something between them changes the tokens; remove it, or "
                "leave this level out with levels=."
            )
        if level.plan is None or level.plan.batch_size != tokens.shape[0]:
            method = self.config.method
            level.plan = method.plan(tokens, grid) if method.num_removed(grid) else None
        return level.plan
