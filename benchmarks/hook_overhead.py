"""What do the hooks themselves cost? Microseconds for each layer or block that they stand around.

The models are so small that what they compute hardly counts: a UNet of SDXL's structure and a Flux
with 12 blocks, on 16 x 16 tokens and fewer. What is left beside the un-merged call is Python, and
on an accelerator launches. Merging also makes layers smaller, which is no cost: where it is on, the
oracle, which looks at nothing and slices, shows what of the difference is plan, merge and un-merge.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from record import caption, parser, progress, provenance, table, write_json
from sources import call, random_unet, unet_inputs
from torch import nn

import retom
from retom.benchmarking.oracle import Oracle
from retom.evaluation.timing import resampled_rounds
from retom.metrics.estimate import percentiles
from retom.rounds import interleave, synchroniser

ROUNDS = 101
CONFIGS: dict[str, retom.Config | None] = {
    "un-merged": None,
    "hooked, switched off": retom.Config(),
    "hooked, ratio 0": retom.Config(method=retom.ReToM(ratio=0)),
    "oracle": retom.Config(method=Oracle(), size_weighted=False),
    "the cheapest plan, shared by a level": retom.Config(
        method=retom.ReToM(reach=0, kv_lean=0), share="level", size_weighted=False
    ),
    "the defaults": retom.Config(),
}
FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 4,
    "num_single_layers": 8,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 6, 6),
}
SIDE = 16


def unet(seed: int, device: str) -> tuple[nn.Module, Callable[[], object]]:
    """70 self-attention layers, and a call of them."""
    model = random_unet("sdxl-narrow", device=device, seed=seed)
    given = unet_inputs(model, batch=1, height=SIDE, width=SIDE, seed=seed)
    return model, lambda: call(model, given)


def flux(seed: int, device: str) -> tuple[nn.Module, Callable[[], object]]:
    """12 blocks, and a call of them."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    model = FluxTransformer2DModel(**FLUX).eval().to(device)
    row, column = torch.arange(SIDE).repeat_interleave(SIDE), torch.arange(SIDE).repeat(SIDE)
    given = {
        "hidden_states": torch.randn(1, SIDE * SIDE, 16),
        "encoder_hidden_states": torch.randn(1, 8, 32),
        "pooled_projections": torch.randn(1, 32),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.stack([torch.zeros_like(row), row, column], dim=1).float(),
        "txt_ids": torch.zeros(8, 3),
    }
    given = {name: value.to(device) for name, value in given.items()}
    return model, torch.no_grad()(lambda: model(**given, return_dict=False))


MODELS = {"UNet of SDXL's structure": unet, "Flux": flux}


def measure(
    build: Callable[[int, str], tuple[nn.Module, Callable[[], object]]],
    rounds: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Time every configuration on a model of its own, in turns."""
    calls: dict[str, Callable[[], object]] = {}
    sites = 0
    for name, config in CONFIGS.items():
        model, calls[name] = build(seed, device)
        if config is not None:
            levels = "all" if hasattr(model, "down_blocks") else (0,)
            handle = retom.apply(model, config.with_options(levels=levels))
            handle.enabled = name != "hooked, switched off"
            if name == "the defaults":
                calls[name]()
                sites = sum(level.layers for level in handle.summary().levels)
    taken = interleave(calls, rounds, synchronise=synchroniser(device))
    base = torch.tensor(taken["un-merged"], dtype=torch.float64)
    draws = resampled_rounds(rounds, 2000, seed)
    found: dict[str, Any] = {"sites": sites, "unmerged_ms": 1e3 * median(taken["un-merged"])}
    found["rows"] = {}
    for name, seconds in taken.items():
        more = 1e6 * (torch.tensor(seconds, dtype=torch.float64) - base) / sites
        low, high = percentiles(more[draws].quantile(0.5, dim=1))
        value = float(more.quantile(0.5))
        found["rows"][name] = {"microseconds": value, "low": low, "high": high}
    return found


def main(argv: Sequence[str]) -> int:
    """Time both models."""
    options = parser(__doc__).parse_args(argv)
    source = provenance(options, argv, "hook_overhead")
    rounds = 3 if options.smoke else ROUNDS
    results: dict[str, Any] = {}
    for name, build in MODELS.items():
        progress(name)
        found = results[name] = measure(build, rounds, options.seed, options.device)
        rows = [
            [row, f"{at['microseconds']:.0f} [{at['low']:.0f}, {at['high']:.0f}]"]
            for row, at in found["rows"].items()
            if row != "un-merged"
        ]
        print(f"\n### {name}, {found['sites']} places, {found['unmerged_ms']:.1f} ms un-merged\n")
        print(table(["", "µs a place beyond un-merged"], rows))
    print(f"\nMedians of the differences within {rounds} rounds, with 95 % intervals.")
    print("\n" + caption(source))
    write_json(options.json, "hook_overhead", source, {"rounds": rounds, "results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
