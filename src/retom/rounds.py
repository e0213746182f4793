"""Timing in rounds: each runs every call once, so that ratios can be taken within a round."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 2,
    synchronise: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Time calls in rounds, each call once a round, in one process.

    The round's first call rotates, so that nobody always runs behind the same neighbour, and a
    slow minute of the machine hits all alike.

    Args:
        calls: What to time, by name.
        rounds: Timed rounds.
        warmup: Rounds before them that are not timed.
        synchronise: Called before each reading of the clock.
        clock: Seconds.
        on_round: Told after each timed round how many are done.

    Returns:
        Seconds of each call, one entry a round.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            synchronise()
            begin = clock()
            calls[name]()
            synchronise()
            end = clock()
            if number >= 0:
                seconds[name].append(end - begin)
        if number >= 0:
            on_round(number + 1)
    return seconds


def synchroniser(device: torch.device | str) -> Callable[[], None]:
    """What waits until ``device`` has finished all work given to it."""
    place = torch.device(device)
    if place.type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(place)
