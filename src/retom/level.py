"""What the hooks of one attention level share: its method, its grid, and the plans in use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retom.keeping import of_its_own

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.methods import Method
    from retom.token_plan import TokenPlan


@dataclass(slots=True, eq=False)
class PlanSlot:
    """Where a plan stands while it is in use: a layer's own, or the one that a level shares.

    An object for each layer, not an entry for each in one table: torch.compile guards a block's
    graph on what the block looks at, and blocks that look at one table each get a graph of their
    own.

    Attributes:
        plan: In use; None where one is yet to be made.
        grid: Grid that it was made for.
        skips: Whether the layer runs un-merged, see ``Config.skip``; it outlives plans.
        kept: The plan, once it stands in memory of its own. No graph looks at it.
    """

    plan: TokenPlan | None = None
    grid: Grid | None = None
    skips: bool = False
    kept: TokenPlan | None = None

    def forget(self) -> None:
        """Drop the plan."""
        self.plan = self.grid = self.kept = None

    def keep(self) -> None:
        """Let the plan outlive the call that made it."""
        if self.plan is not None and self.plan is not self.kept:
            self.plan = self.kept = of_its_own(self.plan)


@dataclass(slots=True, eq=False)
class LevelState:
    """One attention level; all hooks of the level share it.

    Attributes:
        method: What merges on this level in the running call; None where nothing does.
        source_grid: Grid of the feature map that the level's next layers turn to tokens.
        shared: The plan that all its layers share, where they do.
        own: The plan of each of its layers, by name, where they do not.
        protected: Tokens of the grid that must not go, bool (N,); None for none.
        protected_grid: Grid that the mask was last pooled to and checked for.
    """

    method: Method | None = None
    source_grid: Grid | None = None
    shared: PlanSlot = field(default_factory=PlanSlot)
    own: dict[str, PlanSlot] = field(default_factory=dict)
    protected: Tensor | None = None
    protected_grid: Grid | None = None

    @property
    def slots(self) -> tuple[PlanSlot, ...]:
        """Where its plans stand."""
        return (self.shared, *self.own.values())

    @property
    def plans(self) -> list[TokenPlan]:
        """All plans in use."""
        return [slot.plan for slot in self.slots if slot.plan is not None]

    def forget(self) -> None:
        """Drop all plans."""
        for slot in self.slots:
            slot.forget()

    def keep(self) -> None:
        """Let all plans in use outlive the call."""
        for slot in self.slots:
            slot.keep()
