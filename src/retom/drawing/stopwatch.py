"""Time what a denoiser's calls take, apart from the rest of a pipeline."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class DenoiserStopwatch:
    """Adds up the seconds of all calls of ``denoiser`` inside a ``with`` block, by two hooks.

    Enter it after merging is applied: the hooks of retom then count as part of a call.

    Args:
        denoiser: The network that is called at every step.
        device: Where it runs; an accelerator is waited for before each reading.
    """

    def __init__(self, denoiser: nn.Module, device: torch.device) -> None:
        self.seconds = 0.0
        self._denoiser = denoiser
        self._device = device
        self._began = 0.0
        self._removables: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._removables = [
            self._denoiser.register_forward_pre_hook(self._start, prepend=True),
            self._denoiser.register_forward_hook(self._stop),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for removable in self._removables:
            removable.remove()

    def now(self) -> float:
        """Seconds on a monotonic clock, once everything queued on the device is done."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return perf_counter()

    def _start(self, *_: object) -> None:
        self._began = self.now()

    def _stop(self, *_: object) -> None:
        self.seconds += self.now() - self._began
