"""The only file that touches a host module: torch forward hooks, as callable objects.

Objects, not closures, so that ``copy.deepcopy`` and pickling of the denoiser copy their state with
it. No forward is re-typed, no class swapped, no attention processor wrapped.

One call of the denoiser runs

```
DenoiserBegins → (GridSource → (MergeInput → attention → UnmergeOutput)*)* → DenoiserEnds
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from retom.grid import Grid

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from retom.models.layout import GridsOf, Layout
    from retom.state import MergeState

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
    source: int

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.state.running:
            height, width = _first_input(args, kwargs, "hidden_states").shape[-2:]
            self.state.source_grid[self.source] = Grid(height, width)


@dataclass(slots=True, eq=False)
class MergeInput:
    """Before a self-attention layer: replace its N tokens by K, and its mask by theirs."""

    state: MergeState
    site: int
    source: int
    level: int

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        if not self.state.running:
            return None
        tokens = _first_input(args, kwargs, "hidden_states")
        plan = self.state.plan_for(self.level, self.source, tokens)
        if plan is None:
            return None
        self.state.in_flight[self.site] = plan
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
    site: int

    def __call__(self, module: nn.Module, args: Args, output: Tensor) -> Tensor | None:
        plan = self.state.in_flight.pop(self.site, None)
        return None if plan is None else plan.unmerge(output)


def attach(
    denoiser: nn.Module, layout: Layout, state: MergeState, owner: object
) -> list[RemovableHandle]:
    """Register the hooks for every site on a level that merges.

    ``owner`` is what :func:`owner_of` finds again.
    """
    begins = DenoiserBegins(state, layout.grids, owner)
    removables = [
        denoiser.register_forward_pre_hook(begins, with_kwargs=True),
        denoiser.register_forward_hook(DenoiserEnds(state), always_call=True),
    ]
    numbers: dict[nn.Module, int] = {}
    for site_number, site in enumerate(layout.sites):
        if site.level not in state.levels:
            continue
        if site.grid_source not in numbers:
            source = numbers[site.grid_source] = len(numbers)
            reads = GridSource(state, source)
            removables.append(site.grid_source.register_forward_pre_hook(reads, with_kwargs=True))
        merges = MergeInput(state, site_number, numbers[site.grid_source], site.level)
        removables += [
            site.attention.register_forward_pre_hook(merges, with_kwargs=True),
            site.attention.register_forward_hook(UnmergeOutput(state, site_number)),
        ]
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
