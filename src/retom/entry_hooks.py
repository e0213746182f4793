"""Hooks around the module that the pipeline calls: outside of any graph compiled from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retom.calls import Args, Kwargs, first_input, noise_level
from retom.errors import ConfigError
from retom.recomputation import refuse_second_run

if TYPE_CHECKING:
    from torch import nn

    from retom.models.layout import GridsOf
    from retom.state import MergeState


@dataclass(slots=True, eq=False)
class CallComes:
    """Before a call, outside of any compiled graph: look at what the host has to know."""

    state: MergeState
    grids: GridsOf

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if not (self.state.enabled and self.state.needs_preparation):
            return
        if torch.compiler.is_compiling():
            raise ConfigError(
                "Rules by noise, refresh, alternate, protect and importance read each call on the "
                "host, which a compiled graph cannot. Compile first and apply retom to the "
                "compiled module or its pipeline, or compile only the blocks with "
                "compile_repeated_blocks()."
            )
        config = self.state.config
        refuse_second_run(config)
        noise, source = None, None
        if config.needs_timestep:
            source = args[1] if len(args) > 1 else kwargs["timestep"]
            noise = noise_level(source)
        sample = first_input(args, kwargs, "sample")
        self.state.prepare(self.grids(sample), noise, source)
        if config.needs_guidance:
            self.state.guidance.comes(sample)


@dataclass(slots=True, eq=False)
class CallEnds:
    """After a call: remember what a method of the next call may ask about its output."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: object) -> None:
        if self.state.enabled and self.state.config.needs_guidance:
            self.state.guidance.ends(output)
