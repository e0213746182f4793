"""Hooks on the denoiser itself: a call comes, begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from retom.calls import Args, Kwargs, bind, first_input, noise_level
from retom.errors import ConfigError, ShapeError
from retom.grid import Grid

if TYPE_CHECKING:
    from retom.models.layout import Layout
    from retom.state import LevelState, MergeState


@dataclass(slots=True, eq=False)
class CallComes:
    """Before a call, outside of any compiled graph: look at what the host has to know."""

    state: MergeState
    layout: Layout

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        state, layout = self.state, self.layout
        reads = layout.reads_values is not None and state.fixed_grid is None and state.enabled
        if not (state.needs_preparation or reads):
            return
        if torch.compiler.is_compiling():
            raise ConfigError(_UNSEEN_GRID if reads else _UNSEEN_CALL)
        bound = bind(layout.parameters, args, kwargs)
        noise, source = None, None
        if state.config.needs_timestep:
            source = bound[layout.timestep.argument]
            noise = noise_level(source, layout.timestep)
        state.prepare(self._grids(bound), noise, source)

    def _grids(self, bound: dict[str, Any]) -> dict[int, Grid]:
        state, layout = self.state, self.layout
        if state.fixed_grid is not None:
            return {0: state.fixed_grid}
        if layout.reads_values is None:
            return layout.grids(bound)
        ids = bound[layout.reads_values]
        # A pipeline passes the same ids at every step: the device is waited for once a picture.
        if state.read_grids is None or state.read_grids[0] is not ids:
            state.read_grids = (ids, layout.grids(bound))
        return state.read_grids[1]


_UNSEEN_CALL = (
    "Rules by noise, refresh, alternate and protect read each call on the host, which a compiled "
    "graph cannot. Compile first and apply retom to the compiled module or its pipeline, or "
    "compile only the blocks with compile_repeated_blocks()."
)
_UNSEEN_GRID = (
    "This denoiser tells height and width by ids, which a compiled graph cannot read. Compile "
    "first and apply retom to the compiled module or its pipeline, or name the grid in tokens: "
    "handle.set_grid(height, width)."
)


@dataclass(slots=True, eq=False)
class DenoiserBegins:
    """Before the denoiser: forget the last call, whatever became of it, and check every level."""

    state: MergeState
    layout: Layout
    owner: object

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        state, layout = self.state, self.layout
        if not state.enabled:
            state.begin({})
            return
        bound = bind(layout.parameters, args, kwargs)
        grids = self._grids(bound)
        state.begin(grids)
        if layout.has_own_grid:
            for number, grid in grids.items():
                state.levels[number].source_grid = grid
        if layout.packed is not None:
            tokens = cast("Tensor", bound[layout.packed]).shape[1]
            state.references = tokens - grids[0].num_tokens
            if state.references < 0:
                state.end()
                raise ShapeError(
                    f"The grid {grids[0]} has more tokens than the {tokens} that the denoiser was "
                    "given. Name the right one in tokens: handle.set_grid(height, width)."
                )

    def _grids(self, bound: dict[str, Any]) -> dict[int, Grid]:
        state = self.state
        if state.fixed_grid is not None:
            return {0: state.fixed_grid}
        if self.layout.reads_values is None:
            return self.layout.grids(bound)
        if state.read_grids is None or not state.prepared:
            raise ConfigError(_UNSEEN_GRID)
        return state.read_grids[1]


@dataclass(slots=True, eq=False)
class DenoiserEnds:
    """After the denoiser, also when it raised, and then without an output: forget the call."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: object) -> None:
        self.state.end(failed=output is None)


@dataclass(slots=True, eq=False)
class GridSource:
    """Before the module that flattens a feature map (B, C, H, W) to tokens: note H and W."""

    state: MergeState
    level: LevelState

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.state.running and self.level.method is not None:
            height, width = first_input(args, kwargs, "hidden_states").shape[-2:]
            self.level.source_grid = Grid(height, width)
