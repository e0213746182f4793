"""Whether merging will pay here: one self-attention layer, un-merged and merged, in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from retom.benchmarking.oracle import Oracle
from retom.config import Config
from retom.evaluation.timing import ratio_estimate
from retom.grid import Grid
from retom.hosts import HostCall, size_bias
from retom.methods import ReToM
from retom.rounds import interleave, synchroniser

if TYPE_CHECKING:
    from collections.abc import Callable

    from retom.metrics.estimate import Estimate

GRID = Grid(64, 64)
"""The largest grid of a 512x512 picture of SD 1.5, and of a 1024x1024 one of SDXL."""

CHANNELS, HEADS = 320, 8
"""Of SD 1.5 on that grid."""

LEAST, MOST = 3, 25
"""Timed rounds, as many as fit into the time."""

CLEAR = 1.02
"""A speed-up below this is not worth a verdict of its own."""


@dataclass(frozen=True, slots=True)
class Paying:
    """What was measured.

    Attributes:
        device: Where.
        dtype: In what precision.
        unmerged_ms: Median of the layer as it is.
        merged_ms: Median with planning, merging, un-merging and the weights by size.
        speedup: Of the layer, with its 95 % interval over rounds.
        ceiling: The same with merging that costs nothing.
    """

    device: str
    dtype: str
    unmerged_ms: float
    merged_ms: float
    speedup: Estimate
    ceiling: Estimate

    @property
    def verdict(self) -> str:
        """In plain words."""
        if self.speedup.low > CLEAR:
            return (
                f"Merging pays here: half of the tokens make this layer {self.speedup.value:.2f} "
                f"times as fast (free merging: {self.ceiling.value:.2f}). What a whole picture "
                "gains depends on how much of it is attention at large grids: see retom explain."
            )
        if self.speedup.high < 1:
            return (
                f"Merging does not pay here on this layer: it takes {1 / self.speedup.value:.2f} "
                f"times as long (free merging would make it {self.ceiling.value:.2f} times as "
                "fast). Larger grids may pay: retom bench --scaling shows where it begins."
            )
        return (
            "No clear answer: this layer is about as fast merged as un-merged, or the machine is "
            "busy. Larger grids gain more: retom bench --scaling shows where it begins."
        )


class _SelfAttention(nn.Module):
    """A self-attention layer as UNets have it."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_k = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_v = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_out = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            projection(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for projection, tokens in ((self.to_q, x), (self.to_k, keys), (self.to_v, keys))
        )
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(y.transpose(1, 2).flatten(2))


def measure(device: torch.device, *, seconds: float = 4.0, grid: Grid = GRID) -> Paying:
    """Time a layer un-merged, merged at the default setting, and merged for nothing.

    Args:
        device: Where; float16 on accelerators, float32 on a CPU.
        seconds: About how long it may take.
        grid: Tokens of the layer.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    layer = _SelfAttention().to(device, dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, grid.num_tokens, CHANNELS), generator=generator).to(device, dtype)
    method = ReToM()
    oracle = Oracle(ratio=method.ratio, kv_lean=method.kv_lean)
    calls = {
        "unmerged": torch.no_grad()(lambda: layer(x, x, None)),
        "merged": _merged(layer, x, grid, Config(method=method)),
        "oracle": _merged(layer, x, grid, Config(method=oracle, size_weighted=False)),
    }
    wait = synchroniser(device)
    begin = time.perf_counter()
    interleave(calls, 1, warmup=1, synchronise=wait)
    once = (time.perf_counter() - begin) / 2
    rounds = min(MOST, max(LEAST, int(seconds / once)))
    taken = interleave(calls, rounds, warmup=0, synchronise=wait)
    return Paying(
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        unmerged_ms=1e3 * median(taken["unmerged"]),
        merged_ms=1e3 * median(taken["merged"]),
        speedup=ratio_estimate(taken["unmerged"], taken["merged"], "speed-up"),
        ceiling=ratio_estimate(taken["unmerged"], taken["oracle"], "speed-up"),
    )


def _merged(layer: nn.Module, x: Tensor, grid: Grid, config: Config) -> Callable[[], object]:
    """The layer with merging around it, its plan made anew in each call."""

    @torch.no_grad()
    def run() -> Tensor:
        plan = HostCall(config).plan(x, grid, apart=True)
        assert plan is not None
        mask = size_bias(plan, x.dtype)[:, None] if config.weighs_by_size else None
        queries = plan.merge(x)
        keys = queries if plan.keys is plan else plan.keys.merge(x)
        return plan.unmerge(layer(queries, keys, mask), x, queries)

    return run
