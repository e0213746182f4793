"""Plans that merge by the groups of a :class:`retom.plan.Plan`, and un-merge in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.token_plan import TokenPlan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.plan import Plan


class GroupedPlan(TokenPlan):
    """Merges as its plan does.

    Attributes:
        plan: The assignment.
    """

    __slots__ = ()

    plan: Plan

    @property
    def slot(self) -> Tensor:
        """Position among the kept tokens of the one that a token was merged into, (B, N)."""
        return self.plan.slot

    @property
    def num_tokens(self) -> int:
        """Tokens before merging, N."""
        return self.plan.num_tokens

    @property
    def log_sizes(self) -> Tensor:
        """Logarithm of the number of members of every kept token, float32 (B, K)."""
        return self.plan.log_sizes

    def merge(self, x: Tensor) -> Tensor:
        """See :meth:`retom.plan.Plan.merge`."""
        return self.plan.merge(x)
