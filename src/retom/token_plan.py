"""What hooks need of a plan, however it merges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch

from retom.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor


class TokenPlan(ABC):
    """Takes N tokens to K and back, both of a fixed size, for each item of a batch.

    Attributes:
        kept: Token index of the kept tokens, int64 (B, K), ascending: where the merged tokens stand
            in the sequence, and whose masks and positions they take.
    """

    __slots__ = ()

    kept: Tensor

    @property
    def batch_size(self) -> int:
        """Items of the batch that the plan was made for, B."""
        return self.kept.shape[0]

    @property
    def num_kept(self) -> int:
        """Tokens after merging, K."""
        return self.kept.shape[1]

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Tokens before merging, N."""

    @property
    @abstractmethod
    def log_sizes(self) -> Tensor:
        """Logarithm of how many tokens each kept one stands for, float32 (B, K)."""

    @abstractmethod
    def merge(self, x: Tensor) -> Tensor:
        """Merge tokens (B, N, C) into (B, K, C) of the same dtype.

        Raises:
            ShapeError: ``x`` is not (B, N, C) for this plan's B and N.
        """

    @abstractmethod
    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """Spread merged tokens (B, K, C) back to (B, N, C) of the same dtype.

        Args:
            y: What became of the merged tokens, (B, K, C).
            x: The tokens that merged, (B, N, D). Only a :class:`retom.linear_plan.LinearPlan` reads
                them.
            merged: ``merge(x)``, (B, K, D), where it is at hand: saves merging again.

        Raises:
            ShapeError: ``y`` is not (B, K, C) for this plan's B and K.
        """

    @abstractmethod
    def repeated(self, batch: int) -> TokenPlan:
        """The plan of one item, made for a batch of as many; a plan of another B is not asked."""

    @property
    def keys(self) -> TokenPlan:
        """What merges the keys and values of self-attention: this plan, unless they have another.

        See :class:`retom.split_plan.SplitPlan`.
        """
        return self

    @property
    def shared_kept(self) -> Tensor:
        """Token index of every kept token, (K,), where all items of the batch share the plan."""
        return self.kept[0]

    def pick(self, side: Tensor, dim: int, batch: int = 0) -> Tensor:
        """Entries of token-aligned data (a mask, position data) at the kept tokens, never averaged.

        Args:
            side: Any dtype, N entries along ``dim``, and B or 1 along ``batch``.
            dim: The token dimension.
            batch: The batch dimension.

        Returns:
            ``side`` with K entries along ``dim`` and B along ``batch``.

        Raises:
            ShapeError: ``side`` does not have N entries along ``dim``, or another batch.
        """
        if side.shape[dim] != self.num_tokens or side.shape[batch] not in (1, self.batch_size):
            raise ShapeError(
                f"pick expects {self.num_tokens} entries along dimension {dim} and a batch of 1 or "
                f"{self.batch_size}; a tensor of shape {tuple(side.shape)} was given."
            )
        rows = side.movedim((batch, dim), (0, 1))
        rows = rows.expand(self.batch_size, *rows.shape[1:])
        index = self.kept.reshape(*self.kept.shape, *[1] * (rows.ndim - 2))
        picked = rows.gather(1, index.expand(-1, -1, *rows.shape[2:]))
        return picked.movedim((0, 1), (batch, dim))

    def check(self, x: Tensor, num_tokens: int, verb: str) -> None:
        """Raise :class:`ShapeError` unless ``x`` is (B, ``num_tokens``, C)."""
        if x.ndim != 3 or x.shape[0] != self.batch_size or x.shape[1] != num_tokens:
            raise ShapeError(
                f"{verb} expects (batch, tokens, channels) with batch {self.batch_size} and "
                f"{num_tokens} tokens; a tensor of shape {tuple(x.shape)} was given."
            )


def repeated_rows(rows: Tensor, batch: int, step: int) -> Tensor:
    """Rows of one item, (M, ...), for a batch of items of ``step`` rows each: (batch M, ...)."""
    item = torch.arange(batch, device=rows.device).reshape(-1, *[1] * rows.ndim)
    return (rows + item * step).flatten(0, 1)
