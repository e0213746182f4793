"""Optimisers that work as one: Muon for the matrices of a network, AdamW for the rest.

Muon (Jordan and others, 2024, as torch ships it) makes all directions of an update equally long.
A network that learns hundreds of pictures one by one has many small directions, and AdamW at the
same batch and time was behind it, see the model card.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class MatrixOptimizer(torch.optim.Muon):
    """Muon on views of weights as matrices, so that it takes the kernels of convolutions too.

    Args:
        weights: Parameters of two dimensions or more, contiguous or with channels last; a kernel is
            a matrix with a row for each channel that it gives. In which order its columns stand
            makes no difference to an update.
        peak: Peak learning rate, on the scale of AdamW's.
    """

    def __init__(self, weights: Iterable[nn.Parameter], peak: float) -> None:
        self._weights = list(weights)
        self._matrices = [
            nn.Parameter(_as_stored(w, w.detach()).view(len(w), -1)) for w in self._weights
        ]
        group: Any = {"params": self._matrices, "peak": peak}
        super().__init__([group], weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:
        """Move the weights by the gradients that stand in them."""
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            gradient = weight.grad
            if gradient is not None:
                gradient = _as_stored(weight, gradient).reshape_as(matrix)
            matrix.grad = gradient
        super().step(closure)


def _as_stored(weight: Tensor, values: Tensor) -> Tensor:
    """Values of a weight's shape in the order in which its dimensions lie in memory."""
    return values if weight.is_contiguous() else values.movedim(1, -1)


class Together:
    """Several optimisers behind one face: the part of torch's interface that training uses.

    Args:
        parts: Their parameters do not overlap.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; to change their rates is to change the parts'."""
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        """Step all parts."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)
