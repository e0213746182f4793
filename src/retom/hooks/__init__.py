"""The only package that touches a host module: torch forward hooks, as callable objects.

Objects, not closures, so that ``copy.deepcopy`` and pickling of the denoiser copy their state with
it. No forward is re-typed, no class swapped, no attention processor wrapped.

One call of the denoiser runs

```
CallComes → DenoiserBegins → (GridSource → site*)* → DenoiserEnds

site, scope attention       MergeInput → attention → UnmergeOutput
      scope attention+mlp   the same, and MergeInput → MLP → UnmergeOutput
      scope kv              MergeKeys → attention
      scope block           MergeBlock → block → UnmergeBlock
```
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from retom.hooks.block import MergeBlock, UnmergeBlock
from retom.hooks.call import CallComes, DenoiserBegins, DenoiserEnds, GridSource
from retom.hooks.layers import MergeInput, MergeKeys, UnmergeOutput

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from retom.models.layout import AttentionSite, Layout, Site
    from retom.state import LevelState, MergeState


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
        entry.register_forward_pre_hook(CallComes(state, layout), with_kwargs=True),
        denoiser.register_forward_pre_hook(DenoiserBegins(state, layout, owner), with_kwargs=True),
        denoiser.register_forward_hook(DenoiserEnds(state), always_call=True),
    ]
    sources = {site.grid_source: site.level for site in layout.sites}
    for source, number in sources.items():
        if source is not None:
            reads = GridSource(state, state.levels[number])
            removables.append(source.register_forward_pre_hook(reads, with_kwargs=True))
    for site in layout.sites:
        removables += _attach_site(site, state)
    if "torch._dynamo" in sys.modules:
        # Nor does it look for hooks that come later: what was compiled before would run un-merged.
        torch.compiler.reset()
    return removables


def _attach_site(site: Site, state: MergeState) -> list[RemovableHandle]:
    level = state.levels[site.level]
    before: list[tuple[nn.Module, object]] = []
    after: list[tuple[nn.Module, object]] = []
    if site.spec is not None:
        merges = MergeBlock(state, level, site.name, site.spec, site.parameters)
        before.append((site.block, merges))
        after.append((site.block, UnmergeBlock(state, site.spec)))
    if site.inside is not None:
        _add_inside(site.inside, (state, level, site.name), before, after)
    return [
        *(m.register_forward_pre_hook(cast("Any", h), with_kwargs=True) for m, h in before),
        *(m.register_forward_hook(cast("Any", h)) for m, h in after),
    ]


def _add_inside(
    inside: AttentionSite,
    shared: tuple[MergeState, LevelState, str],
    before: list[tuple[nn.Module, object]],
    after: list[tuple[nn.Module, object]],
) -> None:
    """Add the hooks on self-attention and MLP."""
    both = frozenset({"attention", "attention+mlp"})
    before += [
        (inside.attention, MergeInput(*shared, both, takes_mask=True)),
        (inside.attention, MergeKeys(*shared, frozenset({"kv"}))),
    ]
    after.append((inside.attention, UnmergeOutput(shared[0])))
    if inside.mlp is not None:
        mlp = MergeInput(*shared, frozenset({"attention+mlp"}), takes_mask=False)
        before.append((inside.mlp, mlp))
        after.append((inside.mlp, UnmergeOutput(shared[0])))


def owner_of(denoiser: nn.Module) -> object | None:
    """The owner of the hooks on ``denoiser``, or None where there are none."""
    hooks = cast("dict[int, object]", denoiser._forward_pre_hooks)
    for hook in hooks.values():
        if isinstance(hook, DenoiserBegins):
            return hook.owner
    return None
