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
        importance: How much the halves of guidance differed at each token in the last call of this
            picture, float32 (B, N) on the device of the tokens, the same for both halves; None
            where that is not known.
        apart: Whether keys and values may merge otherwise than queries.
        unmerges: Whether anything is un-merged by the plan: keys and values alone are not, and need
            nothing of what un-merging takes.
    """

    protected: Tensor | None = None
    turn: int = 0
    importance: Tensor | None = None
    apart: bool = False
    unmerges: bool = True


NO_HINTS = Hints()
