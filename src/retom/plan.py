"""A plan says which tokens stay, and which kept token stands for every other one.

It is made once for a level and used by all layers of that level: ``merge`` before a costly layer,
``unmerge`` after it. A plan holds index tensors only; it knows nothing of how they were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch.nn.functional import embedding_bag

from retom.ordering import lowest_first
from retom.token_plan import TokenPlan, repeated_rows

if TYPE_CHECKING:
    from torch import Tensor

MergeMode = Literal["mean", "representative", "norm_mean"]
MERGE_MODES: tuple[str, ...] = get_args(MergeMode)


@dataclass(frozen=True, slots=True, eq=False)
class Plan(TokenPlan):
    """Maps between N tokens and K kept tokens, of a fixed size, for each item of a batch.

    Kept tokens stand in raster order of their positions. With members(k) the tokens that a kept
    token k stands for, itself among them, ``merge`` gives

    - ``mean``: the mean of members(k);
    - ``representative``: the kept token itself, a pure gather;
    - ``norm_mean``: the direction of the mean with the mean length of the members, so that
      averaging does not shrink tokens (the concern of ToFu's MLERP, arXiv:2312.01026, which takes
      the largest length instead).

    A token that stands only for itself passes through every mode bit-exact. Everything is
    differentiable in the tokens and free of host synchronisation. Index tensors are int64; *rows*
    count through the batch, b N + i, because one ``index_select`` of whole rows is several times
    faster than a ``gather`` with an index for every channel.

    Attributes:
        kept: Token index of every kept token, (B, K), ascending.
        slot: Position among the kept tokens of the one that stands for a token, (B, N).
        kept_rows: Rows of the kept tokens among the tokens, (B K,).
        slot_rows: Rows among the merged tokens that un-merging copies, (B N,).
        member_rows: Rows of the tokens, members of one kept token next to each other, (B N,).
        member_start: Where the members of each kept token begin in ``member_rows``, (B K,).
        mode: How members become one token.
    """

    kept: Tensor
    slot: Tensor
    kept_rows: Tensor
    slot_rows: Tensor
    member_rows: Tensor
    member_start: Tensor
    mode: MergeMode

    @staticmethod
    def build(removed: Tensor, target: Tensor, mode: MergeMode) -> Plan:
        """Build a plan from the tokens that go and the tokens that they join.

        Args:
            removed: Tokens to remove, int64 (B, R), distinct within a row.
            target: For every token, the token that stands for it if it goes, int64 (B, N). The
                target of a removed token must itself be kept; entries of kept tokens are not read.
            mode: One of ``mean``, ``representative``, ``norm_mean``.
        """
        batch, num_tokens = target.shape
        num_kept = num_tokens - removed.shape[1]
        goes = torch.zeros_like(target, dtype=torch.bool).scatter(1, removed, value=True)
        token = torch.arange(num_tokens, device=target.device).expand(batch, -1)
        own_slot = torch.cumsum(~goes, dim=1) - 1
        slot = own_slot.gather(1, torch.where(goes, target, token))
        # Each kept token goes to its place; one place more takes all that do not stay.
        places = own_slot.masked_fill(goes, num_kept)
        kept = target.new_empty(batch, num_kept + 1).scatter(1, places, token)[:, :num_kept]
        ends = torch.zeros_like(kept).scatter_add(1, slot, torch.ones_like(slot)).cumsum(dim=1)
        start = torch.nn.functional.pad(ends[:, :-1], (1, 0))
        item = torch.arange(batch, device=target.device)[:, None]
        return Plan(
            kept=kept,
            slot=slot,
            kept_rows=(kept + item * num_tokens).reshape(-1),
            slot_rows=(slot + item * num_kept).reshape(-1),
            member_rows=(lowest_first(slot) + item * num_tokens).reshape(-1),
            member_start=(start + item * num_tokens).reshape(-1),
            mode=mode,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens before merging, N."""
        return self.slot.shape[1]

    @property
    def sizes(self) -> Tensor:
        """Number of members of every kept token, itself among them, int64 (B, K)."""
        ends = torch.nn.functional.pad(self.member_start[1:], (0, 1), value=self.slot.numel())
        return (ends - self.member_start).reshape(self.kept.shape)

    @property
    def alone(self) -> Tensor:
        """Which tokens stand only for themselves, bool (B, N)."""
        return self.sizes.gather(1, self.slot) == 1

    @property
    def log_sizes(self) -> Tensor:
        """Logarithm of the number of members of every kept token, float32 (B, K)."""
        return self.sizes.float().log()

    def merge(self, x: Tensor) -> Tensor:
        """Merge tokens (B, N, C) into (B, K, C) of the same dtype.

        Raises:
            ShapeError: ``x`` is not (B, N, C) for this plan's B and N.
        """
        self.check(x, self.num_tokens, "merge")
        rows = x.reshape(-1, x.shape[-1])
        if self.mode == "representative":
            merged = rows.index_select(0, self.kept_rows)
        elif self.mode == "mean":
            merged = self._mean(rows)
        else:
            merged = self._norm_mean(rows)
        return merged.reshape(self.batch_size, self.num_kept, x.shape[-1])

    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """Spread merged tokens (B, K, C) back to (B, N, C): each token copies its kept token.

        Raises:
            ShapeError: ``y`` is not (B, K, C) for this plan's B and K.
        """
        self.check(y, self.num_kept, "unmerge")
        rows = y.reshape(-1, y.shape[-1]).index_select(0, self.slot_rows)
        return rows.reshape(self.batch_size, self.num_tokens, y.shape[-1])

    def repeated(self, batch: int) -> Plan:
        """See :meth:`TokenPlan.repeated`."""
        if batch == 1:
            return self
        num_tokens, num_kept = self.num_tokens, self.num_kept
        return Plan(
            kept=self.kept.expand(batch, -1),
            slot=self.slot.expand(batch, -1),
            kept_rows=repeated_rows(self.kept_rows, batch, num_tokens),
            slot_rows=repeated_rows(self.slot_rows, batch, num_kept),
            member_rows=repeated_rows(self.member_rows, batch, num_tokens),
            member_start=repeated_rows(self.member_start, batch, num_tokens),
            mode=self.mode,
        )

    def _mean(self, rows: Tensor) -> Tensor:
        """Mean of the members of every kept token, (B N, C) -> (B K, C), accumulated in float32.

        An embedding bag reads each row once and writes each mean once, in a fixed order on every
        device; gathering and scatter-adding moves three times the memory, with atomics on CUDA.
        On a CPU its sums have the dtype of the rows, and those of float16 would overflow.
        """
        if rows.dtype == torch.float16 and rows.device.type == "cpu":
            return self._mean(rows.float()).half()
        return embedding_bag(self.member_rows, rows, self.member_start, mode="mean")

    def _norm_mean(self, rows: Tensor) -> Tensor:
        precise = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = self._mean(precise)
        length = cast("Tensor", torch.linalg.vector_norm(precise, dim=-1, keepdim=True))
        shrunk = cast("Tensor", torch.linalg.vector_norm(mean, dim=-1, keepdim=True))
        # A mean so short that its square vanishes has no length to compare, and stays as it is.
        scale = self._mean(length) / shrunk.clamp_min(torch.finfo(torch.float32).tiny)
        scale = torch.where(shrunk > 0, scale, torch.ones_like(scale))
        return (mean * scale).to(rows.dtype)
