"""For every token, the representative that it would join, and how similar that is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Protocol

import torch

from retom.bands import Band, bands
from retom.comparison import room_needed, similarities
from retom.eager import runs_on_cpu
from retom.representative import STEP, unit_tokens
from retom.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from retom.grid import Windows


HELD = 2
"""Bands whose tokens are at hand at a time: one and the next. Of the one before, only the
representatives are still asked for."""


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
    standing = _standing(windows, reach, x.device)
    if eligible is not None:
        # Nobody joins a window in which nothing is eligible; at home tokens may stay.
        nobody = ~eligible.any(dim=-1)[neighbours.T[1:, :, None]]
        standing = torch.cat([standing[:1], standing[1:].masked_fill(nobody, -torch.inf)])
    slots: list[Tensor] = []
    nearest: list[tuple[Tensor, Tensor]] = []
    parts = bands(x, windows, reach)
    rooms = _rooms(x, parts, reach)
    elected = _elected(x, parts, rooms[:-1], eligible, elect)
    for before, own, after in _between(elected):
        halo = [part for part in (before, own, after) if part and (reach or part is own)]
        nearest.append(_nearest(own, halo, reach, standing, rooms[-1]))
        slots.append(own.slot)

    slot = _joined(slots)
    similarity, ring = (_joined(list(parts)) for parts in zip(*nearest, strict=True))
    tokens = windows.token_index(x.device).expand(len(x), -1, -1)
    token = tokens.gather(2, slot[..., None]).squeeze(2)
    window = neighbours.expand(len(x), -1, -1).gather(2, ring)
    target = token.gather(1, window.flatten(1)).reshape(window.shape)
    stays = torch.arange(windows.area, device=x.device) == slot[..., None]
    if eligible is not None:
        stays = stays | ~eligible
    return target, similarity.masked_fill(stays, -torch.inf)


def _rooms(x: Tensor, parts: list[Band], reach: int) -> list[Tensor | None]:
    """Memory for the tokens of as many bands as are held at a time, and behind it for comparing.

    None off the CPU, whose allocator gives the same memory back, and while compiling.
    """
    held = min(HELD, len(parts))
    if not runs_on_cpu(x.device):
        return [None] * (held + 1)
    batch, _, channels = x.shape
    most = max(part.num_windows for part in parts)
    size = batch * most * parts[0].partition.area * channels
    last = max(size, room_needed(batch, most, channels, reach))
    # In one piece: of several, an allocator gives some back to the system after every plan.
    whole = x.new_empty(held * size + last, dtype=torch.float32)
    return [*whole[: held * size].view(held, size), whole[held * size :]]


def _elected(
    x: Tensor,
    parts: list[Band],
    rooms: list[Tensor | None],
    eligible: Tensor | None,
    elect: Elect,
) -> Iterator[_Elected]:
    """Elect band by band; bands take turns with the rooms."""
    for band, room in zip(parts, cycle(rooms), strict=False):
        unit = unit_tokens(x, band.partition, band.places, room)
        slot = elect(unit, band, None if eligible is None else eligible[band.places])
        first = torch.arange(slot.numel(), device=x.device) * unit.shape[2]
        rows = unit.view(-1, unit.shape[-1]).index_select(0, first + slot.reshape(-1))
        yield _Elected(band, unit, slot, rows.view(*slot.shape, -1))


def _nearest(
    own: _Elected,
    halo: list[_Elected],
    reach: int,
    standing: Tensor,
    room: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compare the tokens of a band with the representatives within reach.

    Args:
        own: The band.
        halo: The band and those beside it, from the top.
        reach: How many windows away to look.
        standing: What decides among equals, from :func:`_standing`, (K, num_windows, window_area).
        room: Memory for what is derived, or None.

    Returns:
        The highest similarity, float32 (B, n, window_area), and in which column of ``neighbours``
        the window stands whose representative it belongs to, int64 of the same shape.
    """
    field = _field(own, halo, reach) if reach else own.vector
    found = similarities(own.unit, field, own.band.partition.columns, reach, room)
    return _best(found, standing[:, own.band.places])


def _best(similarity: Tensor, standing: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of several similarities, and which of them it is.

    Similarities are rounded to a step and made whole numbers, and what decides among equal ones is
    written into the digits below: so a maximum alone gives both, where a CPU takes ten times as
    long for one that says where it stands. All of it is exact in float32.

    Args:
        similarity: Of K places around each token, float32 (K, B, n, window_area); overwritten.
        standing: From :func:`_standing`, (K, n, window_area).

    Returns:
        The highest, rounded, float32 (B, n, window_area), and its place, int64 of the same shape.
    """
    places = _digits_for(len(similarity))
    step = max(STEP, places * 2.0**-23)
    # Tokens so short that their squares vanish do not come to length one, and what is no number is
    # like nothing.
    similarity = similarity.clamp_(-1.0, 1.0).nan_to_num_(nan=-1.0).mul_(1 / step).round_()
    highest = similarity.mul_(places).add_(standing[:, None]).amax(dim=0)
    whole = (highest / places).floor()
    place = places - 1 - (highest - whole * places)
    return whole * step, place.long()


def _digits_for(places: int) -> int:
    """The power of two below which so many places can be numbered."""
    return 1 << (places - 1).bit_length()


def _field(own: _Elected, halo: list[_Elected], reach: int) -> Tensor:
    """The representatives of a band and around it, see :func:`retom.comparison.similarities`.

    Returns:
        Unit tokens, (B, n + 2 reach (columns + 1), C); zeros above and below the grid.
    """
    partition, start, stop = own.band.partition, own.band.start - reach, own.band.stop + reach
    columns = partition.columns
    rows: list[Tensor] = []
    for part in halo:
        first, behind = max(part.band.start, start), min(part.band.stop, stop)
        of_part = slice((first - part.band.start) * columns, (behind - part.band.start) * columns)
        rows.append(part.vector[:, of_part])
    missing = max(0, -start), max(0, stop - partition.rows)
    above, below = (_zeros(own.vector, reach + count * columns) for count in missing)
    return torch.cat([above, *rows, below], dim=1)


def _zeros(like: Tensor, count: int) -> Tensor:
    """So many vectors of zeros, (B, count, C)."""
    return like.new_zeros(like.shape[0], count, like.shape[2])


@table
def _standing(windows: Windows, reach: int, device: torch.device) -> Tensor:
    """What decides among equally similar places around a window, float32 (K, n, window_area).

    The window itself stands highest, then the others in the order of neighbours; -inf where the
    place is beyond the border. The same for all slots of a window, in memory too: a CPU adds what
    lies side by side several times as fast.
    """
    neighbours = windows.neighbours(reach, device).T[..., None]
    count = len(neighbours)
    first = _digits_for(count) - 1
    rank = first - torch.arange(count, dtype=torch.float32, device=device)[:, None, None]
    beyond = neighbours[1:] == neighbours[:1]
    rank = torch.cat([rank[:1].expand_as(neighbours[:1]), rank[1:].where(~beyond, -torch.inf)])
    return rank.expand(-1, -1, windows.area).contiguous()


def _between(
    items: Iterator[_Elected],
) -> Iterator[tuple[_Elected | None, _Elected, _Elected | None]]:
    """Yield each item with the one before and the one after."""
    before, own = None, next(items)
    for after in items:
        yield before, own, after
        before, own = own, after
    yield before, own, None


def _joined(parts: list[Tensor]) -> Tensor:
    """Windows of several bands as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
