"""What a pipeline can do, by its own signature."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retom.drawing.loading import Model


def takes_negative_prompt(model: Model) -> bool:
    """Whether there is text to steer away from."""
    return "negative_prompt" in inspect.signature(type(model.pipe).__call__).parameters
