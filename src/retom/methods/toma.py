"""ToMA, token merge with attention (Lu et al., ICML 2025, arXiv:2509.10918)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

import torch

from retom.allocation import num_removed
from retom.checks import check_choice
from retom.errors import ConfigError
from retom.grid import Grid, Windows, check_window
from retom.matrix_plan import MatrixPlan
from retom.methods.matching import Matching, products
from retom.representative import unit_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from retom.hints import Hints

Inverse = Literal["transpose", "pseudo_inverse"]
INVERSES: tuple[str, ...] = get_args(Inverse)


@dataclass(frozen=True, kw_only=True)
class ToMA(Matching):
    """Greedy choice of destinations that cover a window, then a linear merge by attention.

    In every window destinations are chosen one after another, each the token that adds most to
    Σ_i max_d cos(x_i, x_d), the facility location function, which is submodular: greedy choice is
    within 1 - 1/e of the best. The first is ReToM's representative. Each token then divides itself
    among its window's destinations by a softmax of cosine / ``temperature``. With A these shares, a
    merged token is the mean of the tokens by its row of A, M = A / (row sums), and a token gets
    back its shares of the outputs, Aᵀ, or with ``inverse="pseudo_inverse"`` what M⁺ gives.

    For windows of t tokens that keep k: O(N t C) for similarities, O(N t k) for the choice, in k
    steps one after another, and O(N k C) for each merge and un-merge, in every layer. A window as
    large as the grid is the paper's global form, O(N K C).

    How many of R each window gives up is spread evenly, by sizes alone. Each item of a batch is
    planned on its own, where the authors' code plans from the first.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        window: (height, width) of the regions in tokens.
        temperature: Of the softmax, over 0; near 0 each token joins one destination. Ours.
        inverse: How to un-merge: ``transpose`` or ``pseudo_inverse``.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str] = "toma"

    window: tuple[int, int] = (4, 4)
    temperature: float = 0.1
    inverse: Inverse = "transpose"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "window", check_window(self.window))
        if type(self.temperature) not in (int, float) or not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature is a number over 0; {self.temperature!r} was given.")
        check_choice("inverse", self.inverse, INVERSES)

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R = floor(ratio N).

        Raises:
            BudgetError: The windows of ``grid`` cannot give up that many tokens.
        """
        return num_removed(self.ratio, Windows.over(grid, self.window))

    def match(self, x: Tensor, grid: Grid, budget: int, hints: Hints) -> MatrixPlan:
        """Choose destinations window by window, and the shares of every token in them."""
        # No larger than the grid: every slot costs.
        height, width = min(self.window[0], grid.height), min(self.window[1], grid.width)
        windows = Windows(grid, height, width)
        unit = unit_tokens(x, windows)
        similarity = products(unit, unit)
        valid = windows.valid(x.device)
        quota = kept_by_window(windows, budget, x.device)
        chosen = greedy_cover(similarity, valid, most_kept(windows, budget))
        filler = torch.arange(chosen.shape[-1], device=x.device) >= quota[:, None]  # (W, k)

        to_chosen = similarity.gather(2, chosen[..., None].expand(-1, -1, -1, windows.area))
        logits = (to_chosen / self.temperature).masked_fill(filler[..., None], -torch.inf)
        shares = logits.softmax(dim=2) * valid[:, None]  # (B, W, k, area)
        mass = shares.sum(dim=-1)
        down = shares / mass.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
        if self.inverse == "transpose":
            up = shares.transpose(-1, -2)
        else:
            up = cast("Tensor", torch.linalg.pinv(down)) * ~filler[:, None]
        token = windows.token_index(x.device).expand(len(x), -1, -1).gather(2, chosen)
        token = token.masked_fill(filler, grid.num_tokens)
        return MatrixPlan.build(windows, token, grid.num_tokens - budget, down, up, mass)


def kept_by_window(windows: Windows, budget: int, device: torch.device) -> Tensor:
    """How many tokens each window keeps when ``budget`` go, int64 (num_windows,).

    The tokens that go are spread as evenly over the tokens that may go as whole numbers allow.
    """
    sizes = windows.valid(device).sum(dim=-1)
    before = torch.cumsum(sizes - 1, dim=0) * budget
    spread = before // max(1, windows.grid.num_tokens - windows.count)
    return sizes - torch.diff(spread, prepend=spread.new_zeros(1))


def most_kept(windows: Windows, budget: int) -> int:
    """An upper bound of :func:`kept_by_window` from sizes alone, without a look at the tensor."""
    may_go = windows.grid.num_tokens - windows.count
    return windows.area - (windows.area - 1) * budget // max(1, may_go)


def greedy_cover(similarity: Tensor, valid: Tensor, count: int) -> Tensor:
    """Choose ``count`` slots in each window by greedy facility location.

    Args:
        similarity: Cosines between the slots of each window, float32 (B, W, area, area).
        valid: Which slots hold a token, bool (W, area).
        count: How many, at most area. Where a window has fewer tokens the rest is arbitrary.

    Returns:
        Slots in the order of choice, int64 (B, W, count). Ties go to the lowest slot. Two tokens
        that are each other's nearest gain the same, so what rounding may tell apart is a tie too.
    """
    rounding = 1e-6 * similarity.shape[-1]
    covered = torch.full_like(similarity[..., 0], -1.0)  # the least that a cosine can be
    free = valid.expand(covered.shape)
    chosen: list[Tensor] = []
    for _ in range(count):
        gain = (similarity - covered[:, :, None]).clamp_min(0.0) * valid[:, None]
        total = gain.sum(dim=-1).masked_fill(~free, -torch.inf)
        behind = total < total.amax(dim=-1, keepdim=True) - rounding
        best = (free & ~behind).to(torch.int8).argmax(dim=-1, keepdim=True)
        chosen.append(best)
        free = free.scatter(2, best, value=False)
        reach = similarity.gather(2, best[..., None].expand(-1, -1, 1, similarity.shape[-1]))
        covered = torch.maximum(covered, reach.squeeze(2))
    return torch.cat(chosen, dim=-1)
