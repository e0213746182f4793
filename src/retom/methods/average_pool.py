"""Average pooling: what merging is when neither tokens nor representatives are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from retom.methods.collapse import Collapse

if TYPE_CHECKING:
    from retom.plan import MergeMode


@dataclass(frozen=True, kw_only=True)
class AveragePool(Collapse):
    """Every window becomes the mean of its tokens. A baseline.

    Args:
        window: (height, width) in tokens. It fixes the ratio: (1, 2) removes a half, (2, 2) three
            quarters.
    """

    name: ClassVar[str] = "average_pool"
    mode: ClassVar[MergeMode] = "mean"
