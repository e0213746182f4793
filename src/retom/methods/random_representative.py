"""A random token as the window's representative, a baseline: tomesd's draw, matched locally."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.checks import check_seed
from retom.methods.local import LocalMethod

if TYPE_CHECKING:
    from torch import Tensor

    from retom.bands import Band


@dataclass(frozen=True, kw_only=True)
class RandomRepresentative(LocalMethod):
    """The representative of a window is a random one of its tokens, fixed by ``seed``.

    The draw depends on the partition and the seed alone: every call, every step and every item of a
    batch gets the same one, so the method stays deterministic. Everything else is as in
    :class:`retom.methods.ReToM`. A baseline for comparisons: the draw is made on the CPU in every
    plan.

    Args:
        seed: Which draw, a whole number of at least 0.
    """

    name: ClassVar[str] = "random_representative"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)

    def elect(self, unit: Tensor, band: Band, eligible: Tensor | None) -> Tensor:
        """The slot of the highest of the window's random numbers."""
        generator = torch.Generator().manual_seed(self.seed)
        size = (band.partition.count, band.partition.area)
        draw = torch.rand(size, generator=generator)[band.places].to(unit.device)
        if eligible is not None:
            draw = draw.masked_fill(~eligible, -torch.inf)
        return draw.argmax(dim=-1).expand(unit.shape[0], -1)
