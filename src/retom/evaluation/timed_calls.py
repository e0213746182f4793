"""What the calls of a picture take, merged against un-merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retom.config import Config
from retom.errors import ConfigError
from retom.evaluation.noise import schedule_length, timestep_at
from retom.evaluation.results import UNMERGED
from retom.evaluation.screening import Calls
from retom.evaluation.steps import steps_of
from retom.evaluation.store import key_of
from retom.evaluation.timing import shared_copy
from retom.models import find_denoiser
from retom.rounds import interleave, synchroniser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from retom.evaluation.contenders import Contender
    from retom.evaluation.settings import Sample
    from retom.evaluation.subject import Subject


def timing_content(
    subject: Subject, samples: Sequence[Sample], contender: Contender, hardware: dict[str, Any]
) -> dict[str, Any]:
    """What the timing of a contender depends on."""
    kept = {name: hardware[name] for name in ("cpu", "threads", "device")}
    return {
        **subject.drawing(samples, contender),
        "hardware": kept,
        "rounds": subject.settings.rounds,
    }


def time_calls(
    subject: Subject, samples: Sequence[Sample], contender: Contender, hardware: dict[str, Any]
) -> str:
    """Time the denoiser on these samples, un-merged and merged in turns; the record's name.

    Two samples are what one picture with guidance costs at a step; where a contender compares the
    halves of guidance, it is one picture with guidance. One call speaks for all, except where a
    contender merges by noise: then what is kept is a picture's average call, which is timed once
    for each way in which its steps merge.
    """
    content = timing_content(subject, samples, contender, hardware)
    key = key_of("timing", content)
    if subject.store.has_record(key):
        return key
    drawn = samples[:1] if contender.is_guided else samples
    call = Calls(subject, drawn).of(contender)
    plain = find_denoiser(subject.pipe)
    merged = shared_copy(plain)

    def run(denoiser: nn.Module, timestep: int) -> Callable[[], object]:
        x = subject.noisy(drawn, timestep)
        if contender.is_guided:
            steady = call.at(x, timestep)  # the same step again: the last call's halves stay known
            return lambda: steady(denoiser)
        return lambda: call(denoiser, x, timestep)

    shares = _shares(subject, samples, contender)
    runs = {f"merged at {timestep}": run(merged, timestep) for timestep in shares}
    with contender.applied(merged):
        seconds = interleave(
            {UNMERGED: run(plain, next(iter(shares))), **runs},
            subject.settings.rounds,
            synchronise=synchroniser(subject.device),
        )
    rounds = zip(*(seconds[name] for name in runs), strict=True)
    average = [sum(n * s for n, s in zip(shares.values(), one, strict=True)) for one in rounds]
    values = {"unmerged_s": seconds[UNMERGED], "merged_s": average}
    subject.store.add_record(key, content, values)
    return key


def _shares(subject: Subject, samples: Sequence[Sample], contender: Contender) -> dict[int, float]:
    """A timestep for each way in which a picture's steps merge, and its share of the calls."""
    config = contender.merging
    if not isinstance(config, Config) or config.steady:
        return {subject.timesteps[len(subject.timesteps) // 2]: 1.0}
    steps = steps_of(subject, samples)
    length = schedule_length(subject.pipe.scheduler)

    def way(noise: float) -> tuple[object, ...]:
        return tuple(config.method_at(level, noise) for level in steps.grids)

    ways: dict[tuple[object, ...], list[float]] = {}
    for noise in steps.noise:
        ways.setdefault(way(noise), []).append(noise)
    found: dict[int, float] = {}
    for merging, levels in ways.items():
        whole = [timestep_at(noise, length) for noise in levels]
        # Steps between two timesteps are rounded, which may cross the bound of a way.
        alike = [timestep for timestep in whole if way(timestep / length) == merging]
        if not alike:
            raise ConfigError(
                f"{contender.name} merges its own way at noise {levels[0]:.4f} alone, and no whole "
                f"timestep of {length} is there: move the bounds of its noise."
            )
        found[alike[len(alike) // 2]] = len(levels) / len(steps.noise)
    return found
