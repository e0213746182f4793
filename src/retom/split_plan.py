"""Two plans for one layer: queries merge by one of them, keys and values by the other.

A query that merges loses its own answer: its members share one output, which un-merging can mend
to first order at most. A key that merges loses next to nothing as long as it weighs as much as its
members did, because attention averages over keys anyway. So for the same number of tokens in all,
keys and values should give up more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retom.token_plan import TokenPlan

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SplitPlan(TokenPlan):
    """A plan of queries, which the layer's outputs follow, with another one for keys and values.

    Attributes:
        queries: What merges tokens that ask, and un-merges what they get.
        of_keys: What merges tokens that are asked.
        kept: See :class:`TokenPlan`; those of ``queries``.
    """

    queries: TokenPlan
    of_keys: TokenPlan
    kept: Tensor

    @staticmethod
    def build(queries: TokenPlan, of_keys: TokenPlan) -> SplitPlan:
        """Put two plans for the same tokens together."""
        return SplitPlan(queries=queries, of_keys=of_keys, kept=queries.kept)

    @property
    def keys(self) -> TokenPlan:
        """See :attr:`TokenPlan.keys`."""
        return self.of_keys

    @property
    def num_tokens(self) -> int:
        """Tokens before merging, N."""
        return self.queries.num_tokens

    @property
    def log_sizes(self) -> Tensor:
        """Logarithm of the number of members of every kept query, float32 (B, K)."""
        return self.queries.log_sizes

    def merge(self, x: Tensor) -> Tensor:
        """Merge queries, see :meth:`TokenPlan.merge`."""
        return self.queries.merge(x)

    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """Spread outputs, see :meth:`TokenPlan.unmerge`."""
        return self.queries.unmerge(y, x, merged)

    def repeated(self, batch: int) -> TokenPlan:
        """See :meth:`TokenPlan.repeated`."""
        return SplitPlan.build(self.queries.repeated(batch), self.of_keys.repeated(batch))
