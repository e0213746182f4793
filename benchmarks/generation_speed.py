"""How much faster a model gets: interleaved pairs of whole pictures and of denoiser calls.

Batch 1 with guidance, so two samples a denoiser call. Every contender holds a copy of the denoiser
on the same weights and they take turns in one process; times are medians, speed-ups are medians of
the ratios un-merged / merged within a round, with a 95 % bootstrap interval over rounds.

The oracle merges the same layers to the same number of tokens by a plain slice and undoes it by a
repeat: what merging could gain at most if choosing, merging and un-merging were free. Efficiency is
(T_un-merged - T_method) / (T_un-merged - T_oracle), of medians; "n/a" where the oracle gains less
than 1 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from measure import bootstrap, interleave, milliseconds, ratio_of_pairs, synchroniser
from record import between, caption, parser, progress, provenance, table, write_json
from sources import (
    CONFIGS,
    call,
    load,
    random_unet,
    tiny,
    unet_inputs,
    with_unet,
)
from torch import nn
from variants import (
    CHEAPEST,
    DEFAULT,
    TOMESD,
    UNMERGED,
    Oracle,
    Variant,
    merged_copy,
    select,
    shared_copy,
)

ORACLE = Variant("oracle", Oracle())
CONTENDERS = [DEFAULT, CHEAPEST, TOMESD]
LEAST_GAIN = 0.01
PROMPT = "a red apple on a blue background"


def denoisers(unet: nn.Module, options: argparse.Namespace, ratio: float) -> dict[str, nn.Module]:
    """A denoiser for every contender, all on the same weights."""
    found = {UNMERGED: shared_copy(unet)}
    for variant in [ORACLE, *select(options.variants)]:
        merged = merged_copy(unet, variant, ratio=ratio, levels=options.levels, seed=options.seed)
        found[variant.name] = merged
    if options.compile:
        # In place: a wrapped module would hide the configuration that pipelines read.
        for module in found.values():
            module.compile()
    return found


def denoiser_calls(
    found: Mapping[str, nn.Module], height: int, width: int, seed: int
) -> dict[str, Callable[[], object]]:
    """One denoiser call of batch 2 for every contender, at latents of height x width."""
    first = next(iter(found.values()))
    given = unet_inputs(first, batch=2, height=height, width=width, seed=seed)
    return {name: lambda unet=unet: call(unet, given) for name, unet in found.items()}


def picture_calls(
    pipe: Any,  # noqa: ANN401
    found: Mapping[str, nn.Module],
    height: int,
    width: int,
    options: argparse.Namespace,
) -> dict[str, Callable[[], object]]:
    """One whole picture for every contender, decoding included."""

    def draw(own: Any) -> object:  # noqa: ANN401
        return own(
            PROMPT,
            generator=torch.Generator().manual_seed(options.seed),
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            height=height,
            width=width,
        )

    pipes = {name: with_unet(pipe, unet) for name, unet in found.items()}
    return {name: lambda own=own: draw(own) for name, own in pipes.items()}


def summarise(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians, speed-ups and efficiencies from seconds by round."""
    base, oracle = (np.asarray(seconds[name]) for name in (UNMERGED, ORACLE.name))
    found: dict[str, Any] = {}
    for name, own in seconds.items():
        found[name] = {"ms": milliseconds(own), "seconds": list(own)}
        if name == UNMERGED:
            continue
        found[name]["speed-up"] = ratio_of_pairs(seconds[UNMERGED], own)
        if np.median(oracle) < (1 - LEAST_GAIN) * np.median(base):
            rounds = np.stack([base, np.asarray(own), oracle], axis=1)
            low, high = bootstrap(rounds, efficiency)
            found[name]["efficiency"] = {"value": efficiency(rounds), "low": low, "high": high}
    return found


def efficiency(rounds: np.ndarray) -> float:
    """(T_base - T_method) / (T_base - T_oracle) of medians; columns base, method, oracle."""
    base, method, oracle = np.median(rounds, axis=0)
    # A resample in which the oracle gains nothing says nothing; it counts as the worst.
    return float((base - method) / (base - oracle)) if base > oracle else 0.0


