"""Merging that costs nothing: the bound that every method is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.allocation import num_asked
from retom.errors import ConfigError
from retom.hints import NO_HINTS, Hints
from retom.methods import ReToM
from retom.split_plan import SplitPlan
from retom.token_plan import TokenPlan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.methods.window import WindowSize


@dataclass(frozen=True, slots=True, eq=False)
class SlicePlan(TokenPlan):
    """Keep the first K tokens, and repeat them afterwards.

    Attributes:
        kept: 0 to K - 1, int64 (B, K).
        tokens: Tokens before merging, N.
    """

    kept: Tensor
    tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens before merging, N."""
        return self.tokens

    @property
    def log_sizes(self) -> Tensor:
        """Zeros, float32 (B, K): nobody stands for others."""
        return torch.zeros(self.kept.shape, device=self.kept.device)

    def merge(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, K, C): one copy, which saves each projection one of its own."""
        return x[:, : self.num_kept].contiguous()

    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """(B, K, C) -> (B, N, C): the K tokens over and over, one copy."""
        return y.repeat(1, -(-self.tokens // self.num_kept), 1)[:, : self.tokens]

    def pick(self, side: Tensor, dim: int, batch: int = 0) -> Tensor:
        """The first K entries along ``dim``: a view."""
        picked = side.narrow(dim, 0, self.num_kept)
        size = [-1] * side.ndim
        size[batch] = self.batch_size
        return picked.expand(size)

    def repeated(self, batch: int) -> SlicePlan:
        """The same for a batch."""
        return SlicePlan(self.kept[:1].expand(batch, -1), self.tokens)


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Merging that costs nothing and knows nothing: a bound on speed, no way to draw.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        kv_lean: How many more of them keys lose than queries, as in :class:`retom.ReToM` with
            windows of ``window``.
        window: (height, width), or ``auto`` as in :class:`retom.ReToM`.
    """

    name: ClassVar[str] = "oracle"

    ratio: float = 0.5
    kv_lean: float = 0.0
    window: WindowSize = "auto"

    def num_removed(self, grid: Grid) -> int:
        """R = floor(ratio N)."""
        return num_asked(self.ratio, grid)

    def removed_apart(self, grid: Grid) -> tuple[int, int]:
        """Queries, and keys and values, that go where they merge apart."""
        like = ReToM(ratio=self.ratio, window=self.window, kv_lean=self.kv_lean)
        return like.removed_apart(grid)

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Refuse: it looks at no token, and can spare none."""
        raise ConfigError("The oracle knows no tokens, and can protect none.")

    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> TokenPlan:
        """No look at ``x``."""
        queries = keys = self.num_removed(grid)
        if self.kv_lean and hints.apart:
            queries, keys = self.removed_apart(grid)
        plan = self._slice(x, grid, queries)
        return plan if keys == queries else SplitPlan.build(plan, self._slice(x, grid, keys))

    def _slice(self, x: Tensor, grid: Grid, removed: int) -> SlicePlan:
        first = torch.arange(grid.num_tokens - removed, device=x.device)
        return SlicePlan(first.expand(len(x), -1), grid.num_tokens)
