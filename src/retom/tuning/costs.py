"""How long the layers of each level take, un-merged and merged, inside of the whole denoiser.

A call of the denoiser is timed with every candidate on all its levels, in turns with the un-merged
one, and a stopwatch at the blocks of each level tells the levels apart. What merging on a level
saves is the median over rounds of the difference within a round. Sizes alone decide how long a
layer takes, so that one noise level speaks for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import torch

from retom.evaluation.results import UNMERGED
from retom.evaluation.screening import Calls
from retom.evaluation.store import key_of
from retom.evaluation.timing import shared_copy
from retom.handle import apply
from retom.models import find_denoiser, layout_of
from retom.rounds import interleave, synchroniser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from retom.config import Config
    from retom.tuning.work import Work


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one call of the denoiser for one picture.

    Attributes:
        call: Un-merged, the median over rounds.
        levels: Of them in the blocks of each level.
        merged: The same of each level by the names of candidates, on the levels that they merge on:
            the un-merged seconds less the median saving, and at least 0.
    """

    call: float
    levels: dict[int, float]
    merged: dict[str, dict[int, float]]

    @staticmethod
    def of(rounds: Sequence[Mapping[str, Any]]) -> Costs:
        """From rounds, each of them by name ``{"call": seconds, "levels": {"0": seconds}}``."""
        base = [one[UNMERGED] for one in rounds]
        levels = {
            int(level): median(one["levels"][level] for one in base) for level in base[0]["levels"]
        }
        merged: dict[str, dict[int, float]] = {}
        for name in rounds[0]:
            if name == UNMERGED:
                continue
            savings = {
                int(level): median(
                    one[UNMERGED]["levels"][level] - one[name]["levels"][level] for one in rounds
                )
                for level in rounds[0][name]["levels"]
            }
            merged[name] = {k: max(levels[k] - saved, 0.0) for k, saved in savings.items()}
        return Costs(median(one["call"] for one in base), levels, merged)


