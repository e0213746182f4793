"""For every token, the representative that it would join, and how similar that is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Protocol

import torch

from retom.bands import Band, bands
from retom.grid import around
from retom.representative import dot, unit_tokens

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
    blocked = _blocked(neighbours, eligible)
    slots: list[Tensor] = []
    similarities: list[Tensor] = []
    rings: list[Tensor] = []
    parts = bands(x, windows, reach)
    rooms = _rooms(x, parts)
    elected = _elected(x, parts, rooms[:-1], eligible, elect)
    for before, own, after in _between(elected):
        halo = [part for part in (before, own, after) if part and (reach or part is own)]
        similarity, ring = _nearest(own, halo, reach, blocked, rooms[-1])
        slots.append(own.slot)
        similarities.append(similarity)
        rings.append(ring)

    slot, similarity, ring = (_joined(found) for found in (slots, similarities, rings))
    table = windows.token_index(x.device).expand(len(x), -1, -1)
    token = table.gather(2, slot[..., None]).squeeze(2)
    window = neighbours.expand(len(x), -1, -1).gather(2, ring)
    target = token.gather(1, window.flatten(1)).reshape(window.shape)
    stays = torch.arange(windows.area, device=x.device) == slot[..., None]
    if eligible is not None:
        stays = stays | ~eligible
    return target, similarity.masked_fill(stays, -torch.inf)


def _rooms(x: Tensor, parts: list[Band]) -> list[Tensor | None]:
    """Memory for the tokens of as many bands as are held at a time, and for products behind it.

    None off the CPU, whose allocator gives the same memory back, and while compiling.
    """
    held = min(HELD, len(parts))
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [None] * (held + 1)
    slots = max(part.num_windows for part in parts) * parts[0].partition.area
    size = x.shape[0] * slots * x.shape[2]
    return [x.new_empty(size, dtype=torch.float32) for _ in range(held + 1)]


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
    blocked: Tensor,
    room: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compare the tokens of a band with the representatives within reach.

    Args:
        own: The band.
        halo: The band and those beside it, from the top.
        reach: How many windows away to look.
        blocked: From :func:`_blocked`, (num_windows, K).
        room: Memory for products, see :func:`retom.representative.dot`.

    Returns:
        The highest similarity, float32 (B, n, window_area), and in which column of ``neighbours``
        the window stands whose representative it belongs to, int64 of the same shape.
    """
    if room is not None:
        room = room[: own.unit.numel()].view(own.unit.shape)
    at_home = dot(own.unit, own.vector[:, :, None], room)
    if not reach:
        return at_home, torch.zeros_like(at_home, dtype=torch.int64)
    rows, columns = own.band.rows, own.band.partition.columns
    batch, _, area, channels = own.unit.shape
    tokens = own.unit.view(batch, rows, columns, area, channels)
    room = None if room is None else room.view(tokens.shape)
    # (down, right, B, rows, columns, 1, C): a view, in which a step is a step in the field
    shifted = _field(own, halo, reach).unfold(1, rows, 1).unfold(2, columns, 1)
    shifted = shifted.permute(1, 2, 0, 4, 5, 3)[..., None, :]
    found = [at_home.view(batch, rows, columns, area)]
    for down, right in around(reach)[1:]:
        found.append(dot(tokens, shifted[reach + down, reach + right], room))
    # At a tie max names the first, which is the window itself before all others.
    none_there = blocked[own.band.places].T[:, None, :, None]
    stacked = torch.stack(found).flatten(2, 3).masked_fill(none_there, -torch.inf)
    similarity, ring = stacked.max(dim=0)
    return similarity, ring


def _field(own: _Elected, halo: list[_Elected], reach: int) -> Tensor:
    """The representatives around a band where they stand, with room to look beyond the border.

    Returns:
        Unit tokens, (B, rows + 2 reach, columns + 2 reach, C); anything beyond the border.
    """
    batch, _, channels = own.vector.shape
    columns = own.band.partition.columns
    shape = (batch, own.band.rows + 2 * reach, columns + 2 * reach, channels)
    field = own.vector.new_empty(shape)
    first = own.band.start - reach
    for part in halo:
        start = max(part.band.start, first)
        stop = min(part.band.stop, own.band.stop + reach)
        rows = part.vector.view(batch, -1, columns, channels)
        rows = rows[:, start - part.band.start : stop - part.band.start]
        field[:, start - first : stop - first, reach : reach + columns] = rows
    return field


def _blocked(neighbours: Tensor, eligible: Tensor | None) -> Tensor:
    """Which neighbours no token may join: beyond the border, or with nothing eligible.

    Args:
        neighbours: From :meth:`retom.grid.Windows.neighbours`, (num_windows, K).
        eligible: Which slots may leave or be joined, bool (num_windows, window_area), None for all.

    Returns:
        Bool (num_windows, K); never the window itself, whose tokens may stay at home.
    """
    blocked = neighbours == neighbours[:, :1]
    if eligible is not None:
        blocked = blocked | ~eligible.any(dim=-1)[neighbours]
    return torch.cat([torch.zeros_like(blocked[:, :1]), blocked[:, 1:]], dim=1)


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
