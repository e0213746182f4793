"""What merging costs beside the self-attention layer that it makes cheaper: ReToM and tomesd.

A real diffusers ``Attention`` with AttnProcessor2_0 (projections and SDPA) runs on 2 x 4096 tokens,
shaped like the largest grid of SD 1.5 and of SDXL, ratio 0.5. Times are medians over interleaved
rounds; ratios are medians of ratios within a round, with a 95 % bootstrap interval.

- plan, merge, unmerge: each alone.
- overhead: (plan + merge + unmerge) / the un-merged layer.
- overhead, shared plan: the same with the plan divided by the layers that share it in one call of
  the denoiser. tomesd plans in every layer, so its two overheads are one.
- layer: the whole merged layer, plan included / the un-merged layer; below 1 merging pays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from measure import interleave, milliseconds, ratio_of_pairs, synchroniser
from record import between, caption, parser, progress, provenance, table, write_json
from tomesd.merge import bipartite_soft_matching_random2d
from torch import Tensor

import retom
from retom.methods import Method, ReToM

SHARE_TARGET = 0.05
TOMESD_TARGET = 0.25
PARTS = ("plan", "merge", "unmerge")


@dataclass(frozen=True)
class Shape:
    """A self-attention layer; ``layers``: how many of the model's largest grid share a plan."""

    side: int
    channels: int
    heads: int
    layers: int


SHAPES = {"sd15": Shape(64, 320, 8, 5), "sdxl": Shape(64, 640, 10, 10)}
SMOKE = {"tiny": Shape(16, 32, 2, 5)}


def methods(ratio: float) -> dict[str, Method]:
    """The settings of ReToM that are timed."""
    return {
        "retom": ReToM(ratio=ratio),
        "retom reach 1": ReToM(ratio=ratio, reach=1),
        "retom window 4x4": ReToM(ratio=ratio, window=(4, 4)),
        "retom window 4x4 reach 1": ReToM(ratio=ratio, window=(4, 4), reach=1),
    }