def show(title: str, found: Mapping[str, Any]) -> None:
    """Print one table."""
    rows = []
    for name, row in found.items():
        speed = between(row["speed-up"]) if "speed-up" in row else "1"
        share = between(row["efficiency"]) if "efficiency" in row else "n/a"
        memory = [row["peak MiB"]] if "peak MiB" in row else []
        own = "" if name == UNMERGED else share
        rows.append([name, f"{row['ms']:.1f}", speed, own, *memory])
    header = ["contender", "median ms", "speed-up", "efficiency", "peak MiB"][: len(rows[0])]
    print(f"\n### {title}\n")
    print(table(header, rows), flush=True)


def measure_model(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Denoiser calls and whole pictures of a pipeline, at its default size and its multiples."""
    model = tiny() if options.smoke else load(options.model, options.device, options.dtype)
    pipe = model.pipe
    results["model"] = model.label
    for multiple in options.sizes:
        side = int(pipe.unet.config.sample_size * multiple)
        pixels = side * pipe.vae_scale_factor
        for ratio in options.ratios:
            found = denoisers(pipe.unet, options, ratio)
            title = f"{pixels}x{pixels} pixels, latents {side}x{side}, ratio {ratio}"
            calls = denoiser_calls(found, side, side, options.seed)
            time_and_show(f"denoiser call, {title}", calls, options.rounds, options, results)
            if options.picture_rounds:
                calls = picture_calls(pipe, found, pixels, pixels, options)
                title = f"whole picture, {options.steps} steps, {title}"
                time_and_show(title, calls, options.picture_rounds, options, results)


def measure_random(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Denoiser calls of a published configuration at random weights."""
    name = "sd15-narrow" if options.smoke else options.random_weights
    size = CONFIGS[name]["sample_size"]
    height, width = options.height or size, options.width or options.height or size
    progress(f"{name}: making random weights")
    unet = random_unet(
        name, device=options.device, dtype=getattr(torch, options.dtype), seed=options.seed
    )
    results["model"] = f"{name}, random weights"
    for ratio in options.ratios:
        found = denoisers(unet, options, ratio)
        calls = denoiser_calls(found, height, width, options.seed)
        title = f"denoiser call, {name}, latents {height}x{width}, ratio {ratio}"
        time_and_show(title, calls, options.rounds, options, results)


def time_and_show(
    title: str,
    calls: dict[str, Callable[[], object]],
    rounds: int,
    options: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    """Time one set of contenders, print it, keep it."""
    progress(f"{title}: {rounds} rounds of {len(calls)}")
    seconds = interleave(calls, rounds, warmup=1, synchronise=synchroniser(options.device))
    results["timings"][title] = summarise(seconds)
    if options.device.startswith("cuda"):
        for name, one in calls.items():
            results["timings"][title][name]["peak MiB"] = peak_memory(one)
    show(title, results["timings"][title])


def peak_memory(one: Callable[[], object]) -> float:
    """Most memory that tensors held on the GPU during a call, weights included, in MiB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    one()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and complete the options."""
    made = parser(__doc__)
    made.add_argument("--model", help="a diffusers folder; the bundled model if not given")
    made.add_argument("--random-weights", choices=CONFIGS, help="a UNet alone, instead of --model")
    made.add_argument("--height", type=int, help="latents, with --random-weights")
    made.add_argument("--width", type=int)
    made.add_argument("--sizes", type=float, nargs="+", default=[1, 2], help="x the default size")
    made.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.5, 0.75])
    made.add_argument("--levels", type=int, default=1, help="how many of the largest grids merge")
    made.add_argument("--variants", nargs="+", metavar="GLOB", default=CONTENDERS)
    made.add_argument("--rounds", type=int, default=11, help="of denoiser calls")
    made.add_argument("--picture-rounds", type=int, default=5, help="0 for none")
    made.add_argument("--steps", type=int, default=12)
    made.add_argument("--guidance", type=float, default=4.0)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--compile", action="store_true", help="torch.compile every denoiser")
    options = made.parse_args(argv)
    if options.smoke:
        options.sizes, options.ratios, options.steps = [1], [0.5], 1
        options.rounds, options.picture_rounds = 2, min(1, options.picture_rounds)
    return options


def main(argv: Sequence[str]) -> int:
    """Time a model or a published configuration."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    source = provenance(options, argv, "generation_speed")
    results: dict[str, Any] = {"timings": {}}
    (measure_random if options.random_weights else measure_model)(options, results)
    print(f"\nModel: {results['model']}. " + caption(source))
    write_json(options.json, "generation_speed", source, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
