"""The only package that touches a host module: torch forward hooks, as callable objects.

Objects, not closures, so that ``copy.deepcopy`` and pickling of the denoiser copy their state with
it. No forward is re-typed, no class swapped, no attention processor wrapped.

One call of the denoiser runs

```
CallComes → DenoiserBegins → (GridSource → (BlockBegins → site → BlockEnds)*)*
          → DenoiserEnds → CallEnds

site, scope attention       MergeAttention → attention → UnmergeOutput
      scope attention+mlp   the same, and MergeMlp → MLP → UnmergeOutput
      scope kv              MergeKeys → attention
      scope block           MergeBlock → block → UnmergeBlock
      score block           PlanFromBlock, before all of these but MergeBlock
```

Trial stands before all of them, on the block or on its self-attention, and with
``skip="unprofitable"`` decides whether they let everything pass.

Where diffusers has a cache on a block, MergeInside stands inside of it, and MergeBlock rests.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn

from retom.hooks.block import MergeBlock, UnmergeBlock
from retom.hooks.caches import Caches, MergeInside, Place
from retom.hooks.call import DenoiserBegins, DenoiserEnds, GridSource
from retom.hooks.entry import CallComes, CallEnds
from retom.hooks.layers import (
    MergeAttention,
    MergeKeys,
    MergeMlp,
    PlanFromBlock,
    RefuseChunks,
    UnmergeOutput,
)
from retom.hooks.recomputation import BlockBegins, BlockEnds, Memory
from retom.hooks.trial import Trial, modules_of
from retom.level import PlanSlot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.utils.hooks import RemovableHandle

    from retom.level import LevelState
    from retom.models.layout import AttentionSite, Layout, Site
    from retom.state import MergeState


class Removable(Protocol):
    """What can be taken off again."""

    def remove(self) -> None:
        """Take it off."""


def attach(
    entry: nn.Module, denoiser: nn.Module, layout: Layout, state: MergeState, owner: object
) -> list[Removable]:
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
    memory = Memory()
    places: list[Place] = []
    at_sites: list[Removable] = []
    state.profit.peers.fill(modules_of(layout))
    for site in layout.sites:
        place, hooks = _attach_site(site, state, memory)
        places.append(place)
        at_sites += hooks
    caches = Caches(state, tuple(places))
    comes = CallComes(state, layout, None if entry is denoiser else caches)
    begins = DenoiserBegins(state, layout, caches, owner)
    removables: list[Removable] = [
        entry.register_forward_pre_hook(comes, with_kwargs=True),
        denoiser.register_forward_pre_hook(begins, with_kwargs=True),
        denoiser.register_forward_hook(DenoiserEnds(state), always_call=True),
        entry.register_forward_hook(CallEnds(state)),
        caches,
    ]
    sources = {site.grid_source: site.level for site in layout.sites}
    for source, number in sources.items():
        if source is not None:
            reads = GridSource(state, state.levels[number])
            removables.append(source.register_forward_pre_hook(reads, with_kwargs=True))
    removables += at_sites
    if "torch._dynamo" in sys.modules:
        # Nor does it look for hooks that come later: what was compiled before would run un-merged.
        torch.compiler.reset()
    return removables


def _attach_site(
    site: Site, state: MergeState, memory: Memory
) -> tuple[Place, list[RemovableHandle]]:
    level = state.levels[site.level]
    slot = level.own.setdefault(site.name, PlanSlot())
    tokens = "hidden_states" if site.spec is None else site.spec.tokens
    before: list[tuple[nn.Module, object]] = [
        *_trials(site, tokens, (state, level, slot)),
        (site.block, BlockBegins(memory, state, level, slot, tokens, site.parameters)),
    ]
    after: list[tuple[nn.Module, object]] = []
    inside = None
    if site.spec is not None:
        merges = MergeBlock(state, level, slot, site.name, site.spec, site.parameters)
        unmerges = UnmergeBlock(state, site.spec)
        before.append((site.block, merges))
        after.append((site.block, unmerges))
        inside = MergeInside(merges, unmerges)
    if site.inside is not None:
        inside_before, inside_after = _inside(site.block, site.inside, (state, level, slot))
        before += inside_before
        after += inside_after
    return Place.of(site, inside), [
        *(m.register_forward_pre_hook(cast("Any", h), with_kwargs=True) for m, h in before),
        *(m.register_forward_hook(cast("Any", h)) for m, h in after),
        site.block.register_forward_hook(BlockEnds(memory, state, level, slot), always_call=True),
    ]


def _trials(
    site: Site, tokens: str, shared: tuple[MergeState, LevelState, PlanSlot]
) -> list[tuple[nn.Module, object]]:
    """What decides before all other hooks whether a site merges: on the block and inside."""
    of_block = Trial(
        *shared,
        layer=site.name,
        tokens=tokens,
        parameters=site.parameters,
        axis=1 if site.spec is None else site.spec.axis,
        number=site.level,
        whole=True,
        can_merge=site.spec is not None,
    )
    if site.inside is None:
        return [(site.block, of_block)]
    inside = "hidden_states"
    of_attention = replace(of_block, tokens=inside, parameters=(inside,), axis=1, whole=False)
    return [(site.block, of_block), (site.inside.attention, of_attention)]


def _inside(
    block: nn.Module, inside: AttentionSite, shared: tuple[MergeState, LevelState, PlanSlot]
) -> tuple[list[tuple[nn.Module, object]], list[tuple[nn.Module, object]]]:
    """Hooks before and after self-attention and MLP, for scopes smaller than the block."""
    both = frozenset({"attention", "attention+mlp"})
    kv, with_mlp = frozenset({"kv"}), frozenset({"attention+mlp"})
    modules = cast("Iterable[tuple[str, nn.Module]]", block.named_modules())
    name = next(name for name, module in modules if module is inside.attention)
    before: list[tuple[nn.Module, object]] = [
        (block, RefuseChunks(*shared, with_mlp)),
        (block, PlanFromBlock(*shared, both | kv, not inside.linear, name)),
        (inside.attention, MergeAttention(*shared, both, not inside.linear)),
        (inside.attention, MergeKeys(*shared, kv)),
    ]
    state, _, slot = shared
    after: list[tuple[nn.Module, object]] = [
        (inside.attention, UnmergeOutput(state, slot, frozenset({"attention", "kv"})))
    ]
    if inside.mlp is not None:
        before.append((inside.mlp, MergeMlp(*shared, with_mlp)))
        after.append((inside.mlp, UnmergeOutput(state, slot, with_mlp)))
    return before, after


def owner_of(denoiser: nn.Module) -> object | None:
    """The owner of the hooks on ``denoiser``, or None where there are none."""
    hooks = cast("dict[int, object]", denoiser._forward_pre_hooks)
    for hook in hooks.values():
        if isinstance(hook, DenoiserBegins):
            return hook.owner
    return None
