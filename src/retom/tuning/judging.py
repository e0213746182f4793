"""The schedule and what it has to beat, on prompts that nothing was tuned on: pictures and times.

One picture after the other, un-merged, by the schedule and by the uniform setting in turns.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retom.evaluation.pairs import MOST_DB
from retom.evaluation.results import UNMERGED
from retom.evaluation.settings import SEED_STRIDE
from retom.evaluation.store import key_of
from retom.evaluation.timed_drawing import TimedDrawing
from retom.evaluation.timing import ratio_estimate
from retom.handle import applied
from retom.metrics import mean_estimate, psnr, ssim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retom.config import Config
    from retom.metrics import Estimate
    from retom.tuning.work import Work


@dataclass(frozen=True, slots=True)
class Judged:
    """One setting on the prompts to judge on.

    Attributes:
        name: What it is called.
        psnr: To the un-merged picture of the prompt and seed, in dB, at most 100.
        ssim: The same.
        speedup: Un-merged / own seconds of the denoiser within a prompt.
        whole_speedup: The same of whole pictures.
        more_psnr: dB more than the uniform setting, prompt by prompt; None for itself, or where
            there is none.
        pictures: Of each prompt, PSNR in dB.
    """

    name: str
    psnr: Estimate
    ssim: Estimate
    speedup: Estimate
    whole_speedup: Estimate
    more_psnr: Estimate | None
    pictures: tuple[float, ...]


def _silent(label: str, done: int, total: int) -> None:
    """Tell nobody: a prompt is told as a whole."""


def judge(work: Work, configs: Mapping[str, Config]) -> list[Judged]:
    """Draw every prompt un-merged and with each setting, in turns.

    Args:
        work: For the model and the prompts.
        configs: Settings by name; the second, if there is one, is what the first has to beat.
    """
    prompts = work.settings.judged
    rows: list[dict[str, dict[str, float]]] = []
    drawing: TimedDrawing | None = None
    work.tell("judging", "starting", 0, len(prompts))
    for number, prompt in enumerate(prompts):
        content = _content(work, configs, prompt, number)
        key = key_of("judged", content)
        if not work.subject.store.has_record(key):
            if drawing is None:
                drawing = TimedDrawing(work.subject.pipe, _silent, 0)
                _warm_up(work, configs, drawing)
            work.subject.store.add_record(key, content, _drawn(work, configs, drawing, number))
        rows.append(work.subject.store.record(key)["values"])
        work.tell("judging", prompt, number + 1, len(prompts))
    names = list(configs)
    return [
        _judged(rows, name, names[1] if name == names[0] and names[1:] else "") for name in names
    ]


def _seed(work: Work, number: int) -> int:
    return work.settings.seed * SEED_STRIDE + work.settings.tuning + number


def _content(work: Work, configs: Mapping[str, Config], prompt: str, number: int) -> dict[str, Any]:
    hardware = work.subject.store.source["hardware"]
    return {
        **work.subject.content,
        "prompt": prompt,
        "seed": _seed(work, number),
        "judged": {name: config.to_dict() for name, config in configs.items()},
        "turn": number % (len(configs) + 1),
        "hardware": {name: hardware[name] for name in ("cpu", "threads", "device")},
    }


def _drawn(
    work: Work, configs: Mapping[str, Config], drawing: TimedDrawing, number: int
) -> dict[str, dict[str, float]]:
    """PSNR, SSIM and seconds of one prompt; who is first rotates."""
    every: dict[str, Config | None] = {UNMERGED: None, **configs}
    names = list(every)
    first = number % len(names)
    found: dict[str, dict[str, float]] = {}
    pictures: dict[str, torch.Tensor] = {}
    for name in names[first:] + names[:first]:
        config = every[name]
        with nullcontext() if config is None else applied(work.subject.pipe, config):
            timed = drawing.run(
                work.settings.judged[number], _seed(work, number), name, _call(work)
            )
        pictures[name] = timed.picture
        found[name] = {"seconds": timed.seconds, "denoiser_seconds": timed.denoiser_seconds}
    for name in configs:
        close = psnr(pictures[name], pictures[UNMERGED]).clamp_max(MOST_DB)
        found[name]["psnr"] = float(close)
        found[name]["ssim"] = float(ssim(pictures[name], pictures[UNMERGED]))
    return found


def _warm_up(work: Work, configs: Mapping[str, Config], drawing: TimedDrawing) -> None:
    short = {**_call(work), "num_inference_steps": min(2, work.subject.content["steps"])}
    for config in (None, *configs.values()):
        with nullcontext() if config is None else applied(work.subject.pipe, config):
            drawing.run(work.settings.judged[0], _seed(work, 0), "warming up", short)


def _call(work: Work) -> dict[str, Any]:
    content = work.subject.content
    return {
        "num_inference_steps": content["steps"],
        "guidance_scale": content["guidance"],
        "height": content["height"],
        "width": content["width"],
    }


def _judged(rows: list[dict[str, dict[str, float]]], name: str, other: str) -> Judged:
    def column(of: str, what: str) -> list[float]:
        return [row[of][what] for row in rows]

    def mean(values: list[float], metric: str) -> Estimate:
        return mean_estimate(torch.tensor(values, dtype=torch.float64), metric)

    own = column(name, "psnr")
    more = None
    if other:
        differences = [a - b for a, b in zip(own, column(other, "psnr"), strict=True)]
        more = mean(differences, f"PSNR in dB minus {other}")
    return Judged(
        name=name,
        psnr=mean(own, "PSNR in dB"),
        ssim=mean(column(name, "ssim"), "SSIM"),
        speedup=ratio_estimate(
            column(UNMERGED, "denoiser_seconds"), column(name, "denoiser_seconds"), "speed-up"
        ),
        whole_speedup=ratio_estimate(
            column(UNMERGED, "seconds"), column(name, "seconds"), "speed-up of the picture"
        ),
        more_psnr=more,
        pictures=tuple(own),
    )
