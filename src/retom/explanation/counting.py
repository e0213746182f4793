"""FLOPs of a real call, by part of each block: torch's own counter on the meta device.

A multiply-add is two FLOPs. Matrix products, attention and convolutions count; element-wise work
does not, because memory and not arithmetic decides what it costs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.explanation.result import Flops
from retom.stand_ins import StandIns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

_PRODUCTS = re.compile(r"bmm|attention")
_MLP_NAME = re.compile(r"(^|_)(ff|mlp|feed_forward)")
_MLP_CLASS = re.compile(r"FeedForward|Mlp|MLP")


@dataclass(frozen=True, slots=True)
class Count:
    """FLOPs of one call.

    Attributes:
        total: Of the whole denoiser.
        blocks: Of each transformer block, by qualified name.
    """

    total: int
    blocks: dict[str, Flops]


def transformer_blocks(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a model of any family: the innermost ``...Block...`` classes with attention."""
    named = cast("Iterator[tuple[str, nn.Module]]", denoiser.named_modules())
    blocks = {n: m for n, m in named if n and "Block" in type(m).__name__ and _has_attention(m)}
    outer = {name for name in blocks for other in blocks if other.startswith(f"{name}.")}
    return {name: block for name, block in blocks.items() if name not in outer}


def count_call(
    denoiser: nn.Module, blocks: Mapping[str, nn.Module], inputs: dict[str, Any]
) -> Count:
    """Run the denoiser once on the meta device and count.

    Experts are counted by :class:`retom.stand_ins.StandIns`: as many for each token as it goes to.

    Args:
        denoiser: On the meta device.
        blocks: Transformer blocks by qualified name.
        inputs: Keyword arguments of the call.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), StandIns(), FlopCounterMode(display=False) as counter:
        denoiser(**inputs)
    counts = {
        name: {str(op): int(flops) for op, flops in ops.items()}
        for name, ops in counter.get_flop_counts().items()
    }
    root = type(denoiser).__name__
    return Count(
        total=int(counter.get_total_flops()),
        blocks={name: _parts(counts, f"{root}.{name}", block) for name, block in blocks.items()},
    )


def _parts(counts: dict[str, dict[str, int]], name: str, block: nn.Module) -> Flops:
    whole = sum(counts.get(name, {}).values())
    attention = projections = mlp = text = 0
    for child, module in _outermost(block):
        ops = counts.get(f"{name}.{child}", {})
        products = sum(flops for op, flops in ops.items() if _PRODUCTS.search(op))
        rest = sum(ops.values()) - products
        if not _is_attention(module):
            mlp += products + rest
        elif getattr(module, "is_cross_attention", False):
            text += products + rest
        else:
            attention += products
            projections += rest
    other = whole - attention - projections - mlp - text
    return Flops(attention, projections, mlp, text, other)


def _outermost(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Attention layers and MLPs of a block that are not inside of one another."""
    for name, child in module.named_children():
        if _is_attention(child) or _is_mlp(name, child, module):
            yield f"{prefix}{name}", child
        else:
            yield from _outermost(child, f"{prefix}{name}.")


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__
    return ("Attention" in name or "Attn" in name) and "Block" not in name and "Norm" not in name


def _is_mlp(name: str, module: nn.Module, parent: nn.Module) -> bool:
    """By class or by name; the output of a block whose MLP is no module of its own is half that."""
    if _MLP_CLASS.search(type(module).__name__) or _MLP_NAME.search(name):
        return True
    return name == "proj_out" and hasattr(parent, "proj_mlp")


def _has_attention(module: nn.Module) -> bool:
    return any(_is_attention(part) for part in module.modules())
