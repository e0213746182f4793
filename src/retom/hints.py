"""What the running call tells a method besides its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Hints:
    """Facts about the call for which a plan is made.

    Attributes:
        protected: Tokens that must not go, bool (N,) on the device of the tokens; None for none.
        turn: How many times plans were renewed in this generation before, so that a method may
            alternate between two partitions.
    """

    protected: Tensor | None = None
    turn: int = 0


NO_HINTS = Hints()
