"""Whether the image stands among a block's tokens where its row says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from retom.errors import BlockSpecError
from retom.span import find_span
from retom.testing.runs import plain_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from retom.models.layout import Layout, Site


def check_place(
    model: nn.Module,
    arguments: Mapping[str, Any],
    sites: tuple[Site, ...],
    layout: Layout,
    sizes: tuple[int, int],
) -> None:
    """See that the image stands where the rows say, by the tokens that another picture changes.

    All blocks give their tokens back, so that nothing of the image gets to the text.
    """
    _, before = plain_run(model, arguments)
    picture = arguments[layout.picture]
    other = (
        [item + 1 for item in cast("list[Tensor]", picture)]
        if isinstance(picture, (tuple, list))
        else other_picture(cast("Tensor", picture), layout, sizes[0])
    )
    _, after = plain_run(model, {**arguments, layout.picture: other})
    for site in sites:
        assert site.spec is not None
        spans = [
            find_span(site.spec, site.parameters, calls[site.block], *sizes)
            for calls in (before, after)
        ]
        changed = (spans[0].tokens != spans[1].tokens).any(dim=-1)
        inside = changed[:, spans[0].start : spans[0].start + spans[0].length]
        if not bool(inside.all()) or int(changed.sum()) != inside.numel():
            raise BlockSpecError(
                f"The image does not stand where the row of {type(site.block).__name__} says: of "
                f"{inside.numel()} tokens there {int(inside.sum())} change with the picture, and "
                f"{int(changed.sum() - inside.sum())} others do. Look at at= and at the grid."
            )


def other_picture(picture: Tensor, layout: Layout, tokens: int) -> Tensor:
    """Another picture; what comes packed with it, references or text, stays the same."""
    other = picture.clone()
    if layout.packed is not None and layout.packed_last:
        other[:, -tokens:] += 1
    elif layout.packed is not None:
        other[:, :tokens] += 1
    elif picture.ndim == 6:  # references of its size, and the picture last
        other[:, -1] += 1
    else:
        other += 1
    return other
