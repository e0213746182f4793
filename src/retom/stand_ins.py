"""Values that a model asks for while it runs on the meta device, where there are none.

Some can be answered: how many tokens each expert of a mixture gets, which does not change what a
call costs, since each token goes to as many experts whichever they are; sizes that a model puts
into a tensor and reads again; how long a prompt is that comes with a mask; and which rows a mask
picks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable

_COUNTS = (torch.bincount, torch.Tensor.bincount)
_PICKS = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
_SUMS = (torch.sum, torch.Tensor.sum)
_NUMBERS = "_retom_numbers"


def without_numbers(value: torch.Tensor) -> torch.Tensor:
    """The same tensor on the meta device.

    Whole numbers and masks are remembered, so that their sums can be read under :class:`StandIns`.
    """
    hollow = value.to("meta")
    if not value.is_meta and not value.is_floating_point() and not value.is_complex():
        setattr(hollow, _NUMBERS, value)
    return hollow


class StandIns(TorchFunctionMode):
    """While it is entered, counts and sizes on the meta device are answered on the CPU.

    ``bincount`` answers as if all values were 0: the first expert gets all tokens. ``torch.tensor``
    of a list of whole numbers, asked for on the meta device, is made on the CPU. ``tolist`` of the
    ``sum`` of a tensor of :func:`without_numbers` is that of its numbers, and a mask of those picks
    what its numbers pick.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own signature
        """Answer, or let torch do it."""
        given = kwargs or {}
        if func in _COUNTS:
            values = cast("torch.Tensor", args[0])
            if values.is_meta:
                return torch.tensor([values.numel()])
        numbers = getattr(args[0], _NUMBERS, None) if args else None
        if numbers is not None and func in _SUMS:
            total = func(*args, **given)
            setattr(total, _NUMBERS, func(numbers, *args[1:], **given))
            return total
        if numbers is not None and func is torch.Tensor.tolist:
            return numbers.tolist()
        if func in _PICKS and hasattr(args[1], _NUMBERS):
            return func(args[0], getattr(args[1], _NUMBERS), *args[2:], **given)
        if func is torch.tensor and _is_sizes(args[0]) and _is_meta(given.get("device")):
            return func(*args, **{**given, "device": "cpu"})
        return func(*args, **given)


def _is_sizes(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    return all(type(item) is int for item in cast("list[object]", value))


def _is_meta(device: object) -> bool:
    return device is not None and torch.device(cast("Any", device)).type == "meta"
