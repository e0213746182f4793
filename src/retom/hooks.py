"""What touches a host module, with ``entry_hooks``: torch forward hooks, as callable objects.

Objects, not closures, so that ``copy.deepcopy`` and pickling of the denoiser copy their state with
it. No forward is re-typed, no class swapped, no attention processor wrapped.

One call of the denoiser runs

```
CallComes → DenoiserBegins → (GridSource → (BlockBegins → site → BlockEnds)*)*
          → DenoiserEnds → CallEnds

site, scope attention       MergeInput → attention → UnmergeOutput
      scope attention+mlp   the same, and MergeInput → MLP → UnmergeOutput
      scope kv              MergeKeys → attention
      scope block           MergeBlock → block → UnmergeBlock
      score block           PlanFromBlock, before all of these
```
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from retom.calls import Args, Kwargs, first_input, with_first_input, with_mask
from retom.config import SCOPES
from retom.entry_hooks import CallComes, CallEnds
from retom.grid import Grid
from retom.recomputation import BlockBegins, BlockEnds, Memory
from retom.refusals import refuse_adapter_masks, refuse_chunks, refuse_fused_projections
from retom.state import MergedBlock, MergedLayer

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from retom.models.layout import GridsOf, Layout, Site
    from retom.state import LevelState, MergeState
    from retom.token_plan import TokenPlan

ATTENTION_MASK_POSITION = 2
BLOCK_MASK_POSITION = 1
"""Where ``attention_mask`` stands among the arguments of an attention layer and of a block."""


@dataclass(slots=True, eq=False)
class DenoiserBegins:
    """Before the denoiser: forget the last call, whatever became of it, and check every level."""

    state: MergeState
    grids: GridsOf
    owner: object

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self.state.begin(self.grids(first_input(args, kwargs, "sample")))


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


@dataclass(slots=True, eq=False)
class SiteHook:
    """What all hooks before a site's modules share.

    Attributes:
        state: The denoiser's.
        level: The site's.
        layer: Qualified name of the site.
        scopes: Scopes in which the hook does something.
    """

    state: MergeState
    level: LevelState
    layer: str
    scopes: frozenset[str]

    def plan(self, module: nn.Module, args: Args, kwargs: Kwargs) -> TokenPlan | None:
        """The plan for the module's input; None where it passes as it is."""
        state = self.state
        if not state.running or self.level.method is None or state.config.scope not in self.scopes:
            return None
        # An MLP has no keys, nor need of any: the attention before it has made the plan.
        score = getattr(module, "to_k", None) if state.config.score == "keys" else None
        tokens = first_input(args, kwargs, "hidden_states")
        return state.plan_for(self.level, self.layer, tokens, score)

    def with_attention_mask(
        self, args: Args, kwargs: Kwargs, plan: TokenPlan
    ) -> tuple[Args, Kwargs]:
        """A self-attention's arguments with the mask of the kept tokens."""
        weighted = self.state.config.weighs_by_size
        return with_mask(args, kwargs, ATTENTION_MASK_POSITION, plan, size_weighted=weighted)


@dataclass(slots=True, eq=False)
class MergeInput(SiteHook):
    """Before self-attention or an MLP: replace its N tokens by K, and its mask by theirs."""

    takes_mask: bool

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(module, args, kwargs)
        if plan is None:
            return None
        tokens = first_input(args, kwargs, "hidden_states")
        self.state.in_flight = MergedLayer(plan)
        args, kwargs = with_first_input(args, kwargs, plan.merge(tokens))
        if self.takes_mask:
            return self.with_attention_mask(args, kwargs, plan)
        return args, kwargs


@dataclass(slots=True, eq=False)
class UnmergeOutput:
    """After self-attention or an MLP: spread its K tokens back to N."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: Tensor) -> Tensor | None:
        layer = self.state.in_flight
        if not isinstance(layer, MergedLayer):
            return None
        self.state.in_flight = None
        return layer.plan.unmerge(output)


@dataclass(slots=True, eq=False)
class MergeKeys(SiteHook):
    """Before self-attention: let all N tokens ask K merged ones, as text attention would."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(module, args, kwargs)
        if plan is None:
            return None
        refuse_fused_projections(module)
        tokens = first_input(args, kwargs, "hidden_states")
        kwargs = dict(kwargs)
        if len(args) > 1:
            args = (args[0], plan.merge(tokens), *args[2:])
        else:
            kwargs["encoder_hidden_states"] = plan.merge(tokens)
        return self.with_attention_mask(args, kwargs, plan)


