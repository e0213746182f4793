"""Counting a block's FLOPs, by running it on the meta device with the shapes of its last call.

No formula for each family: the block itself is run, with fewer tokens, and torch counts its matrix
products. Nothing is computed and no memory is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from retom.plan import Plan
from retom.span import find_span, merge_call
from retom.stand_ins import StandIns

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from retom.calls import Args, Kwargs
    from retom.models.layout import Layout, Site
    from retom.state import MergeState


def block_flops(
    layout: Layout, state: MergeState, level: int, kept: int, whole: frozenset[str]
) -> int | None:
    """FLOPs of a level's blocks for one picture with so many image tokens left.

    Args:
        layout: The denoiser's sites.
        state: Its state, with the shapes of the last call.
        level: Which level.
        kept: Image tokens after merging.
        whole: Names of blocks on which all of them stay.

    Returns:
        None before the first call that merged, or where a block cannot run on the meta device (as
        some quantised layers cannot).
    """
    known: dict[object, int] = {}
    total = 0
    for site in layout.sites:
        if site.level != level:
            continue
        noted = state.calls.get(site.name)
        grid = state.seen.get(level)
        if noted is None or grid is None:
            return None
        left = grid.num_tokens if site.name in whole else kept
        key = (type(site.block), _sizes(site), _signature(noted), left)
        if key not in known:
            try:
                known[key] = _count(site, noted, grid.num_tokens, left, state.references)
            except (RuntimeError, NotImplementedError, TypeError, ValueError):
                return None
        total += known[key]
    return total


def _count(site: Site, call: tuple[Args, Kwargs], tokens: int, kept: int, references: int) -> int:
    assert site.spec is not None
    span = find_span(site.spec, site.parameters, call, tokens, references)
    batch = span.tokens.shape[0]
    if kept < tokens:
        plan = _meta_plan(batch, tokens, kept)
        call, _ = merge_call(site.spec, site.parameters, call, span, plan)
    weights = dict(site.block.named_parameters()) | dict(site.block.named_buffers())
    shapes = {name: weight.detach().to("meta") for name, weight in weights.items()}
    # As plain products: what fused attention is on the meta device depends on torch's version.
    plain = cast("AbstractContextManager[object]", sdpa_kernel(SDPBackend.MATH))
    with torch.no_grad(), plain, StandIns(), FlopCounterMode(display=False) as counter:
        functional_call(site.block, shapes, *call)
    return counter.get_total_flops() // batch


def _meta_plan(batch: int, tokens: int, kept: int) -> Plan:
    """A plan of these sizes without contents."""

    def index(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    return Plan(
        kept=index(batch, kept),
        slot=index(batch, tokens),
        kept_rows=index(batch * kept),
        slot_rows=index(batch * tokens),
        member_rows=index(batch * tokens),
        member_start=index(batch * kept),
        mode="representative",
    )


def _sizes(site: Site) -> tuple[object, ...]:
    return tuple(parameter.shape for parameter in site.block.parameters())


def _signature(value: object) -> object:
    """Shapes of a nest of arguments, as something that can be looked up."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        held = cast("dict[object, object]", value)
        return tuple((str(key), _signature(item)) for key, item in held.items())
    if isinstance(value, (tuple, list)):
        return tuple(_signature(item) for item in cast("list[object]", value))
    return repr(value)
