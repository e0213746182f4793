"""What is running on merged tokens, from the hook before it to the hook after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from retom.span import Span
    from retom.token_plan import TokenPlan


@dataclass(frozen=True, slots=True, eq=False)
class MergedLayer:
    """A self-attention or MLP that is running on merged tokens.

    Attributes:
        plan: Spreads its output back.
        tokens: Its tokens before merging, (B, N, C).
        merged: Those after it, (B, K, C).
    """

    plan: TokenPlan
    tokens: Tensor
    merged: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MergedBlock:
    """A transformer block that is running on merged tokens.

    Attributes:
        plan: Spreads back what the block adds.
        span: Its tokens before merging, and where the image stands among them.
        merged: The image's tokens after merging, (B, K, C).
    """

    plan: TokenPlan
    span: Span
    merged: Tensor
