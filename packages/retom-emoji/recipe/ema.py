"""Exponential moving average of weights, which samples much better than the raw weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Follows the floating-point weights of some modules.

    Args:
        modules: What is followed, by name.
        decay: Largest share of the old average kept in one update. It starts low and rises, so
            that early averages are not dominated by the random start.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.modules = modules
        self.decay = decay
        self.updates = 0
        self.shadow: dict[str, Tensor] = {k: v.detach().clone() for k, v in self._named()}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    yield f"{name}.{key}", value

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = [value for _, value in self._named()]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average into the modules for the duration of a block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._named():
            kept = value.clone()
            value.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)
