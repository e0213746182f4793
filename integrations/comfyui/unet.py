"""UNets (SD 1.5, SD 2, SDXL): self-attention merges between its patch and its output patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retom import ConfigError, Grid, ShapeError
from retom.hosts import size_bias

from .running import KEY, MergedAttention, Running

if TYPE_CHECKING:
    from torch import Tensor

OVERRIDE = "optimized_attention_override"
"""The transformer option through which ComfyUI calls its attention function, if it is there."""


@dataclass(frozen=True)
class MergeAttention:
    """Before self-attention: K tokens for N, in queries, keys and values, or in these two alone."""

    keys_alone: bool
    weighs: bool

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ComfyUI's attn1_patch: the three inputs of self-attention, (B, N, C) each."""
        running: Running | None = extra_options.get(KEY)
        if running is None:
            return n, context, value
        running.attention = None  # of a layer that never ended
        grid = _grid(n, extra_options)
        level = running.level_of(grid)
        if not running.call.merges_on(level):
            return n, context, value
        plan = running.call.plan(n, grid, level=level)
        if plan is None:
            return n, context, value
        merged = plan.merge(n)
        own = context is n or context.shape[1] == n.shape[1]
        keys = merged if context is n else plan.merge(context) if own else context
        values = keys if value is context else plan.merge(value) if own else value
        # Where another node has brought keys of its own, queries merge alone.
        weighs = self.weighs and own
        running.attention = MergedAttention(
            plan, n, merged, unmerges=not self.keys_alone, weighs=weighs
        )
        return (n if self.keys_alone else merged), keys, values


@dataclass(frozen=True)
class UnmergeAttention:
    """After self-attention: N tokens for K."""

    def __call__(self, n: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """ComfyUI's attn1_output_patch."""
        running: Running | None = extra_options.get(KEY)
        merged = None if running is None else running.attention
        if running is None or merged is None:
            return n
        running.attention = None
        if merged.weighs and not merged.weighed and not _is_replaced(running, extra_options):
            raise ConfigError(
                "ReToM could not weigh merged tokens by their size: self-attention was not called "
                f"through {OVERRIDE}. Another node has taken that place, or this ComfyUI is older "
                "than it. Set size_weighted to off, or apply ReToM last."
            )
        if not merged.unmerges:
            return n
        if n.shape[1] != merged.plan.num_kept:
            raise ShapeError(
                f"Self-attention got {merged.plan.num_kept} merged tokens and gave {n.shape[1]}: "
                "another node changes tokens around it as well, such as TomePatchModel or "
                "HyperTile. Leave one of them out."
            )
        return merged.plan.unmerge(n, merged.tokens, merged.merged)


@dataclass(frozen=True)
class WeighBySize:
    """Around ComfyUI's attention function: a merged token weighs as much as its members.

    Attributes:
        previous: What another node had put there.
    """

    previous: Any = None

    def __call__(self, attention: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Call it on, with the sizes added to the mask where a merged self-attention runs."""
        running: Running | None = (kwargs.get("transformer_options") or {}).get(KEY)
        merged = None if running is None else running.attention
        if merged is not None and merged.weighs and not merged.weighed:
            merged.weighed = True
            args, kwargs = _weighted(args, kwargs, merged)
        if self.previous is not None:
            return self.previous(attention, *args, **kwargs)
        return attention(*args, **kwargs)


def _weighted(
    args: tuple[Any, ...], kwargs: dict[str, Any], merged: MergedAttention
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments (q, k, v, heads, mask, ...) with sizes in the mask."""
    bias = size_bias(merged.plan, args[0].dtype)
    positional = len(args) > 4
    mask = args[4] if positional else kwargs.get("mask")
    mask = bias if mask is None else mask + bias
    if positional:
        return (*args[:4], mask, *args[5:]), kwargs
    return args, {**kwargs, "mask": mask}


def _grid(n: Tensor, extra_options: dict[str, Any]) -> Grid:
    shape = extra_options.get("activations_shape")
    if shape is None:
        raise ConfigError(
            "This ComfyUI does not tell patches the size of the feature map (activations_shape in "
            "transformer_options). Update ComfyUI."
        )
    grid = Grid(*shape[-2:])
    if n.shape[1] != grid.num_tokens:
        raise ShapeError(
            f"Self-attention got {n.shape[1]} tokens on a {grid} feature map: another node has "
            "changed the tokens before ReToM, such as TomePatchModel or HyperTile. Leave one of "
            "them out."
        )
    return grid


def _is_replaced(running: Running, extra_options: dict[str, Any]) -> bool:
    """Whether another node computes this self-attention in its own way."""
    block = extra_options.get("block")
    if block is None:
        return False
    return block in running.replaced or (*block, extra_options["block_index"]) in running.replaced
