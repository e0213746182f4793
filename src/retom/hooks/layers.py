"""Hooks on the layers of a block: self-attention and MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from retom.calls import Args, Kwargs, first_input, with_first_input, with_mask
from retom.errors import ConfigError

if TYPE_CHECKING:
    from retom.plan import Plan
    from retom.state import LevelState, MergeState

ATTENTION_MASK_POSITION = 2
"""Where ``attention_mask`` stands among the arguments of an attention layer."""


@dataclass(slots=True, eq=False)
class SiteHook:
    """What all hooks before a site's modules share.

    Attributes:
        state: The denoiser's.
        level: The site's.
        layer: Qualified name of the site.
        scopes: Scopes in which the hook does something.
    """

    state: MergeState
    level: LevelState
    layer: str
    scopes: frozenset[str]

    def plan(self, args: Args, kwargs: Kwargs) -> Plan | None:
        """The plan for the module's input; None where it passes as it is."""
        state = self.state
        if not state.running or self.level.method is None or state.config.scope not in self.scopes:
            return None
        return state.plan_for(self.level, self.layer, first_input(args, kwargs, "hidden_states"))

    def with_attention_mask(self, args: Args, kwargs: Kwargs, plan: Plan) -> tuple[Args, Kwargs]:
        """A self-attention's arguments with the mask of the kept tokens."""
        weighted = self.state.config.size_weighted
        return with_mask(args, kwargs, ATTENTION_MASK_POSITION, plan, size_weighted=weighted)


@dataclass(slots=True, eq=False)
class MergeInput(SiteHook):
    """Before self-attention or an MLP: replace its N tokens by K, and its mask by theirs."""

    takes_mask: bool

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(args, kwargs)
        if plan is None:
            return None
        tokens = first_input(args, kwargs, "hidden_states")
        self.state.in_flight = (plan, None, None)
        args, kwargs = with_first_input(args, kwargs, plan.merge(tokens))
        if self.takes_mask:
            return self.with_attention_mask(args, kwargs, plan)
        return args, kwargs


@dataclass(slots=True, eq=False)
class UnmergeOutput:
    """After self-attention or an MLP: spread its K tokens back to N."""

    state: MergeState

    def __call__(self, module: nn.Module, args: Args, output: Tensor) -> Tensor | None:
        if self.state.in_flight is None or self.state.in_flight[1] is not None:
            return None
        plan = self.state.in_flight[0]
        self.state.in_flight = None
        return plan.unmerge(output)


@dataclass(slots=True, eq=False)
class MergeKeys(SiteHook):
    """Before self-attention: let all N tokens ask K merged ones, as text attention would."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(args, kwargs)
        if plan is None:
            return None
        if getattr(module, "fused_projections", False):
            raise ConfigError(
                "scope='kv' needs separate projections for keys and values, but this model's are "
                "fused. Call unfuse_qkv_projections() first, or use scope='attention'."
            )
        tokens = first_input(args, kwargs, "hidden_states")
        kwargs = dict(kwargs)
        if len(args) > 1:
            args = (args[0], plan.merge(tokens), *args[2:])
        else:
            kwargs["encoder_hidden_states"] = plan.merge(tokens)
        return self.with_attention_mask(args, kwargs, plan)
