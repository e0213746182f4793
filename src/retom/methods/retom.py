"""ReToM: local representative token guided merging (Lee, Kim, Lee 2025, arXiv:2507.12771)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from retom.methods.local import LocalMethod
from retom.representative import most_similar_on_average

if TYPE_CHECKING:
    from torch import Tensor

    from retom.bands import Band


@dataclass(frozen=True, kw_only=True)
class ReToM(LocalMethod):
    """The representative of a window is its token most similar, on average, to the others.

    The paper gives the windows, the representative and the reuse of both; it publishes neither code
    nor window sizes, ratios or layers. Those are options here, and their defaults are measured, not
    the paper's. For the options see :class:`retom.methods.local.LocalMethod`.

    Example:
        >>> import torch
        >>> from retom.grid import Grid
        >>> plan = ReToM(ratio=0.5).plan(torch.randn(1, 16, 8), Grid(4, 4))
        >>> plan.num_kept
        8
    """

    name: ClassVar[str] = "retom"

    def elect(self, unit: Tensor, band: Band, eligible: Tensor | None) -> Tensor:
        """See :func:`retom.representative.most_similar_on_average`."""
        return most_similar_on_average(unit, band.windows, eligible)
