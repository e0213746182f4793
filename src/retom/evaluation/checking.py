"""The short form of an evaluation, on a user's own pipeline: a few pairs of pictures, a verdict.

For a few pictures only: enough to see whether a setting pays on this machine and whether it spoils
pictures, too few to tell two methods apart. That takes :func:`retom.evaluation.study.evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch

from retom.config import Config
from retom.errors import ConfigError
from retom.evaluation.timed_drawing import TimedDrawing, merging_switch
from retom.evaluation.verdict import verdict_of
from retom.evaluation.windows import window_period
from retom.handle import handle_of
from retom.metrics import grid_artefacts, psnr, ssim
from retom.models import find_denoiser
from retom.profit import UNPROFITABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retom.evaluation.timed_drawing import OnPicture, TimedPicture
    from retom.summary import Summary

PROMPTS = ("a red apple on a blue background", "a small house in a green field")
"""Drawn if no prompts are given."""

WARM_UP_STEPS = 2
MOST_DB = 100.0


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found; ``print`` shows it.

    Attributes:
        config: The setting that was checked.
        pairs: Pairs of pictures, one of each merged.
        psnr: Of each merged picture to the un-merged one of its prompt and seed, in dB, at most
            100.
        ssim: The same.
        artefacts: How much more the windows show than in the un-merged picture, in dB; empty where
            that cannot be measured.
        floor: PSNR in dB between un-merged pictures of one prompt and two seeds; empty with a
            single seed.
        seconds: Of each whole picture, un-merged and merged, in interleaved pairs.
        denoiser_seconds: Of the denoiser's calls in them.
        kept: Share of the tokens that merging layers keep on the largest merging grid.
    """

    config: Config
    pairs: int
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    artefacts: tuple[float, ...]
    floor: tuple[float, ...]
    seconds: tuple[tuple[float, float], ...]
    denoiser_seconds: tuple[tuple[float, float], ...]
    kept: float

    @property
    def speedups(self) -> tuple[float, ...]:
        """Seconds un-merged / merged of each pair."""
        return tuple(before / after for before, after in self.seconds)

    @property
    def speedup(self) -> float:
        """Median over the pairs."""
        return median(self.speedups)

    @property
    def denoiser_speedup(self) -> float:
        """Median over the pairs, for the denoiser alone."""
        return median(before / after for before, after in self.denoiser_seconds)

    @property
    def verdict(self) -> str:
        """Two or three sentences on whether the setting pays."""
        return verdict_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in seconds."""
        return {
            "config": self.config.to_dict(),
            "pairs": self.pairs,
            "psnr": list(self.psnr),
            "ssim": list(self.ssim),
            "artefacts": list(self.artefacts),
            "floor": list(self.floor),
            "seconds": [list(pair) for pair in self.seconds],
            "denoiser_seconds": [list(pair) for pair in self.denoiser_seconds],
            "speedup": self.speedup,
            "denoiser_speedup": self.denoiser_speedup,
            "kept": self.kept,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.pairs} pairs of pictures, un-merged and merged",
            f"  PSNR            {_several(self.psnr, 1, ' dB')}",
            f"  SSIM            {_several(self.ssim, 3)}",
        ]
        if self.artefacts:
            lines.append(f"  window grid     {_several(self.artefacts, 1, ' dB', signed=True)}")
        if self.floor:
            lines.append(f"  another seed    {_several(self.floor, 1, ' dB PSNR')}")
        before, after = (median(pair[side] for pair in self.seconds) for side in (0, 1))
        lines += [
            f"  whole picture   {before:.2f} s to {after:.2f} s: {self.speedup:.2f}x as fast "
            f"({min(self.speedups):.2f} to {max(self.speedups):.2f})",
            f"  denoiser alone  {self.denoiser_speedup:.2f}x as fast",
            self.verdict,
        ]
        return "\n".join(lines)


def check(
    pipe: Any,  # noqa: ANN401 - a pipeline of any class
    config: Config | None = None,
    *,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = (0, 1),
    on_picture: OnPicture = lambda label, done, total: None,
    call: dict[str, Any] | None = None,
    **options: object,
) -> Check:
    """Draw a few pictures with and without merging, in turns, and say whether the setting pays.

    Args:
        pipe: A diffusers text-to-image pipeline. Where merging is applied already and neither
            ``config`` nor options are given, that merging is checked and stays applied.
        config: What to check; the defaults of :class:`retom.Config` if not given.
        prompts: Each is drawn once a seed, both ways.
        seeds: Two or more also give the floor: how far two seeds of one prompt are apart.
        on_picture: Told before each picture.
        call: Arguments of the pipeline beside prompt, generator and output type, such as
            ``{"num_inference_steps": 20}``; its own defaults hold otherwise.
        **options: On top of ``config``, as in :func:`retom.apply`: ``ratio=0.5``, ...

    Returns:
        Numbers and verdict.

    Raises:
        ConfigError: There are no prompts or seeds, an argument of ``call`` is set by the check
            itself, or merging is applied and another setting is asked for.
        RetomError: As :func:`retom.apply`.

    Example:
        >>> print(retom.check(pipe, ratio=0.5))  # doctest: +SKIP
    """
    call = dict(call or {})
    taken = sorted({"prompt", "generator", "output_type", "image"} & call.keys())
    repeated = len(set(prompts)) < len(prompts) or len(set(seeds)) < len(seeds)
    if taken or isinstance(prompts, str) or not prompts or not seeds or repeated:
        raise ConfigError(
            "A check draws at least one prompt at one seed: prompts and seeds are lists, each "
            "entry once, and prompt, generator and output_type are set by it; "
            f"{prompts!r}, {seeds!r} and {taken} in call were given."
        )
    with merging_switch(pipe, config, options) as switch:
        drawing = TimedDrawing(pipe, on_picture, 2 * len(prompts) * len(seeds) + 2)
        own_steps = {"timesteps", "sigmas"} & call.keys()
        short = call if own_steps else {**call, "num_inference_steps": WARM_UP_STEPS}
        if switch.config.skip == UNPROFITABLE and len(switch.config.plateaus()) > 1:
            short = call  # each stretch of noise merges its own way and is timed when it comes
        with switch():
            drawing.run(prompts[0], seeds[0], "warming up", short)
            if not switch.config.steady and not _summary(pipe).seen:
                # of so few steps none may have a noise that merges
                drawing.run(prompts[0], seeds[0], "warming up", call)
            kept = _kept(pipe)
        drawing.run(prompts[0], seeds[0], "warming up", short)
        pictures: dict[tuple[str, int], tuple[TimedPicture, TimedPicture]] = {}
        for prompt in prompts:
            for seed in seeds:
                merged_first = len(pictures) % 2 == 1
                runs: dict[bool, TimedPicture] = {}
                for merges in (True, False) if merged_first else (False, True):
                    if merges:
                        with switch():
                            runs[True] = drawing.run(prompt, seed, "merged", call)
                    else:
                        runs[False] = drawing.run(prompt, seed, "un-merged", call)
                pictures[prompt, seed] = runs[False], runs[True]
        return _summed(pipe, switch.config, pictures, kept)


def _kept(pipe: object) -> float:
    """Share of the tokens that stay on the largest grid that merges."""
    summary = _summary(pipe)
    merging = [level for level in summary.levels if level.kept < level.tokens]
    if not merging or (not summary.seen and not summary.config.steady):
        return 1.0  # no step of a picture had a noise that merges
    return merging[0].kept / merging[0].tokens


def _summary(pipe: object) -> Summary:
    handle = handle_of(pipe)
    assert handle is not None
    return handle.summary()


def _summed(
    pipe: Any,  # noqa: ANN401
    config: Config,
    pictures: dict[tuple[str, int], tuple[TimedPicture, TimedPicture]],
    kept: float,
) -> Check:
    runs = list(pictures.values())
    whole = torch.stack([before.picture for before, _ in runs])
    merged = torch.stack([after.picture for _, after in runs])
    period = window_period(
        find_denoiser(pipe),
        config.method,
        levels=config.levels,
        size=(whole.shape[-2], whole.shape[-1]),
        scale=int(pipe.vae_scale_factor),
    )
    return Check(
        config=config,
        pairs=len(runs),
        psnr=_numbers(psnr(merged, whole).clamp_max(MOST_DB)),
        ssim=_numbers(ssim(merged, whole)),
        artefacts=() if period is None else _numbers(grid_artefacts(merged, whole, period)),
        floor=tuple(_floor(pictures)),
        seconds=tuple((before.seconds, after.seconds) for before, after in runs),
        denoiser_seconds=tuple(
            (before.denoiser_seconds, after.denoiser_seconds) for before, after in runs
        ),
        kept=kept,
    )


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _floor(pictures: dict[tuple[str, int], tuple[TimedPicture, TimedPicture]]) -> list[float]:
    """PSNR of un-merged pictures of one prompt, each seed to the next."""
    prompts = dict.fromkeys(prompt for prompt, _ in pictures)
    found: list[float] = []
    for prompt in prompts:
        own = [before.picture for (other, _), (before, _) in pictures.items() if other == prompt]
        found += [min(psnr(a, b).item(), MOST_DB) for a, b in pairwise(own)]
    return found


def _several(values: Sequence[float], digits: int, unit: str = "", *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    low, mean, high = (
        f"{value:{sign}.{digits}f}" for value in (min(values), fmean(values), max(values))
    )
    return f"{mean}{unit} ({low} to {high})"
