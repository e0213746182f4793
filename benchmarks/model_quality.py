"""How far merging moves a model from itself: denoiser error and pictures, every variant alike.

- teacher: relative L2 error of the denoiser's output, ||merged - un-merged|| / ||un-merged|| per
  sample, on identical inputs without guidance. The noisy latents are real: the un-merged model's
  own final latents of each prompt and seed, noised to 8 timesteps with its scheduler's alphas.
- pictures: PSNR and SSIM of whole pictures to the un-merged picture of the same prompt, seed and
  steps; values in [0, 1]. The floor is the un-merged picture of another seed.
- timing: one denoiser call of batch 2 (one picture with guidance), merged / un-merged, interleaved.

Same prompts, seeds, layers and ratio for all. Results are appended to --work; a killed run, started
again with the same options, continues, and more variants or prompts may be added to it. Prints
Markdown tables of everything in --work, with 95 % bootstrap intervals over prompts and paired
differences to tomesd.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import interleave, synchroniser
from quality_tables import FLOOR, report
from record import caption, parser, progress, provenance, write_json
from sources import load, tiny
from store import Store
from study import Study
from torch import Tensor
from variants import (
    DEFAULT,
    TOMESD,
    UNMERGED,
    Variant,
    merged_copy,
    select,
    tokens_in_self_attention,
)

import retom
from retom.evaluation.prompts import prompts_of
from retom.metrics import psnr, relative_error, ssim

STAGES = ("teacher", "timing", "pictures")
MOST_DB = 100.0
OTHER_SEED = 1_000_003
DEFAULT_GLOBS = [
    "tomesd/*",
    "tome/*",
    "s*/2x2/layer*",
    "importance/*",
    "toma/*/transpose/*",
    "retom/similarity/2x2/reach1/mean/layer+sized/*",
    "retom/similarity/2x2/reach[01]/mean/l*[lrd]",
    "retom/similarity/2x2/reach2/mean/layer+sized",
    "retom/similarity/2x2/reach[01]/representative/l*[ld]",
    "retom/similarity/2x2/reach1/norm_mean/layer+sized",
    "retom/similarity/4x4/reach[01]/mean/layer+sized",
    "retom/uniform/2x2/reach0/mean/level",
    "retom/uniform/2x2/reach1/mean/layer*",
    "retom/coherence/2x2/reach1/mean/layer+sized",
    "retom/multiscale/2x2/reach0/mean/layer+sized",
    "[rw]*_*/similarity/2x2/reach1/mean/layer+sized",
    "[rw]*_*/similarity/2x2/reach0/representative/layer+sized",
]
"""The study's own choice: every option beside the best setting, and what the paper describes."""
SMOKE_GLOBS = [DEFAULT, TOMESD, "window_corner/similarity/2x2/reach0/mean/level"]


