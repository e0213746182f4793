"""Stretches of a picture's steps on which a schedule does not change."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from retom.evaluation.noise import timestep_at

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Plateau:
    """A stretch of noise on which nothing changes.

    Attributes:
        noise: (low, high), 1 for pure noise.
        calls: Of the denoiser in it, for one picture.
        timesteps: Of the scheduler, one or two in it, the least noisy first.
    """

    noise: tuple[float, float]
    calls: int
    timesteps: tuple[int, ...]


def plateaus(calls: Sequence[float], count: int, length: int) -> tuple[Plateau, ...]:
    """Stretches with as equal a number of steps as can be, from pure noise down.

    Their edges lie between steps.

    Args:
        calls: Noise of each call of the denoiser for one picture.
        count: How many; there are no more than steps.
        length: Of the scheduler's training schedule, in timesteps.
    """
    steps = sorted(set(calls), reverse=True)
    count = min(count, len(steps))
    cuts = [round(place * len(steps) / count) for place in range(count + 1)]
    groups = [steps[a:b] for a, b in pairwise(cuts)]
    edges = [1.0, *(round((a[-1] + b[0]) / 2, 6) for a, b in pairwise(groups)), 0.0]
    found: list[Plateau] = []
    for group, (high, low) in zip(groups, pairwise(edges), strict=True):
        shown = sorted(group)
        places = [len(shown) // 4, len(shown) - 1 - len(shown) // 4]
        timesteps = {timestep_at(shown[place], length) for place in places}
        inside = sum(noise in group for noise in calls)
        found.append(Plateau((low, high), inside, tuple(sorted(timesteps))))
    return tuple(found)
