"""What lives between the hooks of one denoiser: the switch, the clock, and the plans in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from retom.call_thread import CallThread
from retom.clock import Clock
from retom.errors import ConfigError, ShapeError
from retom.guidance import Guidance
from retom.hints import Hints
from retom.profit import Profit
from retom.protection import protected_tokens
from retom.representative import batch_as_channels
from retom.shapes import as_shapes, same_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from retom.calls import Args, Kwargs
    from retom.config import Config
    from retom.grid import Grid
    from retom.in_flight import MergedBlock, MergedLayer
    from retom.level import LevelState, PlanSlot
    from retom.token_plan import TokenPlan

Score = Callable[["Tensor"], "Tensor"]


@dataclass(slots=True, eq=False)
class MergeState:
    """Mutable state shared by the hooks of one denoiser.

    A plan is made by a layer, or by the first layer of a level for its other layers too. It lasts
    for the block, or for the call of the denoiser where a level shares it, or, with ``refresh``,
    until the clock says that it is time for another one. A call that fails leaves nothing behind.

    Attributes:
        config: What to merge; replaced as a whole by ``Handle.update``.
        levels: Every attention level of the denoiser.
        shares_plan: Whether the pictures of a batch share one plan.
        enabled: The user's switch.
        running: Whether a call of the denoiser is under way and merging is on in it.
        thread: In which thread the call under way began, or the last one did.
        prepared: Whether :meth:`prepare` ran for the coming call.
        in_flight: What is running on merged tokens; None between layers.
        references: Tokens of reference pictures that follow those of the picture that is drawn.
        fixed_grid: Grid that the user named for a denoiser whose arguments hide it.
        read_grids: Grids read from values, and the tensor that they were read from.
        calls: Arguments of each layer's last call that merged, on the meta device, for counting.
        clock: Timesteps of the picture being drawn.
        turn: Whose turn it is where two partitions alternate, 0 or 1. Apart from the clock, whose
            count a compiled graph must not depend on.
        mask: Pixels or latents to protect, bool (height, width) on the CPU; None for none.
        guidance: What the last call of the picture being drawn said, for methods that ask.
        profit: What was measured for ``skip="unprofitable"``.
        seen: Grid of each level in the last call that merged; None before it. The keys never
            change, so that a compiled graph does not depend on whether a call came before.
    """

    config: Config
    levels: dict[int, LevelState]
    shares_plan: bool = False
    enabled: bool = True
    running: bool = False
    thread: CallThread = field(default_factory=CallThread)
    prepared: bool = False
    in_flight: MergedLayer | MergedBlock | None = None
    references: int = 0
    fixed_grid: Grid | None = None
    read_grids: tuple[object, dict[int, Grid]] | None = None
    calls: dict[str, tuple[Args, Kwargs]] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    turn: int = 0
    mask: Tensor | None = None
    guidance: Guidance = field(default_factory=Guidance)
    profit: Profit = field(default_factory=Profit)
    seen: dict[int, Grid | None] = field(default_factory=dict)

    @property
    def needs_preparation(self) -> bool:
        """Whether a call depends on more than its sizes, which the host has to look at first."""
        return self.config.needs_timestep or self.mask is not None

    def protect(self, mask: Tensor | None) -> None:
        """Protect other places from the next call on."""
        self.mask = mask
        for level in self.levels.values():
            level.protected = level.protected_grid = None
        self.forget()

    def switch(self, *, enabled: bool) -> None:
        """Switch merging; a layer that runs on merged tokens just now still un-merges them."""
        self.enabled = enabled
        if self.in_flight is None and not self.elsewhere:
            self.end(failed=True)
        else:
            self.forget()
            self.clock.reset()

    def set_skips(self) -> None:
        """Leave out the sites that the configuration names; forget what was measured."""
        self.profit.forget()
        named = self.config.skip if isinstance(self.config.skip, tuple) else ()
        for level in self.levels.values():
            for name, slot in level.own.items():
                slot.skips = name in named

    def set_methods(self) -> None:
        """Choose the methods of all levels for the clock's noise level."""
        for number, level in self.levels.items():
            method = self.config.method_at(number, self.clock.noise)
            method = None if method is None or method.ratio == 0 else method
            if method is not level.method:
                level.method = method
                level.forget()

    def prepare(self, grids: dict[int, Grid], noise: float | None, source: object) -> None:
        """Look at what a call depends on besides its sizes, before it begins.

        Args:
            grids: The grid of each level.
            noise: The call's noise level, 1 for pure noise; None if nothing depends on it.
            source: The object that the noise level was read from.

        Raises:
            ConfigError: Tokens cannot be protected as asked.
        """
        self._end_interrupted()
        self.prepared = True
        if noise is not None:
            if self.clock.advance(noise, source, self.config.refresh):
                self.forget()
            if self.clock.begins:
                self.guidance.forget()
            self.turn = self.clock.turn % 2 if self.config.alternates else 0
            self.set_methods()
        for number, grid in grids.items():
            level = self.levels[number]
            if self.mask is None or level.protected_grid == grid:
                continue
            protected = protected_tokens(self.mask, grid)
            for method in self.config.methods(number):
                method.check_protected(protected, grid)
            level.protected, level.protected_grid = protected, grid

    def begin(self, grids: dict[int, Grid]) -> None:
        """Start a call of the denoiser and check the budget of every level.

        Raises:
            BudgetError: A method that may merge on a level cannot reach its ratio there.
            ConfigError: The call was not prepared, because the denoiser was called past the module
                that retom was applied to.
        """
        self._end_interrupted()
        if self.config.refresh is None:
            self.forget()  # the last call's plans were for it alone
        prepared, self.prepared = self.prepared, False
        self.running = False
        self.in_flight = None
        if not self.enabled:
            return
        if self.needs_preparation and not prepared:
            raise ConfigError(
                "Merging by noise, refresh, alternate, protect and importance need a look at each "
                "call before it starts, but the denoiser was called past the compiled module that "
                "retom was applied to. Call that module, or apply retom to the denoiser itself."
            )
        for number, grid in grids.items():
            for method in self.config.methods(number):
                method.num_removed(grid)
        if any(level.method is not None for level in self.levels.values()):
            self.seen.update(grids)
            self.running = True
            self.thread.begin()

    def end(self, *, failed: bool = False) -> None:
        """End a call; plans stay only where the configuration reuses them."""
        self.running = False
        self.in_flight = None
        for level in self.levels.values():
            level.source_grid = None
        if failed or self.config.refresh is None:
            self.forget()
        if failed:
            self.clock.reset()
            self.guidance.forget()

    @property
    def elsewhere(self) -> bool:
        """Whether a call is under way in another thread."""
        return self.running and self.thread.is_another

    def _end_interrupted(self) -> None:
        """End a call that never did: no hook is told of an interrupt from the keyboard.

        Raises:
            ConfigError: It has not ended yet, but runs in another thread.
        """
        if self.running:
            self.thread.check()
            self.end(failed=True)

    def forget(self) -> None:
        """Drop all plans."""
        for level in self.levels.values():
            level.forget()

    def plan_for(
        self,
        level: LevelState,
        own: PlanSlot,
        tokens: Tensor,
        score: Score | None = None,
        *,
        apart: bool = False,
    ) -> TokenPlan | None:
        """The plan in use for a layer, made if there is none yet.

        Args:
            level: The layer's.
            own: Its slot.
            tokens: What is to merge, (B, N, C).
            score: From ``tokens`` to what a plan compares, (B, N, any); None: to themselves.
            apart: Whether keys and values may merge otherwise than queries.

        Returns:
            None where nothing is to remove, or the layer is skipped.

        Raises:
            ShapeError: ``tokens`` are not the tokens of the grid that was read.
        """
        grid, method = level.source_grid, level.method
        if method is None or own.skips:
            return None
        if grid is None or tokens.shape[1] != grid.num_tokens:
            raise ShapeError(
                f"A layer in scope {self.config.scope} got {tokens.shape[1]} tokens where the "
                f"feature map in front of it is {grid}. Something between them changes the tokens; "
                "remove it, or leave this level out with levels=."
            )
        if method.num_removed(grid) == 0:
            return None
        slot = level.shared if self.config.share == "level" else own
        plan = slot.plan
        if plan is None or slot.grid != grid or plan.batch_size != tokens.shape[0]:
            with torch.no_grad():
                compared = tokens if score is None else score(tokens)
                compared = batch_as_channels(compared) if self.shares_plan else compared
            plan = method.plan(compared, grid, self._hints(level, grid, tokens, apart=apart))
            plan = plan.repeated(len(tokens)) if self.shares_plan else plan
            slot.plan, slot.grid = plan, grid
        return plan

    def note_call(self, layer: str, call: tuple[Args, Kwargs]) -> None:
        """Keep the shapes of a layer's call, from which its FLOPs are counted when asked."""
        noted = self.calls.get(layer)
        if noted is None or not same_shapes(noted, call):
            self.calls[layer] = as_shapes(call)

    def _hints(self, level: LevelState, grid: Grid, tokens: Tensor, *, apart: bool) -> Hints:
        protected = level.protected
        if protected is not None:
            protected = protected.to(tokens.device)
        importance = self.guidance.importance(grid, len(tokens))
        if importance is not None and self.shares_plan:
            importance = importance.mean(dim=0, keepdim=True)
        return Hints(
            protected=protected,
            turn=self.turn,
            importance=importance,
            apart=apart,
            unmerges=self.config.scope != "kv",
        )