class Tick:
    """Progress on stderr with the time that is left.

    Args:
        total: Results still to measure.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.begin = total, 0, time.monotonic()

    def __call__(self, what: str) -> None:
        """One more result is on the disk."""
        self.done += 1
        left = (time.monotonic() - self.begin) / self.done * (self.total - self.done)
        progress(f"[{self.done}/{self.total}, {left / 60:.1f} min left] {what}")


def errors_of(merged: Tensor, whole: Tensor) -> list[list[float]]:
    """Teacher-forced errors by sample and level, rounded for a file."""
    return [[round(value, 7) for value in s] for s in relative_error(merged, whole).tolist()]


def run_teacher(study: Study, chunk: list[int], variants: list[Variant], tick: Tick) -> None:
    """Denoiser errors of a chunk of prompts."""
    conditions = study.conditions(chunk)
    name = f"outputs-{chunk[0]}-{chunk[-1]}"
    whole = study.store.cached(name, lambda: {"outputs": study.outputs(chunk, conditions)})
    for variant in variants:
        with study.merged(variant):
            merged = study.outputs(chunk, conditions)
        errors = errors_of(merged, whole["outputs"])
        study.store.add("teacher", variant.name, chunk, errors=errors, timesteps=study.timesteps)
        tick(f"teacher {variant.name}")


def run_timing(study: Study, chunk: list[int], variants: list[Variant], tick: Tick) -> None:
    """Denoiser calls of batch 2, un-merged and merged in turns."""
    o = study.options
    conditions = study.conditions(chunk)
    timestep = study.timesteps[len(study.timesteps) // 2]
    x = study.noisy(study.reference(chunk)["latents"], timestep, chunk)
    for variant in variants:
        twin = merged_copy(study.pipe.unet, variant, ratio=o.ratio, levels=o.levels, seed=o.seed)
        calls: dict[str, Callable[[], object]] = {
            UNMERGED: lambda: study.pipe.unet(x, timestep, **conditions),
            variant.name: lambda twin=twin: twin(x, timestep, **conditions),
        }
        with torch.no_grad():
            sync = synchroniser(o.device)
            seconds = interleave(calls, o.timing_rounds, warmup=1, synchronise=sync)
        values = {"un_merged_s": seconds[UNMERGED], "merged_s": seconds[variant.name]}
        study.store.add("timing", variant.name, chunk, **values)
        tick(f"timing {variant.name}")


def run_pictures(study: Study, chunk: list[int], variants: list[Variant], tick: Tick) -> None:
    """Whole pictures of a chunk of prompts; the floor first."""
    whole = study.reference(chunk)["pictures"]
    if not study.store.has("pictures", FLOOR, chunk):
        other = study.decode(study.draw(chunk, seed=study.options.seed + OTHER_SEED))
        study.store.add("pictures", FLOOR, chunk, **similarity(other, whole))
    for variant in variants:
        with study.merged(variant):
            latents = study.draw(chunk, seed=study.options.seed)
        study.store.add("pictures", variant.name, chunk, **similarity(study.decode(latents), whole))
        tick(f"pictures {variant.name}")


def similarity(pictures: Tensor, whole: Tensor) -> dict[str, list[float]]:
    """PSNR in dB, at most 100 so that equal pictures are a number, and SSIM, by picture."""
    return {
        "psnr": psnr(pictures, whole).clamp_max(MOST_DB).tolist(),
        "ssim": ssim(pictures, whole).tolist(),
    }


RUNS = {"teacher": run_teacher, "timing": run_timing, "pictures": run_pictures}


def twice(given: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments as those of both halves of guidance."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            found[name] = twice(value)
        else:
            batched = isinstance(value, Tensor) and value.ndim > 0
            found[name] = torch.cat([value, value]) if batched else value
    return found


def comparable(study: Study, variants: list[Variant]) -> list[Variant]:
    """The variants that can reach the ratio on this model; the others are named on stderr.

    Raises:
        SystemExit: Some merge other layers than others, or another number of tokens; tomesd at a
            ratio over 0.75, for example, silently merges less.
    """
    chunk = study.chunks[0][:2]
    given = study.conditions(chunk)
    latents = study.reference(study.chunks[0])["latents"][:2]
    x = study.noisy(latents, study.timesteps[0], chunk)

    def call(*, guided: bool = False) -> None:
        latents, others = (torch.cat([x, x]), twice(given)) if guided else (x, given)
        with torch.no_grad():
            study.pipe.unet(latents, study.timesteps[0], **others)

    found: list[Variant] = []
    first: dict[str, int] = {}
    for variant in variants:
        try:
            with study.merged(variant):
                once = partial(call, guided=variant.guided)
                tokens = tokens_in_self_attention(study.pipe.unet, once)
        except retom.BudgetError as error:
            progress(f"left out: {variant.name}: {error}")
            continue
        found.append(variant)
        first = first or tokens
        different = [f"{n} ({first[n]}, {tokens[n]})" for n in first if first[n] != tokens[n]]
        if different:
            raise SystemExit(
                f"{found[0].name} and {variant.name} keep different numbers of tokens in "
                f"{', '.join(different)}."
            )
    return found


def run(study: Study, variants: list[Variant], stages: Sequence[str]) -> None:
    """Measure what is not in the store yet: chunk by chunk, all variants of each."""
    store = study.store
    jobs = []
    for stage in stages:
        for chunk in [study.chunks[0][:2]] if stage == "timing" else study.chunks:
            # Only pictures are drawn with guidance.
            able = [v for v in variants if stage == "pictures" or not v.guided]
            todo = [v for v in able if not store.has(stage, v.name, chunk)]
            if todo:
                jobs.append((stage, chunk, todo))
    tick = Tick(sum(len(todo) for _, _, todo in jobs))
    for stage, chunk, todo in jobs:
        RUNS[stage](study, chunk, todo, tick)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and complete the options."""
    made = parser(__doc__)
    made.add_argument("--model", help="a diffusers folder; the bundled model if not given")
    made.add_argument("--work", type=Path, help="where results grow; needed except with --smoke")
    made.add_argument("--only", nargs="+", choices=(*STAGES, "report"), default=list(STAGES))
    made.add_argument("--variants", nargs="+", metavar="GLOB", default=DEFAULT_GLOBS)
    made.add_argument("--ratio", type=float, default=0.5)
    made.add_argument("--levels", type=int, default=1, help="how many of the largest grids merge")
    made.add_argument("--prompts", type=int, default=32, help="how many")
    made.add_argument("--prompts-file", type=Path, help="one prompt a line")
    made.add_argument("--steps", type=int, default=12)
    made.add_argument("--guidance", type=float, default=4.0)
    made.add_argument("--height", type=int, help="pixels; the model's default if not given")
    made.add_argument("--width", type=int)
    made.add_argument("--batch", type=int, default=16, help="prompts at a time; even")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--timing-rounds", type=int, default=9)
    options = made.parse_args(argv)
    if options.smoke:
        options.prompts, options.batch, options.steps, options.timing_rounds = 4, 2, 2, 2
        options.variants = SMOKE_GLOBS
        options.work = options.work or Path(tempfile.mkdtemp(prefix="model_quality-"))
    if options.work is None:
        made.error("--work DIR is needed: results grow there, and a killed run continues from it")
    if options.batch < 2 or options.batch % 2:
        made.error("--batch must be even: at an odd batch size tomesd drops its random choice")
    if options.prompts % options.batch:
        made.error("--prompts must be a multiple of --batch")
    return options


def main(argv: Sequence[str]) -> int:
    """Measure what is missing, then print the report."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    model = tiny() if options.smoke else load(options.model, options.device, options.dtype)
    prompts = prompts_of(model.folder, options.prompts_file)
    if options.prompts > len(prompts):
        raise SystemExit(
            f"There are {len(prompts)} prompts; --prompts {options.prompts} was given."
        )
    kept = ("ratio", "levels", "steps", "guidance", "height", "width", "batch", "seed", "dtype")
    settings = {name: getattr(options, name) for name in kept} | {
        "model": model.label,
        "prompts": hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:12],
        "device": torch.device(options.device).type,
    }
    store = Store(options.work, settings)
    source = provenance(options, argv, "model_quality")
    stages = [stage for stage in STAGES if stage in options.only]
    if stages:
        study = Study(model.pipe, prompts[: options.prompts], options, store)
        store.session(source)
        run(study, comparable(study, select(options.variants)), stages)
    text, results = report(store)
    print(text + "\n\n" + caption(source))
    write_json(options.json, "model_quality", source, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
