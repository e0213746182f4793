"""The only file that touches a host module: torch forward hooks, as callable objects.

Objects, not closures, so that ``copy.deepcopy`` and pickling of the denoiser copy their state with
it. No forward is re-typed, no class swapped, no attention processor wrapped.

One call of the denoiser runs

```
DenoiserBegins → (GridSource → (MergeInput → attention → UnmergeOutput)*)* → DenoiserEnds
```
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from retom.grid import Grid

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from retom.models.layout import GridsOf, Layout
    from retom.state import LevelState, MergeState

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(slots=True, eq=False)
class DenoiserBegins:
    """Before the denoiser: forget the last call, whatever became of it, and check every level."""

    state: MergeState
    grids: GridsOf
    owner: object

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self.state.begin(self.grids(_first_input(args, kwargs, "sample")))


@dataclass(slots=True, eq=False)
class DenoiserEnds:
    """After the denoiser, also when it raised: forget the call."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: object) -> None:
        self.state.end()


@dataclass(slots=True, eq=False)
class GridSource:
    """Before the module that flattens a feature map (B, C, H, W) to tokens: note H and W."""

    state: MergeState
    level: LevelState

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.state.running and self.level.merges:
            height, width = _first_input(args, kwargs, "hidden_states").shape[-2:]
            self.level.source_grid = Grid(height, width)


@dataclass(slots=True, eq=False)
class MergeInput:
    """Before a self-attention layer: replace its N tokens by K, and its mask by theirs."""

    state: MergeState
    level: LevelState

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        if not (self.state.running and self.level.merges):
            return None
        tokens = _first_input(args, kwargs, "hidden_states")
        plan = self.state.plan_for(self.level, tokens)
        if plan is None:
            return None
        self.state.in_flight = plan
        merged = plan.merge(tokens)
        kwargs = dict(kwargs)
        if args:
            args = (merged, *args[1:])
        else:
            kwargs["hidden_states"] = merged
        mask = kwargs.get("attention_mask")
        if mask is not None:
            kwargs["attention_mask"] = plan.pick(cast("Tensor", mask), dim=-1)
        return args, kwargs


@dataclass(slots=True, eq=False)
class UnmergeOutput:
    """After a self-attention layer: spread its K tokens back to N."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: Tensor) -> Tensor | None:
        plan, self.state.in_flight = self.state.in_flight, None
        return None if plan is None else plan.unmerge(output)


def attach(
    denoiser: nn.Module, layout: Layout, state: MergeState, owner: object
) -> list[RemovableHandle]:
    """Register the hooks for every site; ``owner`` is what :func:`owner_of` finds again.

    Sites on levels that do not merge get hooks too, which let everything pass. torch.compile does
    not guard on the absence of hooks: a block compiled without them would also serve the same class
    of block elsewhere, which would then silently not merge.
    """
    begins = DenoiserBegins(state, layout.grids, owner)
    removables = [
        denoiser.register_forward_pre_hook(begins, with_kwargs=True),
        denoiser.register_forward_hook(DenoiserEnds(state), always_call=True),
    ]
    for source, number in {site.grid_source: site.level for site in layout.sites}.items():
        reads = GridSource(state, state.levels[number])
        removables.append(source.register_forward_pre_hook(reads, with_kwargs=True))
    for site in layout.sites:
        merges = MergeInput(state, state.levels[site.level])
        removables += [
            site.attention.register_forward_pre_hook(merges, with_kwargs=True),
            site.attention.register_forward_hook(UnmergeOutput(state)),
        ]
    if "torch._dynamo" in sys.modules:
        # Nor does it look for hooks that come later: what was compiled before would run un-merged.
        torch.compiler.reset()
    return removables


def owner_of(denoiser: nn.Module) -> object | None:
    """The owner of the hooks on ``denoiser``, or None where there are none."""
    hooks = cast("dict[int, object]", denoiser._forward_pre_hooks)
    for hook in hooks.values():
        if isinstance(hook, DenoiserBegins):
            return hook.owner
    return None


def _first_input(args: Args, kwargs: Kwargs, name: str) -> Tensor:
    """A module's main input, however the caller passed it."""
    return cast("Tensor", args[0] if args else kwargs[name])
