"""For every token, the representative that it would join, and how similar that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from retom.bands import Band, bands
from retom.representative import dot, unit_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from retom.grid import Windows


class Elect(Protocol):
    """Elects one representative a window, see :meth:`retom.methods.local.LocalMethod.elect`."""

    def __call__(self, unit: Tensor, band: Band, eligible: Tensor | None, /) -> Tensor:
        """Return the slot of each window's representative."""
        ...


@dataclass(frozen=True, slots=True)
class _Elected:
    """A band whose representatives are known.

    Attributes:
        band: Which.
        unit: Its unit tokens in window order, float32 (B, n, window_area, C).
        slot: Of each window's representative, int64 (B, n).
        vector: The representatives' unit tokens, (B, n, C).
    """

    band: Band
    unit: Tensor
    slot: Tensor
    vector: Tensor


def nearest_representative(
    x: Tensor, windows: Windows, reach: int, eligible: Tensor | None, elect: Elect
) -> tuple[Tensor, Tensor]:
    """Find for every token the most similar representative of the windows around its own.

    Args:
        x: Tokens in raster order, any float dtype, (B, N, C).
        windows: The partition.
        reach: How many windows away a token may look: 0 its own window only, 1 the 3x3 windows
            around it, 2 the 5x5. The cost is one dot product a token for each window looked at.
        eligible: Which slots may leave or be joined, bool (num_windows, window_area), None for all.
        elect: What elects the representatives.

    Returns:
        The token that represents it, int64 (B, num_windows, window_area), and the cosine similarity
        to that token, float32 of the same shape: -inf for representatives, which never leave, and
        for slots that are not eligible. Ties stay in the own window, then go to the first window in
        raster order.
    """
    reach = min(reach, max(windows.rows, windows.columns) - 1)  # beyond the grid there is nobody
    neighbours = windows.neighbours(reach, x.device)
    closed = None if eligible is None else ~eligible.any(dim=-1)
    slots: list[Tensor] = []
    similarities: list[Tensor] = []
    rings: list[Tensor] = []
    elected = _elected(x, windows, reach, eligible, elect)
    for before, own, after in _between(elected):
        halo = [part for part in (before, own, after) if part and (reach or part is own)]
        similarity, ring = _nearest(own, halo, neighbours, closed)
        slots.append(own.slot)
        similarities.append(similarity)
        rings.append(ring)

    slot, similarity, ring = (_joined(parts) for parts in (slots, similarities, rings))
    table = windows.token_index(x.device).expand(len(x), -1, -1)
    token = table.gather(2, slot[..., None]).squeeze(2)
    window = neighbours.expand(len(x), -1, -1).gather(2, ring)
    target = token.gather(1, window.flatten(1)).reshape(window.shape)
    stays = torch.arange(windows.area, device=x.device) == slot[..., None]
    if eligible is not None:
        stays = stays | ~eligible
    return target, similarity.masked_fill(stays, -torch.inf)


def _elected(
    x: Tensor, windows: Windows, reach: int, eligible: Tensor | None, elect: Elect
) -> Iterator[_Elected]:
    """Elect band by band."""
    for band in bands(x, windows, reach):
        unit = unit_tokens(x[:, band.tokens], band.windows)
        slot = elect(unit, band, None if eligible is None else eligible[band.places])
        index = slot[..., None, None].expand(-1, -1, 1, unit.shape[-1])
        yield _Elected(band, unit, slot, unit.gather(2, index).squeeze(2))


def _nearest(
    own: _Elected, halo: list[_Elected], neighbours: Tensor, closed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compare the tokens of a band with the representatives within reach.

    Args:
        own: The band.
        halo: The band and those beside it, from the top.
        neighbours: From :meth:`retom.grid.Windows.neighbours`, (num_windows, K).
        closed: Windows that nothing may join, bool (num_windows,); None for none.

    Returns:
        The highest similarity, float32 (B, n, window_area), and in which column of ``neighbours``
        the window stands whose representative it belongs to, int64 of the same shape.
    """
    vectors = _joined([part.vector for part in halo])
    first = halo[0].band.places.start
    columns = (neighbours[own.band.places] - first).T.contiguous()
    found = [dot(own.unit, own.vector[:, :, None])]
    for window in columns[1:]:
        candidate = dot(own.unit, vectors.index_select(1, window)[:, :, None])
        if closed is not None:
            candidate = candidate.masked_fill(closed[window + first][:, None], -torch.inf)
        found.append(candidate)
    if len(found) == 1:
        return found[0], torch.zeros_like(found[0], dtype=torch.int64)
    # At a tie max names the first, which is the window itself before all others.
    similarity, ring = torch.stack(found).max(dim=0)
    return similarity, ring


def _between(
    items: Iterator[_Elected],
) -> Iterator[tuple[_Elected | None, _Elected, _Elected | None]]:
    """Yield each item with the one before and the one after; only three are held at a time."""
    before, own = None, next(items)
    for after in items:
        yield before, own, after
        before, own = own, after
    yield before, own, None


def _joined(parts: list[Tensor]) -> Tensor:
    """Windows of several bands as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
