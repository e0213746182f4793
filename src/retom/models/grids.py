"""Reading the token grid from a denoiser's arguments: feature maps, whole numbers, packed ids.

The fourth way, the feature map that enters a ``Transformer2DModel``, is the UNets' and stands in
:mod:`retom.models.unet`. Feature maps and whole numbers are sizes, known without a look at the
device. Ids are values: they are read once for each tensor, on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from retom.errors import ShapeError
from retom.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retom.models.layout import Bound


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """The picture enters as a feature map, and patches of it become tokens.

    Args:
        argument: The denoiser's argument: (B, C, height, width), or a list of (C, 1, height, width)
            with one for each picture. Dimensions for one frame, (B, C, 1, height, width), and for
            references of the picture's size, (B, pictures, C, 1, height, width), may be there.
        patch: Side of a patch, or the name of the configuration's entry with it.
        channels_last: Whether it is (B, frames, height, width, C).
    """

    argument: str = "hidden_states"
    patch: int | str = "patch_size"
    channels_last: bool = False
    reads_values: ClassVar[bool] = False

    def __call__(self, bound: Bound, config: object) -> Grid:
        """The grid of a call, from sizes alone.

        Raises:
            ShapeError: The pictures of a call have different sizes, or there are several frames.
        """
        given = bound[self.argument]
        maps = cast("list[Tensor]", given if isinstance(given, (list, tuple)) else [given])
        if any(isinstance(item, (list, tuple)) for item in maps):
            raise ShapeError(
                "This call brings several pictures for one, an editing mode in which retom does "
                "not know the tokens. Switch merging off for it: handle.enabled = False."
            )
        shape = tuple(maps[0].shape[:-1] if self.channels_last else maps[0].shape)
        listed = given is not maps[0]
        if len(shape) < 4:
            raise ShapeError(
                f"The denoiser was given tokens of shape {tuple(maps[0].shape)}, not a feature "
                "map, so retom cannot tell height and width. Pass (batch, channels, height, width)."
            )
        sizes = {
            tuple(item.shape[-3:-1] if self.channels_last else item.shape[-2:]) for item in maps
        }
        if len(sizes) > 1:
            raise ShapeError(
                f"The pictures of one call have different sizes, {sorted(sizes)}, and retom plans "
                "for one grid. Draw them one at a time."
            )
        frames = shape[-3] if listed or self.channels_last or len(shape) >= 5 else 1
        if frames != 1:
            raise ShapeError(
                f"The denoiser was given {frames} frames. retom merges in pictures, not in videos."
            )
        ((height, width),) = sizes
        return self.of_size(height, width, config)

    def of_size(self, height: int, width: int, config: object) -> Grid:
        """The grid of a latent of height x width."""
        side = _side(self.patch, config)
        return Grid(height // side, width // side)


@dataclass(frozen=True, slots=True)
class Shapes:
    """The caller passes (frames, height, width) in tokens as whole numbers.

    Args:
        argument: The denoiser's argument: one (frames, height, width), or one for each picture of
            the batch, or a list for each of them with the picture and its references.
        picture: Where in such a list the picture is: 0 for the first, -1 for the last.
    """

    argument: str = "img_shapes"
    picture: int = 0
    reads_values: ClassVar[bool] = False

    def __call__(self, bound: Bound, config: object) -> Grid:
        """The grid of the pictures that are drawn.

        Raises:
            ShapeError: They have different sizes, or several frames.
        """
        given = bound[self.argument]
        entries = [given] if isinstance(given[0], int) else list(given)
        targets = [e if isinstance(e[0], int) else e[self.picture] for e in entries]
        sizes = {tuple(int(side) for side in target) for target in targets}
        if len(sizes) > 1 or next(iter(sizes))[0] != 1:
            raise ShapeError(
                f"retom plans for one picture size and one frame; {self.argument} speaks of "
                f"{sorted(sizes)} (frames, height, width). Draw them one at a time."
            )
        ((_, height, width),) = sizes
        return Grid(height, width)


@dataclass(frozen=True, slots=True)
class Ids:
    """Tokens come packed, with (..., row, column) of each.

    Tokens of reference pictures follow; their ids differ in the entries before row and column.

    Args:
        argument: The denoiser's argument, (S, D) or (B, S, D), on any device.
        row: Entry of an id with the row; the column is the next one.
        text: The argument whose tokens stand before the picture's in the ids, (B, T, C); None where
            the ids are the picture's alone.
        last: Whether the picture's ids are the last, whatever stands before them.
    """

    argument: str = "img_ids"
    row: int = 1
    text: str | None = None
    last: bool = False
    reads_values: ClassVar[bool] = True

    def __call__(self, bound: Bound, config: object) -> Grid:
        """The grid of the picture that is drawn; waits for the device of the ids.

        Raises:
            ShapeError: The ids do not begin, or end, with a whole grid in raster order, or end with
                others in another item of the batch.
        """
        given = cast("Tensor", bound[self.argument]).detach()
        ids = given[0] if given.ndim == 3 else given
        if self.text is not None:
            ids = ids[cast("Tensor", bound[self.text]).shape[1] :]
        places = cast("list[list[float]]", ids.tolist())
        row, column = self.row, self.row + 1
        of_picture, count = places[-1] if self.last else places[0], 0
        for place in reversed(places) if self.last else places:
            if place[:row] != of_picture[:row] or place[column + 1 :] != of_picture[column + 1 :]:
                break
            count += 1
        is_text = self.last and count == 1 < len(places)
        start = len(places) - count if self.last else 0
        places = places[start : start + count]
        first = places[0]
        width = 1
        while width < count and places[width][row] == first[row]:
            width += 1
        height = count // width
        raster = [(place[row] - first[row], place[column] - first[column]) for place in places]
        if is_text or raster != [(y, x) for y in range(height) for x in range(width)]:
            raise ShapeError(
                f"{self.argument} does not {'end' if self.last else 'begin'} with a whole grid in "
                "raster order, so retom cannot tell height and width. Name them in tokens: "
                "handle.set_grid(height, width)."
            )
        if self.last and given.ndim == 3 and not bool((given[1:, start:] == ids[start:]).all()):
            raise ShapeError(
                f"{self.argument} ends with other positions in one picture of the batch than in "
                "another, and retom plans for one grid. Draw them one at a time."
            )
        return Grid(height, width)


GridRule = FeatureMap | Shapes | Ids


def _side(patch: int | str, config: object) -> int:
    if isinstance(patch, int):
        return patch
    side = getattr(config, patch, None)
    if isinstance(side, (tuple, list)):
        side = cast("Sequence[int]", side)[-1]
    return int(cast("int", side)) if side is not None else 1
