"""Hooks around the module that the pipeline calls: outside of any graph compiled from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retom.calls import Args, Kwargs, bind, noise_level
from retom.errors import ConfigError
from retom.hooks.recomputation import refuse_second_run
from retom.noise import check_noise_level
from retom.profit import UNPROFITABLE
from retom.refusals import UNMEASURED

if TYPE_CHECKING:
    from torch import nn

    from retom.grid import Grid
    from retom.hooks.caches import Caches
    from retom.models.layout import Layout
    from retom.state import MergeState


@dataclass(slots=True, eq=False)
class CallComes:
    """Before a call, outside of any compiled graph: look at what the host has to know.

    Attributes:
        state: The denoiser's.
        layout: Its sites.
        caches: Caches that may be there; None where the denoiser itself is called, which looks.
    """

    state: MergeState
    layout: Layout
    caches: Caches | None

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        state, layout = self.state, self.layout
        if self.caches is not None and not torch.compiler.is_compiling():
            self.caches.look()
        measures = state.enabled and state.config.skip == UNPROFITABLE
        if measures and (self.caches is not None or torch.compiler.is_compiling()):
            raise ConfigError(UNMEASURED)
        reads = layout.reads_values is not None and state.fixed_grid is None
        if not (state.enabled and (state.needs_preparation or reads)):
            return
        if torch.compiler.is_compiling():
            raise ConfigError(UNSEEN_GRID if reads else _UNSEEN_CALL)
        config = state.config
        refuse_second_run(config)
        bound = bind(layout.parameters, args, kwargs)
        noise, source = None, None
        if config.needs_timestep:
            source = bound[layout.timestep.argument]
            noise = noise_level(source, layout.timestep)
            if not config.steady:
                noise = check_noise_level(noise)
        state.prepare(self._grids(bound), noise, source)
        if config.needs_guidance:
            state.guidance.comes(bound[layout.picture])

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
    "Merging by noise, refresh, alternate, protect and importance read each call on the host, "
    "which a compiled graph cannot. Compile first and apply retom to the compiled module or its "
    "pipeline, or compile only the blocks with compile_repeated_blocks(). Presets merge by noise; "
    "noise=(0.0, 1.0) merges in every call."
)
UNSEEN_GRID = (
    "This denoiser tells height and width by ids, which a compiled graph cannot read. Compile "
    "first and apply retom to the compiled module or its pipeline, or name the grid in tokens: "
    "handle.set_grid(height, width)."
)


@dataclass(slots=True, eq=False)
class CallEnds:
    """After a call: keep what later calls may ask, its output's difference and its plans."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: object) -> None:
        state = self.state
        if not state.enabled:
            return
        if state.config.needs_guidance:
            state.guidance.ends(output)
        if state.config.refresh is not None:
            for level in state.levels.values():
                level.keep()