class LevelStopwatch:
    """Adds up the seconds in the blocks of each level inside a ``with`` block.

    Enter it after merging is applied: the hooks of retom then count as part of a block.

    Args:
        denoiser: Whose blocks.
        device: Where it runs; an accelerator is waited for at both ends of a block.
    """

    def __init__(self, denoiser: nn.Module, device: torch.device) -> None:
        self.seconds: dict[int, float] = {}
        self._denoiser = denoiser
        self._wait = synchroniser(device)
        self._began = 0.0
        self._removables: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for site in layout_of(self._denoiser).sites:
            self.seconds.setdefault(site.level, 0.0)

            def stop(*_: object, level: int = site.level) -> None:
                self._wait()
                self.seconds[level] += perf_counter() - self._began

            self._removables += [
                site.block.register_forward_pre_hook(self._start, prepend=True),
                site.block.register_forward_hook(stop),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for removable in self._removables:
            removable.remove()

    def taken(self) -> dict[str, float]:
        """Seconds since the last time that this was asked, by level."""
        found = {str(level): round(seconds, 7) for level, seconds in self.seconds.items()}
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        return found

    def _start(self, *_: object) -> None:
        self._wait()
        self._began = perf_counter()


def measure_costs(work: Work) -> Costs:
    """Time every candidate on all of its levels, against un-merged."""
    configs = {candidate.name: candidate.config for candidate in work.candidates}
    timestep = work.plateaus[len(work.plateaus) // 2].timesteps[0]
    found = time_rounds(work, configs, (timestep,), "levels")
    rounds: list[dict[str, Any]] = []
    for one in found:
        rounds.append({name: values[0] for name, values in one.items()})
        for candidate in work.candidates:
            levels = rounds[-1][candidate.name]["levels"]
            kept = {k: v for k, v in levels.items() if int(k) in candidate.levels}
            rounds[-1][candidate.name]["levels"] = kept
    return Costs.of(rounds)


def measured_speedups(work: Work, configs: Mapping[str, Config], what: str) -> dict[str, float]:
    """How many times as fast each configuration's denoiser is over one picture.

    One call is timed in every plateau, and counts as often as the plateau has calls. The median of
    ratios within a round.
    """
    timesteps = tuple(plateau.timesteps[0] for plateau in work.plateaus)
    found = time_rounds(work, configs, timesteps, what)
    calls = [plateau.calls for plateau in work.plateaus]

    def whole(values: list[dict[str, Any]]) -> float:
        return sum(n * one["call"] for n, one in zip(calls, values, strict=True))

    return {
        name: median(whole(one[UNMERGED]) / whole(one[name]) for one in found) for name in configs
    }


def time_rounds(
    work: Work, configs: Mapping[str, Config], timesteps: Sequence[int], stage: str
) -> list[dict[str, list[dict[str, Any]]]]:
    """Time calls of the denoiser in turns, round by round; a round that was timed is not again.

    Args:
        work: For the model, its steps and the number of rounds.
        configs: Who is timed beside un-merged, by name.
        timesteps: Of the scheduler; everybody is called at each.
        stage: What is told.

    Returns:
        For each round and name one entry a timestep: seconds of the ``call``, and of it in the
        blocks of ``levels``.
    """
    subject, rounds = work.subject, work.settings.rounds
    samples = work.chunks[0][: work.steps.batch]
    hardware = subject.store.source["hardware"]
    content = {
        **subject.drawing(samples, None),
        "timed": {name: config.to_dict() for name, config in configs.items()},
        "timesteps": list(timesteps),
        "hardware": {name: hardware[name] for name in ("cpu", "threads", "device")},
    }
    keys = [key_of("round", {**content, "round": number}) for number in range(rounds)]
    calls: dict[str, Callable[[], object]] = {}
    watches: dict[str, LevelStopwatch] = {}
    if not all(subject.store.has_record(key) for key in keys):
        calls, watches = _ready(work, configs, timesteps)
    warm = False
    work.tell(stage, "timing", 0, rounds)
    for number, key in enumerate(keys):
        if not subject.store.has_record(key):
            values = _round(calls, watches, number, synchroniser(subject.device), warm=warm)
            subject.store.add_record(key, {**content, "round": number}, values)
            warm = True
        work.tell(stage, "timing", number + 1, rounds)
    return [subject.store.record(key)["values"] for key in keys]


def _ready(
    work: Work, configs: Mapping[str, Config], timesteps: Sequence[int]
) -> tuple[dict[str, Callable[[], object]], dict[str, LevelStopwatch]]:
    subject = work.subject
    samples = work.chunks[0][: work.steps.batch]
    call = Calls(subject, samples).alone
    plain = find_denoiser(subject.pipe)
    at = [call.at(subject.noisy(samples, timestep), timestep) for timestep in timesteps]
    calls: dict[str, Callable[[], object]] = {}
    watches: dict[str, LevelStopwatch] = {}
    for name, config in {UNMERGED: None, **configs}.items():
        denoiser = shared_copy(plain)
        if config is not None:
            apply(denoiser, config)
        watches[name] = LevelStopwatch(denoiser, subject.device).__enter__()  # copies: never left
        for place, ready in enumerate(at):
            calls[f"{place} {name}"] = lambda ready=ready, denoiser=denoiser: ready(denoiser)
    return calls, watches


def _round(
    calls: Mapping[str, Callable[[], object]],
    watches: Mapping[str, LevelStopwatch],
    number: int,
    wait: Callable[[], None],
    *,
    warm: bool,
) -> dict[str, list[dict[str, Any]]]:
    """One round; who is first depends on its number."""
    names = list(calls)
    first = number * len(names) // 7 % len(names)  # 7 is no divisor of most numbers of calls
    order = names[first:] + names[:first]
    if not warm:
        interleave({name: calls[name] for name in order}, 0, warmup=1, synchronise=wait)
        for watch in watches.values():
            watch.taken()
    found: dict[str, list[dict[str, Any]]] = {}
    for label in order:
        seconds = interleave({label: calls[label]}, 1, warmup=0, synchronise=wait)[label][0]
        place, _, name = label.partition(" ")
        entry = {"place": int(place), "call": round(seconds, 7), "levels": watches[name].taken()}
        found.setdefault(name, []).append(entry)
    return {name: sorted(values, key=lambda one: one["place"]) for name, values in found.items()}
