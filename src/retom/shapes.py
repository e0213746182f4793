"""Arguments of a call without their data: what is needed to count a layer's FLOPs later."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def as_shapes(value: Any) -> Any:  # noqa: ANN401 - any nest of arguments
    """A copy in which every tensor is on the meta device: shape and dtype, and no memory."""
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    if isinstance(value, dict):
        return {key: as_shapes(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (tuple, list)):
        items = [as_shapes(item) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    return value


def same_shapes(noted: Any, value: Any) -> bool:  # noqa: ANN401 - any nest of arguments
    """Whether :func:`as_shapes` of the value would give what was noted, as far as shapes go."""
    if isinstance(value, Tensor):
        return isinstance(noted, Tensor) and noted.shape == value.shape
    if isinstance(value, dict):
        held = cast("dict[Any, Any]", value)
        return isinstance(noted, dict) and all(
            same_shapes(noted.get(k), v) for k, v in held.items()
        )
    if isinstance(value, (tuple, list)):
        items = cast("list[Any]", value)
        if not isinstance(noted, (tuple, list)):
            return False
        others = cast("list[Any]", noted)
        return len(others) == len(items) and all(map(same_shapes, others, items))
    return True
