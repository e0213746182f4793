"""What all methods with local windows share: representatives in, plan out.

A method of this family differs from another only in how it elects the representative of a window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

import torch

from retom.allocation import (
    ALLOCATIONS,
    Allocation,
    allocate,
    check_budget_left,
    eligible_slots,
    leaning,
    most_removable,
    num_removed,
)
from retom.candidates import nearest_representative
from retom.checks import check_choice, check_kv_lean, check_ratio
from retom.errors import ConfigError
from retom.grid import Grid, Windows
from retom.hints import NO_HINTS, Hints
from retom.linear_plan import LinearPlan
from retom.methods.window import WindowSize, check_window_size, window_of
from retom.multiscale import TwoScales, allocate_two_scales
from retom.plan import MERGE_MODES, MergeMode, Plan
from retom.rematch import most_similar_kept
from retom.soft_plan import SoftPlan
from retom.split_plan import SplitPlan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.bands import Band
    from retom.token_plan import TokenPlan


LOCAL_ALLOCATIONS: tuple[str, ...] = (*ALLOCATIONS, "multiscale")
NESTED = ("similarity", "coherence")
"""Allocations whose tokens stand in one order, however many of them go."""
Unmerge = Literal["auto", "linear", "similarity", "copy"]
UNMERGES: tuple[str, ...] = get_args(Unmerge)


@dataclass(frozen=True, kw_only=True)
class LocalMethod(ABC):
    """Merging inside local windows around one representative a window.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1. 0 bypasses merging altogether.
            Exactly floor(ratio N) tokens go; a window of m tokens can give up m - 1.
        window: (height, width) of a window in tokens. Windows at the right and bottom edge are
            smaller where the grid does not divide. ``auto``: 2x2 up to ratio 0.625, and larger ones
            above and on small odd grids, see :func:`retom.methods.window.window_for`.
        allocation: Which tokens go: ``similarity``, ``coherence`` or ``uniform``, see
            :func:`retom.allocation.allocate`; or ``multiscale``: windows of twice the height and
            width collapse where tokens are most alike, see :mod:`retom.multiscale`.
        reach: How many windows away a token may find its representative: 0 only in its own window,
            1 in the 3x3 windows around it, and so on.
        merge: How members become one token: ``mean``, ``representative`` or ``norm_mean``, see
            :class:`retom.plan.Plan`.
        alternate: Shift the windows by half a window whenever plans are renewed in a generation,
            and back, so that no fixed grid prints through.
        rematch: Once it is known which tokens go, let each join the most similar kept token beside
            it, be it a representative or not, see :mod:`retom.rematch`. Where keys merge apart from
            queries (``kv_lean``), queries alone: keys stay with their representatives.
        kv_lean: How far merging leans towards the keys and values of self-attention, 0 to 1, in
            scope ``attention``. Of the room that there is, min(R, most - R) with R the tokens to
            remove and ``most`` those that the windows can give up, this share goes: keys lose that
            many tokens more than R, and queries as many less. The layer computes on as many tokens
            in all, with fewer products of queries and keys. 0 merges both alike, as do all other
            scopes, layers whose projections are fused, and pictures with protected tokens. See
            :class:`retom.split_plan.SplitPlan`.
        unmerge: What a token gets back: ``linear``, the output of the token that it joined and, to
            first order, its own part, see :class:`retom.linear_plan.LinearPlan`; ``similarity``, a
            mixture of the outputs around it, see :class:`retom.soft_plan.SoftPlan`; or ``copy``,
            the output of the token that it joined. ``auto`` is ``linear`` wherever un-merging is
            given the tokens, as in every layer that retom merges, and ``copy`` where it is not.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str]
    weighs_by_size: ClassVar[bool] = True

    ratio: float = 0.5
    window: WindowSize = "auto"
    allocation: Allocation | Literal["multiscale"] = "similarity"
    reach: int = 1
    merge: MergeMode = "mean"
    alternate: bool = False
    rematch: bool = False
    unmerge: Unmerge = "auto"
    kv_lean: float = 0.6

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        object.__setattr__(self, "window", check_window_size(self.window))
        check_choice("allocation", self.allocation, LOCAL_ALLOCATIONS)
        check_choice("merge", self.merge, MERGE_MODES)
        if type(self.reach) is not int or self.reach < 0:
            raise ConfigError(
                "reach is a number of windows, a whole number of at least 0; "
                f"{self.reach!r} was given."
            )
        if self.allocation == "multiscale" and self.reach:
            raise ConfigError(
                "allocation='multiscale' needs reach=0: a representative around a token may vanish "
                f"in a large window; reach={self.reach} was given."
            )
        check_choice("unmerge", self.unmerge, UNMERGES)
        check_kv_lean(self.kv_lean)
        for option in ("alternate", "rematch"):
            if type(given := getattr(self, option)) is not bool:
                raise ConfigError(f"{option} is True or False; {given!r} was given.")

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R: a function of sizes alone.

        Raises:
            BudgetError: The windows of ``grid`` cannot give up that many tokens.
        """
        return self._budget(grid)[0]

    def removed_apart(self, grid: Grid) -> tuple[int, int]:
        """Queries, and keys and values, that go where they merge apart: twice R in all.

        Raises:
            BudgetError: See :meth:`num_removed`.
        """
        return leaning(*self._budget(grid), self.kv_lean)

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Refuse a mask that leaves too few tokens that may go.

        Args:
            protected: Tokens that must not go, bool (N,), on the CPU.
            grid: Height and width of the tokens.

        Raises:
            ConfigError: The allocation cannot protect tokens.
            BudgetError: The mask protects too many.
        """
        if self.allocation == "multiscale":
            raise ConfigError(
                "allocation='multiscale' cannot protect tokens: large windows collapse as a whole. "
                "Use allocation='similarity'."
            )
        check_budget_left(self.ratio, self.num_removed(grid), self._partitions(grid), protected)

    @torch.no_grad()
    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> TokenPlan:
        """Decide which tokens of ``x`` merge into which.

        Args:
            x: Tokens in raster order, any float dtype, (B, N, C) with N = grid.num_tokens.
                Similarities are computed in float32; ``x`` is not modified and no gradient flows
                through choices.
            grid: Height and width of the tokens.
            hints: Tokens that must not go, the turn, and what the plan is for. Whether enough may
                go is not checked here, where it would make the host wait, but by
                :meth:`check_protected`.

        Returns:
            A plan with exactly N - ``num_removed(grid)`` kept tokens for every item of the batch,
            each item planned on its own. With ``hints.apart`` and room to lean, one with the kept
            queries of :meth:`removed_apart`, and another one for keys in it.

        Raises:
            ShapeError: ``x`` does not have ``grid.num_tokens`` tokens.
            BudgetError: The ratio is out of the windows' reach.
        """
        grid.check_tokens(x)
        if hints.apart and hints.protected is None:
            queries, keys = self.removed_apart(grid)
        else:
            queries = keys = self.num_removed(grid)
        partitions = self._partitions(grid)
        windows = partitions[hints.turn % len(partitions)]
        fine = self._candidates(x, windows, hints)
        if self.allocation == "multiscale":
            scales = TwoScales(windows)
            coarse = self._candidates(x, scales.coarse, hints)

            def assign(budget: int) -> tuple[Tensor, Tensor]:
                return allocate_two_scales(scales, fine, coarse, budget)
        else:
            nearest = windows.token_order(fine[0])

            def assign(budget: int) -> tuple[Tensor, Tensor]:
                allocation = cast("Allocation", self.allocation)
                return allocate(allocation, fine[1], windows, budget), nearest

        of_keys, target = assign(keys)
        # One order of the tokens serves both, where it does not depend on how many go.
        nested = queries == keys or self.allocation in NESTED
        removed, joined = (of_keys[:, :queries], target) if nested else assign(queries)
        if self.rematch:
            joined = most_similar_kept(x, removed, joined, grid, hints.protected)
        groups = Plan.build(removed, joined, self.merge)
        plan: TokenPlan = groups
        unmerge = self.unmerge if hints.unmerges else "copy"
        if unmerge == "similarity":
            plan = SoftPlan.build(groups, x, grid)
        elif unmerge != "copy":
            plan = LinearPlan.build(groups, grid, needs_tokens=unmerge == "linear")
        if queries == keys:
            return plan
        return SplitPlan.build(plan, Plan.build(of_keys, target, self.merge))

    @abstractmethod
    def elect(self, unit: Tensor, band: Band, eligible: Tensor | None) -> Tensor:
        """Elect one representative in each window of a band.

        Args:
            unit: The band's unit tokens in window order, float32 (B, n, window_area, C).
            band: Which n windows they are; all of them, unless on a CPU.
            eligible: Which slots may be elected, bool (n, window_area), None for all.

        Returns:
            Slot of the representative in each window, int64 (B, n).
        """

    def _candidates(self, x: Tensor, windows: Windows, hints: Hints) -> tuple[Tensor, Tensor]:
        """The representative that each token would join, and the similarity to it."""
        if hints.protected is not None:
            eligible = eligible_slots(windows, hints.protected)
        else:
            eligible = windows.valid(x.device) if windows.is_ragged else None
        return nearest_representative(x, windows, self.reach, eligible, self.elect)

    def _budget(self, grid: Grid) -> tuple[int, int]:
        """Tokens to remove, R, and tokens that can go at most.

        Raises:
            BudgetError: R is more than that.
        """
        partitions = self._partitions(grid)
        most = min(self._most(windows) for windows in partitions)
        return num_removed(self.ratio, partitions[0], most), most

    def _partitions(self, grid: Grid) -> tuple[Windows, ...]:
        """The partitions that take turns."""
        windows = Windows.over(grid, cast("tuple[int, int]", window_of(self, grid)))
        return (windows, windows.shifted()) if self.alternate else (windows,)

    def _most(self, windows: Windows) -> int:
        """Tokens that can go at most."""
        if self.allocation == "multiscale":
            return TwoScales(windows).most
        return most_removable(windows)
