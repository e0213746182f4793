"""Hooks on the denoiser itself: a call begins, its grids are told, and it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from retom.calls import Args, Kwargs, bind, first_input
from retom.errors import ConfigError, ShapeError
from retom.grid import Grid
from retom.hooks.entry import UNSEEN_GRID
from retom.hooks.trial import modules_of

if TYPE_CHECKING:
    from retom.hooks.caches import Caches
    from retom.level import LevelState
    from retom.models.layout import Layout
    from retom.state import MergeState


@dataclass(slots=True, eq=False)
class DenoiserBegins:
    """Before the denoiser: forget the last call, whatever became of it, and check every level."""

    state: MergeState
    layout: Layout
    caches: Caches
    owner: object

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        state, layout = self.state, self.layout
        if not torch.compiler.is_compiling():
            self.caches.look()
            state.profit.peers.fill(modules_of(layout))
        if not state.enabled:
            state.begin({})
            return
        bound = bind(layout.parameters, args, kwargs)
        grids = self._grids(bound)
        state.begin(grids)
        if layout.has_own_grid:
            for number, grid in grids.items():
                state.levels[number].source_grid = grid.fixed()
        if layout.packed is not None:
            tokens = cast("Tensor", bound[layout.packed]).shape[1]
            others = tokens - grids[0].num_tokens
            state.references = 0 if layout.packed_last else others
            if others < 0:
                state.end()
                raise ShapeError(
                    f"The grid {grids[0]} has more tokens than the {tokens} that the denoiser was "
                    "given. Name the right one in tokens: handle.set_grid(height, width)."
                )
        elif layout.context is not None:
            state.references = layout.context(bound)

    def _grids(self, bound: dict[str, Any]) -> dict[int, Grid]:
        state = self.state
        if state.fixed_grid is not None:
            return {0: state.fixed_grid}
        if self.layout.reads_values is None:
            return self.layout.grids(bound)
        if state.read_grids is None or not state.prepared:
            raise ConfigError(UNSEEN_GRID)
        return state.read_grids[1]


@dataclass(slots=True, eq=False)
class DenoiserEnds:
    """After the denoiser, also when it raised, and then without an output: forget the call.

    Unless it raised because a call is under way in another thread.
    """

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: object) -> None:
        if not self.state.elsewhere:
            self.state.end(failed=output is None)


@dataclass(slots=True, eq=False)
class GridSource:
    """Before the module that flattens a feature map (B, C, H, W) to tokens: note H and W."""

    state: MergeState
    level: LevelState

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.state.running and self.level.method is not None:
            height, width = first_input(args, kwargs, "hidden_states").shape[-2:]
            self.level.source_grid = Grid(height, width).fixed()
