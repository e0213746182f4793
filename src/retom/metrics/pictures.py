"""Pictures as people have them, made into what metrics compute on: the one place of conversion.

One picture is a PIL image, a numpy array (height, width, 3) or a torch tensor (3, height, width);
several are a list of those, an array (B, height, width, 3) or a tensor (B, 3, height, width).
Arrays and tensors hold uint8 from 0 to 255, or floats from 0 to 1. Neither PIL nor numpy is
imported here: where they are not loaded, nobody can hold one of their objects.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from retom.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

Picture: TypeAlias = "Image | np.ndarray[Any, Any] | Tensor"
Pictures: TypeAlias = "Picture | list[Picture] | list[Image] | list[Tensor]"


def to_tensor(pictures: Pictures) -> Tensor:
    """Convert pictures to floats from 0 to 1; already such a tensor, they are not copied.

    Args:
        pictures: One or several, in any form that this module names. A list is several pictures
            of one size, even with a single entry.

    Returns:
        float32, (3, H, W) for one picture and (B, 3, H, W) for several, on the device of a given
        tensor, otherwise on the CPU.

    Raises:
        ShapeError: There are none, their sizes differ, or a shape, type, PIL mode or value is not
            one of those above. Nothing is clamped, and no transparency is dropped in silence.

    Example:
        >>> to_tensor(torch.full((3, 2, 2), 51, dtype=torch.uint8)).unique()
        tensor([0.2000])
    """
    if not isinstance(pictures, list):
        return _convert(pictures)
    converted = [_convert(picture) for picture in cast("list[Picture]", pictures)]
    if not converted:
        raise ShapeError("At least one picture is needed; an empty list was given.")
    for picture in converted:
        if picture.ndim != 3:
            raise ShapeError(
                f"A list holds single pictures; one entry is a batch, {tuple(picture.shape)}. "
                "Concatenate batches into one tensor or array."
            )
        if picture.shape != converted[0].shape:
            sizes = [f"{p.shape[1]}x{p.shape[2]}" for p in (converted[0], picture)]
            raise ShapeError(
                f"Pictures of one list have one size; {sizes[0]} and {sizes[1]} were given "
                "(height x width). Resize or crop them first."
            )
    return torch.stack(converted)


def to_pair(pictures: Pictures, reference: Pictures) -> tuple[Tensor, Tensor]:
    """Convert pictures and those they are compared with, one by one.

    Returns:
        Two tensors of one shape, as of :func:`to_tensor`.

    Raises:
        ShapeError: As :func:`to_tensor`, or the shapes differ.
    """
    x, y = to_tensor(pictures), to_tensor(reference)
    if x.shape != y.shape:
        raise ShapeError(
            f"Pictures are compared at one size; {tuple(x.shape)} and {tuple(y.shape)} were given."
        )
    return x, y


def in_batches(pictures: Pictures, batch_size: int) -> Iterator[Tensor]:
    """Convert pictures a few at a time, so that not all of them must be floats at once.

    Args:
        pictures: As for :func:`to_tensor`; one picture is a batch of one.
        batch_size: Pictures in a batch; the last may be smaller.

    Yields:
        float32 (b, 3, H, W) with b at most ``batch_size``.

    Raises:
        ShapeError: As :func:`to_tensor`, or ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ShapeError(f"batch_size must be at least 1; {batch_size} was given.")
    if not isinstance(pictures, list) and (
        _is(pictures, "PIL.Image", "Image") or _single(pictures)
    ):
        yield to_tensor(pictures)[None]
        return
    count = len(cast("list[Picture]", pictures))
    size = None
    for start in range(0, max(count, 1), batch_size):
        batch = to_tensor(cast("Pictures", cast("Any", pictures)[start : start + batch_size]))
        size = size or batch.shape[2:]
        if batch.shape[2:] != size:
            raise ShapeError(
                f"Pictures of one list have one size; {size[0]}x{size[1]} and "
                f"{batch.shape[2]}x{batch.shape[3]} were given (height x width). "
                "Resize or crop them first."
            )
        yield batch


def _single(pictures: object) -> bool:
    return getattr(pictures, "ndim", 4) == 3


def _is(given: object, module: str, name: str) -> bool:
    """Whether an object is of a class of a module that may not be installed."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(given, getattr(loaded, name))


def _convert(given: Picture) -> Tensor:
    if isinstance(given, torch.Tensor):
        x, layout = given, "(3, height, width) or (batch, 3, height, width)"
    elif _is(given, "PIL.Image", "Image"):
        x, layout = _from_pil(cast("Image", given)), "(3, height, width)"
    elif _is(given, "numpy", "ndarray"):
        array = torch.from_numpy(cast("np.ndarray[Any, Any]", given).copy())
        layout = "(height, width, 3) or (batch, height, width, 3)"
        if array.ndim not in (3, 4) or array.shape[-1] != 3 or array.numel() == 0:
            raise ShapeError(f"Pictures as arrays are {layout}; {tuple(array.shape)} was given.")
        x = array.movedim(-1, -3)
    else:
        raise ShapeError(
            "Pictures are PIL images, numpy arrays or torch tensors, or a list of them; "
            f"{type(given).__name__} was given."
        )
    if x.ndim not in (3, 4) or x.shape[-3] != 3 or x.numel() == 0:
        raise ShapeError(f"Pictures are tensors {layout}; {tuple(x.shape)} was given.")
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point():
        raise ShapeError(
            f"Pictures hold uint8 from 0 to 255 or floats from 0 to 1; {x.dtype} was given."
        )
    low, high = (float(bound) for bound in x.detach().aminmax())
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise ShapeError(
            f"Values of a picture are in [0, 1]; they range from {low:g} to {high:g} here."
        )
    return x.float()


def _from_pil(image: Image) -> Tensor:
    if image.mode not in ("RGB", "L"):
        raise ShapeError(
            f"PIL images are of mode RGB or L; {image.mode} was given. Put a transparent picture "
            'on a background, then convert it: image.convert("RGB").'
        )
    width, height = image.size
    values = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return values.reshape(height, width, 3).movedim(-1, 0)
