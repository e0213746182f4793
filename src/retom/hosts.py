"""Merging in a host that retom does not hook itself: a program with patch points of its own.

A host brings tokens and their grid, and runs its layer on what comes back. It makes one
:class:`HostCall` for each call of its denoiser, so that nothing is kept between calls and nothing
is attached to its modules::

    call = HostCall(config)
    plan = call.plan(tokens, Grid(64, 64), apart=True)  # around a layer: merge, run, un-merge
    asking, asked = plan.merge(tokens), plan.keys.merge(tokens)
    given = attention(asking, asked, mask=size_bias(plan, tokens.dtype))
    output = plan.unmerge(given, tokens, asking)
    image = call.run_block(spec, arguments, block, Grid(64, 64))  # or around a whole block
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retom.config import SHARINGS
from retom.errors import ConfigError
from retom.hints import Hints
from retom.methods.local import LOCAL_ALLOCATIONS, UNMERGES
from retom.noise import check_noise_level
from retom.plan import MERGE_MODES
from retom.span import find_span, merge_call, unmerge_output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import Tensor

    from retom.config import Config
    from retom.grid import Grid
    from retom.models.spec import BlockSpec
    from retom.token_plan import TokenPlan

__all__ = ["CHOICES", "HostCall", "size_bias"]

CHOICES: dict[str, tuple[str, ...]] = {
    "allocation": LOCAL_ALLOCATIONS,
    "merge": MERGE_MODES,
    "unmerge": UNMERGES,
    "share": SHARINGS,
}
"""The words that an option takes, for a host that offers them to a person."""


class HostCall:
    """The plans of one call of a host's denoiser.

    With ``share="layer"`` every layer gets a plan of its own tokens; with ``share="level"`` the
    first layer of a level plans for the others of the same grid and batch. ``scope`` is the host's
    to carry out: :meth:`plan` for one around a layer, :meth:`run_block` for ``block``.

    Args:
        config: What merges, and on which levels.
        noise: The call's noise level, 1 for pure noise and 0 for the picture, as in
            :class:`retom.Rule`. Only a configuration that merges by noise needs it.

    Raises:
        ConfigError: The configuration needs what the host does not tell: the noise level, other
            calls, or a layer's keys; or the noise level is none.
    """

    def __init__(self, config: Config, *, noise: float | None = None) -> None:
        if config.refresh is not None or config.alternates or config.needs_guidance:
            raise ConfigError(
                "refresh, alternate and importance need to follow a whole picture, but a host of "
                "its own shows retom one call at a time. Use a configuration without them."
            )
        if noise is None and not config.steady:
            raise ConfigError(
                "This configuration merges by noise, and the noise level of the call was not told. "
                "Give HostCall(config, noise=...), 1 for pure noise and 0 for the picture, or use "
                "a configuration without noise and rules by noise."
            )
        if config.skip is not None:
            raise ConfigError(
                f"skip={config.skip!r} belongs to retom's own hooks, which time the layers or know "
                "them by name. In a host of its own use skip=None."
            )
        if config.score != "input":
            raise ConfigError(
                f"score={config.score!r} reads what only retom's own hooks see. In a host of its "
                "own plans compare the tokens that it hands over: use score='input'."
            )
        self.config = config
        self.noise = noise if noise is None or config.steady else check_noise_level(noise)
        self._shared: dict[tuple[int, Grid, int, bool], TokenPlan] = {}

    @property
    def merges(self) -> bool:
        """Whether anything may merge in this call, on whatever level."""
        named = {0, *self.config.named_levels}
        return any(self.merges_on(level) for level in (*named, max(named) + 1))

    def merges_on(self, level: int) -> bool:
        """Whether anything merges on a level in this call, 0 for the largest grid."""
        method = self.config.method_at(level, self.noise)
        return method is not None and method.ratio > 0

    def plan(
        self, tokens: Tensor, grid: Grid, *, level: int = 0, apart: bool = False
    ) -> TokenPlan | None:
        """The plan for a layer's tokens.

        Args:
            tokens: What is to merge, (B, N, C), in raster order.
            grid: Their height and width.
            level: The layer's, 0 for the largest grid.
            apart: Whether the host merges keys and values of a self-attention by the plan's
                ``keys``, which may be another plan than that of the queries (``kv_lean``).

        Returns:
            None where nothing is to remove; otherwise a plan with ``merge``, ``unmerge``, ``pick``
            and ``keys``.

        Raises:
            ShapeError: ``tokens`` are not those of ``grid``.
            BudgetError: The windows of ``grid`` cannot give up so many tokens.
        """
        grid.check_tokens(tokens)
        method = self.config.method_at(level, self.noise)
        if method is None or method.ratio == 0 or method.num_removed(grid) == 0:
            return None
        key = (level, grid, len(tokens), apart)
        plan = self._shared.get(key)
        if plan is None:
            hints = Hints(apart=apart, unmerges=self.config.scope != "kv")
            plan = method.plan(tokens, grid, hints)
            if self.config.share == "level":
                self._shared[key] = plan
        return plan

    def run_block(
        self,
        spec: BlockSpec,
        arguments: Mapping[str, Any],
        run: Callable[[dict[str, Any]], object],
        grid: Grid,
        *,
        references: int = 0,
    ) -> Any:  # noqa: ANN401 - as the block gives it
        """Run a block that is residual in its tokens on merged ones: x + U(g(M x) - M x).

        Args:
            spec: Where the image stands among the block's tokens and what is aligned with them.
            arguments: The block's arguments by name; they stay as they are.
            run: Runs the block on other arguments.
            grid: Height and width of the image's tokens.
            references: Tokens that follow the image's and do not merge.

        Returns:
            What ``run`` returned, with all N image tokens in it.

        Raises:
            ShapeError: The block has fewer tokens than the grid, or something aligned with them
                has.
            ConfigError: ``spec`` refuses one of the arguments.
            BudgetError: The windows of ``grid`` cannot give up so many tokens.
        """
        call = ((), dict(arguments))
        span = find_span(spec, (), call, grid.num_tokens, references)
        plan = self.plan(span.image, grid)
        if plan is None:
            return run(dict(arguments))
        (_, changed), merged = merge_call(spec, (), call, span, plan)
        if span.length == span.tokens.shape[1]:
            merged = merged.clone()  # a block may write into what it is given
        return unmerge_output(spec, run(changed), span, merged, plan)


def size_bias(plan: TokenPlan, dtype: torch.dtype) -> Tensor:
    """What to add to attention logits so that a merged token weighs as much as its members.

    Proportional attention of ToMe (arXiv:2210.09461).

    Args:
        plan: The plan that merged the keys.
        dtype: The queries'.

    Returns:
        The logarithm of each key's number of members, (B, 1, K), the same for every query.
    """
    return plan.keys.log_sizes.to(dtype)[:, None]
