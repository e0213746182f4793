"""Hooks on the layers of a block, for scopes that are smaller than it: self-attention and MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from retom.calls import Args, Kwargs, first_input, with_first_input, with_mask
from retom.in_flight import MergedLayer
from retom.refusals import has_fused_projections, refuse_chunks, refuse_fused_projections

if TYPE_CHECKING:
    from retom.level import LevelState, PlanSlot
    from retom.state import MergeState
    from retom.token_plan import TokenPlan

ATTENTION_MASK_POSITION = 2
"""Where ``attention_mask`` stands among the arguments of an attention layer."""


@dataclass(slots=True, eq=False)
class SiteHook:
    """What all hooks before a site's modules share.

    Attributes:
        state: The denoiser's.
        level: The site's.
        slot: The site's own plan.
        scopes: Scopes in which the hook does something.
    """

    state: MergeState
    level: LevelState
    slot: PlanSlot
    scopes: frozenset[str]

    def plan(self, module: nn.Module, args: Args, kwargs: Kwargs) -> TokenPlan | None:
        """The plan for the module's input; None where it passes as it is."""
        state = self.state
        if not state.running or self.level.method is None or state.config.scope not in self.scopes:
            return None
        # An MLP has no keys, nor need of any: the attention before it has made the plan.
        score = getattr(module, "to_k", None) if state.config.score == "keys" else None
        tokens = first_input(args, kwargs, "hidden_states")
        return state.plan_for(self.level, self.slot, tokens, score, apart=self.apart(module))

    def apart(self, module: nn.Module) -> bool:
        """Whether keys and values of the module may merge otherwise than its queries."""
        return False

    def with_attention_mask(
        self, args: Args, kwargs: Kwargs, plan: TokenPlan
    ) -> tuple[Args, Kwargs]:
        """A self-attention's arguments with the mask of the kept keys."""
        method = self.level.method
        weighted = method is not None and self.state.config.weighs(method)
        return with_mask(args, kwargs, ATTENTION_MASK_POSITION, plan, size_weighted=weighted)


@dataclass(slots=True, eq=False)
class AttentionHook(SiteHook):
    """What the hooks share that may plan for queries and keys apart.

    Attributes:
        softmax: Whether keys are weighed against each other, so that a merged one can weigh more.
    """

    softmax: bool

    def apart(self, module: nn.Module) -> bool:
        """See :func:`merges_apart`."""
        return merges_apart(self.state.config.scope, module, softmax=self.softmax)


@dataclass(slots=True, eq=False)
class MergeAttention(AttentionHook):
    """Before self-attention: replace its N tokens by K, and its mask by theirs."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(module, args, kwargs)
        if plan is None:
            return None
        tokens = first_input(args, kwargs, "hidden_states")
        merged = plan.merge(tokens)
        self.state.in_flight = MergedLayer(plan, tokens, merged)
        args, kwargs = with_first_input(args, kwargs, merged)
        if plan.keys is not plan:
            refuse_fused_projections(module)
            args, kwargs = _with_keys(args, kwargs, plan.keys.merge(tokens))
        return self.with_attention_mask(args, kwargs, plan.keys)


@dataclass(slots=True, eq=False)
class MergeMlp(SiteHook):
    """Before an MLP: replace its N tokens by K."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(module, args, kwargs)
        if plan is None:
            return None
        tokens = first_input(args, kwargs, "hidden_states")
        merged = plan.merge(tokens)
        self.state.in_flight = MergedLayer(plan, tokens, merged)
        return with_first_input(args, kwargs, merged)


@dataclass(slots=True, eq=False)
class UnmergeOutput:
    """After self-attention or an MLP: spread its K tokens back to N.

    Where the block needs its plan no more, it is dropped: the MLP that follows is where memory
    peaks. With gradients it stays until the block has noted it for a second run.

    Attributes:
        state: The denoiser's.
        slot: The site's own plan.
        last: Scopes in which no later module of the block merges.
    """

    state: MergeState
    slot: PlanSlot
    last: frozenset[str]

    def __call__(self, module: nn.Module, args: Args, output: Tensor) -> Tensor | None:
        config = self.state.config
        if config.refresh is None and config.scope in self.last and not torch.is_grad_enabled():
            self.slot.forget()
        layer = self.state.in_flight
        if not isinstance(layer, MergedLayer):
            return None
        self.state.in_flight = None
        return layer.plan.unmerge(output, layer.tokens, layer.merged)


@dataclass(slots=True, eq=False)
class MergeKeys(SiteHook):
    """Before self-attention: let all N tokens ask K merged ones, as text attention would."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        plan = self.plan(module, args, kwargs)
        if plan is None:
            return None
        refuse_fused_projections(module)
        tokens = first_input(args, kwargs, "hidden_states")
        args, kwargs = _with_keys(args, kwargs, plan.merge(tokens))
        return self.with_attention_mask(args, kwargs, plan)


@dataclass(slots=True, eq=False)
class PlanFromBlock(AttentionHook):
    """Before a transformer block: plan from its raw input for the layers inside.

    Scope ``block`` has no need of it: what it merges is the block's raw input.

    Attributes:
        attention: Name of the self-attention inside.
    """

    attention: str

    def apart(self, module: nn.Module) -> bool:
        """As for the self-attention inside."""
        return AttentionHook.apart(self, module.get_submodule(self.attention))

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.state.config.score == "block":
            self.plan(module, args, kwargs)


@dataclass(slots=True, eq=False)
class RefuseChunks(SiteHook):
    """Before a transformer block: its MLP must get all tokens at once if they merge there."""

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        state = self.state
        if state.running and self.level.method is not None and state.config.scope in self.scopes:
            refuse_chunks(module)


def _with_keys(args: Args, kwargs: Kwargs, tokens: Tensor) -> tuple[Args, Kwargs]:
    """A self-attention's arguments with tokens of their own for keys and values."""
    if len(args) > 1:
        return (args[0], tokens, *args[2:]), kwargs
    return args, {**kwargs, "encoder_hidden_states": tokens}


def merges_apart(scope: str, attention: nn.Module, *, softmax: bool) -> bool:
    """Whether keys and values of a self-attention may merge otherwise than its queries.

    In scope ``attention`` alone: an MLP that merges too wants all of the ratio.
    """
    return scope == "attention" and softmax and not has_fused_projections(attention)