def smooth_tokens(batch: int, side: int, channels: int, seed: int) -> Tensor:
    """Tokens as a picture has them, (batch, side², channels): octaves of smooth fields and noise.

    Each octave doubles the frequency at half the power of the one before; white noise of a tenth of
    the power comes on top.
    """
    generator = torch.Generator().manual_seed(seed)
    field = torch.zeros(batch, channels, side, side)
    size, power = 4, 1.0
    while size <= side:
        coarse = torch.randn(batch, channels, size, size, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
        field += power**0.5 * smooth
        size, power = 2 * size, power / 2
    field += 0.1**0.5 * torch.randn(field.shape, generator=generator)
    return field.flatten(2).transpose(1, 2).contiguous()


def contenders(
    layer: Attention, x: Tensor, shape: Shape, ratio: float, seed: int
) -> dict[str, Callable[[], object]]:
    """Every call to time: the layer un-merged, and part by part and whole for each method."""
    grid = retom.Grid(shape.side, shape.side)
    calls: dict[str, Callable[[], object]] = {"un-merged layer": lambda: layer(x)}
    for name, method in methods(ratio).items():

        def plan_retom(method: Method = method) -> Any:  # noqa: ANN401
            plan = method.plan(x, grid)
            return plan.merge, plan.unmerge

        calls |= _parts(name, plan_retom, layer, x)
    draws = torch.Generator(x.device).manual_seed(seed)
    removed = int(x.shape[1] * ratio)

    def plan_tomesd() -> Any:  # noqa: ANN401
        return bipartite_soft_matching_random2d(
            x, grid.width, grid.height, 2, 2, removed, no_rand=False, generator=draws
        )

    return calls | _parts("tomesd", plan_tomesd, layer, x)


def _parts(
    name: str, plan: Callable[[], Any], layer: Attention, x: Tensor
) -> dict[str, Callable[[], object]]:
    merge, unmerge = plan()
    merged = merge(x)

    def whole() -> Tensor:
        merge, unmerge = plan()
        return unmerge(layer(merge(x)))

    return {
        f"{name}: plan": plan,
        f"{name}: merge": lambda: merge(x),
        f"{name}: unmerge": lambda: unmerge(merged),
        f"{name}: layer": whole,
    }


def measure(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """Time one shape; milliseconds and ratios by method."""
    torch.manual_seed(options.seed)
    dtype = getattr(torch, options.dtype)
    layer = Attention(
        query_dim=shape.channels,
        heads=shape.heads,
        dim_head=shape.channels // shape.heads,
        processor=AttnProcessor2_0(),
    ).to(options.device, dtype)
    x = smooth_tokens(2, shape.side, shape.channels, options.seed).to(options.device, dtype)
    with torch.no_grad():
        seconds = interleave(
            contenders(layer, x, shape, options.ratio, options.seed),
            options.rounds,
            synchronise=synchroniser(options.device),
        )
    base = seconds["un-merged layer"]
    found: dict[str, Any] = {"un-merged layer ms": milliseconds(base), "methods": {}}
    tomesd_parts = sum(np.asarray(seconds[f"tomesd: {part}"]) for part in PARTS)
    for name in [*methods(options.ratio), "tomesd"]:
        plan, merge, unmerge = (np.asarray(seconds[f"{name}: {part}"]) for part in PARTS)
        layers = 1 if name == "tomesd" else shape.layers
        found["methods"][name] = {
            **{f"{part} ms": milliseconds(seconds[f"{name}: {part}"]) for part in PARTS},
            "overhead": ratio_of_pairs(plan + merge + unmerge, base),
            "overhead, shared plan": ratio_of_pairs(plan / layers + merge + unmerge, base),
            "to tomesd": ratio_of_pairs(plan + merge + unmerge, tomesd_parts),
            "to tomesd, shared plan": ratio_of_pairs(plan / layers + merge + unmerge, tomesd_parts),
            "layer": ratio_of_pairs(seconds[f"{name}: layer"], base),
        }
    return found


def rows(found: dict[str, Any]) -> list[list[str]]:
    """One table row a method."""
    made = []
    for name, row in found["methods"].items():
        times = [f"{row[f'{part} ms']:.2f}" for part in PARTS]
        shares = [between(row[key], 3) for key in ("overhead", "overhead, shared plan")]
        ratios = [between(row[key]) for key in ("to tomesd", "layer")]
        made.append([name, *times, *shares, *ratios])
    return made


def verdicts(found: dict[str, Any]) -> list[str]:
    """Whether ReToM at its defaults meets the two targets."""
    row = found["methods"]["retom"]
    lines = []
    for what, key, target in (
        ("overhead as a share of the layer", "overhead", SHARE_TARGET),
        ("overhead to tomesd's", "to tomesd", TOMESD_TARGET),
    ):
        for form, suffix in (
            ("plan made for this layer alone", ""),
            ("plan shared", ", shared plan"),
        ):
            value = row[key + suffix]
            verdict = "met" if value["value"] <= target else "MISSED"
            lines.append(f"- {what}, {form}: {between(value, 3)}, target <= {target}: {verdict}")
    return lines


def main(argv: Sequence[str]) -> int:
    """Measure every shape at every thread count."""
    made = parser(__doc__)
    made.add_argument("--ratio", type=float, default=0.5)
    made.add_argument("--rounds", type=int, default=21)
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    made.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = made.parse_args(argv)
    if options.smoke:
        options.rounds, options.threads = 2, options.threads[:1]
    source = provenance(options, argv, "layer_overhead")
    shapes = SMOKE if options.smoke else {name: SHAPES[name] for name in options.shapes}
    results: dict[str, Any] = {}
    header = ["method", *(f"{part} ms" for part in PARTS)]
    header += [
        "overhead",
        "overhead, shared plan",
        "overhead to tomesd's",
        "merged / un-merged layer",
    ]
    before = torch.get_num_threads()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, shape in shapes.items():
            progress(f"{name}, {threads} threads, {options.rounds} rounds")
            found = results[f"{name}, {threads} threads"] = measure(shape, options)
            size = f"2 x {shape.side**2} x {shape.channels}, {shape.heads} heads"
            print(f"\n### {name}: {size}; {threads} threads; {shape.layers} layers share a plan\n")
            print(f"Un-merged layer: {found['un-merged layer ms']:.1f} ms.\n")
            print(table(header, rows(found)), "", *verdicts(found), sep="\n")
    torch.set_num_threads(before)
    print("\n" + caption(source))
    write_json(
        options.json, "layer_overhead", source, {"rounds": options.rounds, "results": results}
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
