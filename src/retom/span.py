"""Merging the image tokens of a block's call, and whatever is aligned with them.

A block's tokens may hold text before the image, and text or reference pictures after it. Only the
image's N tokens merge, and everything that has an entry for each of them follows: rotary tables,
masks and modulation are picked at the kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from retom.calls import Args, Kwargs, read_path, with_path
from retom.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from retom.models.spec import Along, BlockSpec
    from retom.token_plan import TokenPlan


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Where the image stands among a block's tokens.

    Attributes:
        tokens: All tokens of the call, (B, S, C).
        start: The image's first.
        length: The image's number, N.
        order: Where the image begins at another token in each item: which of the block's tokens
            stands at each place of ``tokens``, (B, S), with the image first. None for the block's
            own order.
    """

    tokens: Tensor
    start: int
    length: int
    order: Tensor | None = None

    def arranged(self, side: Tensor, axis: int = 1, batch: int = 0) -> Tensor:
        """What has an entry for each of the block's tokens, in the order of ``tokens``."""
        return side if self.order is None else _reordered(side, self.order, axis, batch)

    @property
    def image(self) -> Tensor:
        """The image's tokens, (B, N, C)."""
        if self.length == self.tokens.shape[1]:
            return self.tokens
        return self.tokens[:, self.start : self.start + self.length]


def find_span(
    spec: BlockSpec,
    parameters: tuple[str, ...],
    call: tuple[Args, Kwargs],
    num_tokens: int,
    references: int,
) -> Span:
    """Find the image's tokens in a block's call.

    Args:
        spec: The block's row.
        parameters: Names of its forward's parameters.
        call: Its arguments.
        num_tokens: The image's tokens, N.
        references: Tokens of reference pictures that follow.

    Raises:
        ConfigError: The call brings something under which merging would be wrong.
        ShapeError: It has fewer tokens than the image.
    """
    for refusal in spec.refuse:
        value = _given(read_path(parameters, *call, refusal.keys))
        if value is not None and refusal.value in (None, value):
            raise ConfigError(f"scope='block' cannot merge in this call: {refusal.reason}")
    tokens = cast("Tensor", read_path(parameters, *call, (spec.tokens,)))
    if spec.axis == 0:
        tokens = tokens.transpose(0, 1)
    order = _order(spec, parameters, call, num_tokens)
    if order is not None:
        return Span(_reordered(tokens, order), 0, num_tokens, order)
    start = 0 if spec.at == "first" else tokens.shape[1] - num_tokens - references
    if start < 0 or tokens.shape[1] < start + num_tokens:
        raise ShapeError(
            f"A block got {tokens.shape[1]} tokens where the image alone has {num_tokens}. "
            "Something changes the tokens between the denoiser's input and the block; remove it."
        )
    return Span(tokens, start, num_tokens)


def _given(value: Any) -> Any:  # noqa: ANN401 - whatever the caller passed
    """The value; None for a list of nothing but None, one for each adapter or control."""
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return None if all(item is None for item in items) else items
    return value


def merge_call(
    spec: BlockSpec,
    parameters: tuple[str, ...],
    call: tuple[Args, Kwargs],
    span: Span,
    plan: TokenPlan,
) -> tuple[tuple[Args, Kwargs], Tensor]:
    """The arguments of a block's call with K image tokens instead of N, and these (B, K, C)."""
    merged = plan.merge(span.image)
    call = with_path(parameters, *call, (spec.tokens,), _placed(spec, span, merged))
    for along in spec.aligned:
        side = read_path(parameters, *call, along.keys)
        if side is not None:
            picked = _picked(side, along, span, plan)
            call = with_path(parameters, *call, along.keys, picked)
    return call, merged


