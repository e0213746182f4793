"""Hooks on a whole block: the image's tokens merge on entry, and what they gained is spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from retom.calls import Args, Kwargs
from retom.in_flight import MergedBlock
from retom.span import find_span, merge_call, unmerge_output

if TYPE_CHECKING:
    from retom.level import LevelState, PlanSlot
    from retom.models.spec import BlockSpec
    from retom.state import MergeState


@dataclass(slots=True, eq=False)
class MergeBlock:
    """Before a transformer block: replace its N image tokens by K for all its layers.

    Attributes:
        state: The denoiser's.
        level: The site's.
        slot: The site's own plan.
        layer: Qualified name of the site.
        spec: The block's row.
        parameters: Names of its forward's parameters.
        stands_inside: Whether a cache is on the block, and merging happens inside of it.
    """

    state: MergeState
    level: LevelState
    slot: PlanSlot
    layer: str
    spec: BlockSpec
    parameters: tuple[str, ...]
    stands_inside: bool = False

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        return None if self.stands_inside else self.merge(args, kwargs)

    def merge(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        """The block's arguments with K image tokens; None where it runs as it is."""
        state, grid = self.state, self.level.source_grid
        merges = state.running and self.level.method is not None
        if not merges or grid is None or state.config.scope != "block":
            return None
        call = (args, kwargs)
        if self.slot.skips:
            self._note(call)
            return None
        span = find_span(self.spec, self.parameters, call, grid.num_tokens, state.references)
        plan = state.plan_for(self.level, self.slot, span.image)
        if plan is None:
            return None
        self._note(call)
        call, merged = merge_call(self.spec, self.parameters, call, span, plan)
        state.in_flight = MergedBlock(plan, span, merged)
        return call

    def _note(self, call: tuple[Args, Kwargs]) -> None:
        if not torch.compiler.is_compiling():
            self.state.note_call(self.layer, call)


@dataclass(slots=True, eq=False)
class UnmergeBlock:
    """After a transformer block: un-merge what the block added, and add it to every token."""

    state: MergeState
    spec: BlockSpec

    def __call__(self, module: nn.Module, args: Args, output: object) -> object:
        block = self.state.in_flight
        if not isinstance(block, MergedBlock):
            return None
        self.state.in_flight = None
        return unmerge_output(self.spec, output, block.span, block.merged, block.plan)