@dataclass(slots=True, eq=False)
class PlanFromBlock(SiteHook):
    """Before a transformer block: plan from its raw input for the layers inside."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.state.config.score == "block":
            self.plan(module, args, kwargs)


@dataclass(slots=True, eq=False)
class MergeBlock(SiteHook):
    """Before a transformer block: replace its N tokens by K for all its layers."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        merges = self.state.running and self.level.method is not None
        if merges and self.state.config.scope == "attention+mlp":
            refuse_chunks(module)
        plan = self.plan(module, args, kwargs)
        if plan is None:
            return None
        refuse_adapter_masks(kwargs)
        tokens = first_input(args, kwargs, "hidden_states")
        merged = plan.merge(tokens)
        self.state.in_flight = MergedBlock(plan, tokens, merged)
        args, kwargs = with_first_input(args, kwargs, merged)
        return with_mask(args, kwargs, BLOCK_MASK_POSITION, plan, size_weighted=False)


@dataclass(slots=True, eq=False)
class UnmergeBlock:
    """After a transformer block: add to every token what the block added to the one it joined."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: Tensor) -> Tensor | None:
        block = self.state.in_flight
        if not isinstance(block, MergedBlock):
            return None
        self.state.in_flight = None
        return block.tokens + block.plan.unmerge(output - block.merged)


def attach(
    entry: nn.Module, denoiser: nn.Module, layout: Layout, state: MergeState, owner: object
) -> list[RemovableHandle]:
    """Register the hooks for every site.

    Sites that do not merge, and modules outside of the scope, get hooks too, which let everything
    pass. torch.compile does not guard on the absence of hooks: a block compiled without them would
    also serve the same class of block elsewhere, which would then silently not merge.

    Args:
        entry: The module that the pipeline calls: the denoiser, or what torch.compile made of it.
        denoiser: The network itself.
        layout: Its sites.
        state: Shared by all hooks.
        owner: What :func:`owner_of` finds again.

    Returns:
        Handles that remove the hooks.
    """
    removables = [
        entry.register_forward_pre_hook(CallComes(state, layout.grids), with_kwargs=True),
        denoiser.register_forward_pre_hook(
            DenoiserBegins(state, layout.grids, owner), with_kwargs=True
        ),
        denoiser.register_forward_hook(DenoiserEnds(state), always_call=True),
        entry.register_forward_hook(CallEnds(state)),
    ]
    for source, number in {site.grid_source: site.level for site in layout.sites}.items():
        reads = GridSource(state, state.levels[number])
        removables.append(source.register_forward_pre_hook(reads, with_kwargs=True))
    memory = Memory()
    for site in layout.sites:
        removables += _attach_site(site, state, memory)
    if "torch._dynamo" in sys.modules:
        # Nor does it look for hooks that come later: what was compiled before would run un-merged.
        torch.compiler.reset()
    return removables


def _attach_site(site: Site, state: MergeState, memory: Memory) -> list[RemovableHandle]:
    level = state.levels[site.level]
    shared = (state, level, site.name)
    both = frozenset({"attention", "attention+mlp"})
    before: list[tuple[nn.Module, object]] = [
        (site.block, BlockBegins(memory, state, level)),
        (site.block, PlanFromBlock(*shared, frozenset(SCOPES))),
        (site.block, MergeBlock(*shared, frozenset({"block"}))),
        (site.attention, MergeInput(*shared, both, takes_mask=True)),
        (site.attention, MergeKeys(*shared, frozenset({"kv"}))),
    ]
    after: list[tuple[nn.Module, object]] = [
        (site.block, UnmergeBlock(state)),
        (site.attention, UnmergeOutput(state)),
    ]
    if site.mlp is not None:
        mlp = MergeInput(*shared, frozenset({"attention+mlp"}), takes_mask=False)
        before.append((site.mlp, mlp))
        after.append((site.mlp, UnmergeOutput(state)))
    return [
        *(m.register_forward_pre_hook(cast("Any", h), with_kwargs=True) for m, h in before),
        *(m.register_forward_hook(cast("Any", h)) for m, h in after),
        site.block.register_forward_hook(BlockEnds(memory, state, level), always_call=True),
    ]


def owner_of(denoiser: nn.Module) -> object | None:
    """The owner of the hooks on ``denoiser``, or None where there are none."""
    hooks = cast("dict[int, object]", denoiser._forward_pre_hooks)
    for hook in hooks.values():
        if isinstance(hook, DenoiserBegins):
            return hook.owner
    return None