def unmerge_output(
    spec: BlockSpec, output: object, span: Span, merged: Tensor, plan: TokenPlan
) -> Any:  # noqa: ANN401 - as the block gives it
    """The block's output with N image tokens: to all is added, un-merged, what it changed."""
    items = cast("tuple[Any, ...]", output)
    alone = spec.output is None or isinstance(output, Tensor)
    tokens = cast("Tensor", output if alone else items[cast("int", spec.output)])
    if spec.axis == 0:
        tokens = tokens.transpose(0, 1)
    kept = tokens
    if tokens.shape[1] != plan.num_kept:
        kept = tokens[:, span.start : span.start + plan.num_kept]
    image = span.image + plan.unmerge(kept - merged, span.image, merged)
    after = Span(tokens, span.start, plan.num_kept)
    placed = _placed(spec, after, image)
    if span.order is not None:
        placed = _reordered(placed, span.order.argsort(dim=1), spec.axis, 1 - spec.axis)
    if alone:
        return placed
    changed = [*items]
    changed[cast("int", spec.output)] = placed
    return changed if isinstance(output, list) else tuple(changed)


def _order(
    spec: BlockSpec, parameters: tuple[str, ...], call: tuple[Args, Kwargs], num_tokens: int
) -> Tensor | None:
    """Each item's tokens from its image on, and around to those before it; None for their own."""
    if spec.ends_with is None:
        return None
    mask = cast("Tensor | None", read_path(parameters, *call, (spec.ends_with,)))
    if mask is None:
        return None
    starts = mask.sum(dim=1, keepdim=True) - num_tokens
    places = torch.arange(mask.shape[1], device=mask.device)
    return (starts + places) % mask.shape[1]


def _reordered(side: Tensor, order: Tensor, axis: int = 1, batch: int = 0) -> Tensor:
    """Entries along an axis in another order for each item (B, S)."""
    rows = side.movedim((batch, axis), (0, 1))
    index = order.reshape(*order.shape, *[1] * (rows.ndim - 2)).expand(rows.shape)
    return rows.gather(1, index).movedim((0, 1), (batch, axis))


def _placed(spec: BlockSpec, span: Span, image: Tensor) -> Tensor:
    """The tokens with others in the image's place, in the block's own arrangement."""
    tokens = image
    if span.length != span.tokens.shape[1]:
        before = span.tokens[:, : span.start]
        after = span.tokens[:, span.start + span.length :]
        tokens = torch.cat([before, image, after], dim=1)
    return tokens.transpose(0, 1) if spec.axis == 0 else tokens


def _picked(side: object, along: Along, span: Span, plan: TokenPlan) -> object:
    if isinstance(side, (tuple, list)):
        items = [_picked(item, along, span, plan) for item in cast("list[object]", side)]
        return items if isinstance(side, list) else tuple(items)
    if not isinstance(side, Tensor) or side.shape[along.axis] == 1:
        return side  # absent, or one entry for all tokens
    axis = along.axis % side.ndim
    if along.batch is not None:
        side = span.arranged(side, axis, along.batch)
    length = side.shape[axis]
    start = span.start
    if along.at == "last" and span.order is None:
        start = length - (span.tokens.shape[1] - span.start)
    if start < 0 or length < start + span.length:
        raise ShapeError(
            f"{along.path} has {length} entries along dimension {along.axis}, which does not cover "
            f"the image's {span.length} tokens. The row of this block is wrong for this call."
        )
    image = side.narrow(axis, start, span.length)
    if along.batch is None:
        picked = image.index_select(axis, plan.shared_kept)
    else:
        picked = plan.pick(image, dim=axis, batch=along.batch)
    if length == span.length:
        return picked
    rest = length - start - span.length
    before = side.narrow(axis, 0, start)
    after = side.narrow(axis, start + span.length, rest)
    if along.batch is not None:
        batch = along.batch % side.ndim
        size = [-1] * side.ndim
        size[batch] = picked.shape[batch]
        before, after = before.expand(size), after.expand(size)
    return torch.cat([before, picked, after], dim=axis)
