"""The window's corner as its representative: what a plain stride would keep. A baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.methods.local import LocalMethod
from retom.representative import first_eligible

if TYPE_CHECKING:
    from torch import Tensor

    from retom.bands import Band


@dataclass(frozen=True, kw_only=True)
class WindowCorner(LocalMethod):
    """The representative of a window is its first token, whatever the tokens are.

    Everything else is as in :class:`retom.methods.ReToM`, so a difference between the two is the
    worth of electing a representative.
    """

    name: ClassVar[str] = "window_corner"

    def elect(self, unit: Tensor, band: Band, eligible: Tensor | None) -> Tensor:
        """The first slot of every window that may be elected."""
        if eligible is None:
            return torch.zeros(unit.shape[:2], dtype=torch.int64, device=unit.device)
        return first_eligible(eligible).expand(unit.shape[0], -1)
