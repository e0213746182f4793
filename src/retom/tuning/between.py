"""Candidates at ratios between the measured ones, so that a schedule can spend its time finely.

A uniform setting takes any ratio. A schedule of the few measured ones would lose to it where every
stretch of noise minds alike, by the coarseness of its choices. Between two measured ratios of a
specification seconds lie on a line, and damage on a line in logarithms of both. Windows
that follow the ratio (``window="auto"``) may change in between; errors do not jump where they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from retom.rules import method_options
from retom.tuning.candidates import Candidate
from retom.tuning.costs import Costs
from retom.tuning.schedule import cells_of

if TYPE_CHECKING:
    from torch import Tensor

    from retom.tuning.damage import Damage
    from retom.tuning.work import Work

STEP = 0.025
"""Between ratios."""

FAINT = 1e-12
"""Damage below this counts as this, so that it has a logarithm."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Candidates at more ratios than were measured.

    Attributes:
        work: With them in place of the measured ones.
        costs: Seconds of all.
        damage: Of all.
    """

    work: Work
    costs: Costs
    damage: Damage


def dense(work: Work, costs: Costs, damage: Damage) -> Dense:
    """Add what lies between neighbouring ratios of each specification, level by level."""
    candidates = list(work.candidates)
    merged = {name: dict(levels) for name, levels in costs.merged.items()}
    harm = dict(damage)
    specs: dict[str, list[Candidate]] = {}
    for candidate in work.candidates:
        if "ratio" in method_options(candidate.method):
            specs.setdefault(candidate.spec, []).append(candidate)
    for spec, members in specs.items():
        members.sort(key=lambda candidate: candidate.method.ratio)
        for low, high in pairwise(members):
            levels = tuple(level for level in low.levels if level in high.levels)
            for ratio in _ratios(low, high) if levels else ():
                config = replace(low.config, levels=levels).with_options(ratio=ratio)
                made = Candidate(f"{spec} · {ratio:g}", spec, config, levels)
                candidates.append(made)
                at = low.method.ratio, high.method.ratio, ratio
                merged[made.name] = {
                    level: on_line(
                        costs.merged[low.name][level], costs.merged[high.name][level], at
                    )
                    for level in levels
                }
                for cell in cells_of(levels, len(work.plateaus)):
                    ends = damage[low.name, cell], damage[high.name, cell]
                    harm[made.name, cell] = on_log_line(*ends, at)
    return Dense(
        replace(work, candidates=candidates), Costs(costs.call, costs.levels, merged), harm
    )


def on_line(low: float, high: float, at: tuple[float, float, float]) -> float:
    """The value at the third of three ratios, from those at the first and second."""
    share = (at[2] - at[0]) / (at[1] - at[0])
    return low + share * (high - low)


def on_log_line(low: Tensor, high: Tensor, at: tuple[float, float, float]) -> Tensor:
    """The same, where the logarithm of the value is on a line over that of the ratio."""
    share = math.log(at[2] / at[0]) / math.log(at[1] / at[0])
    one, other = (value.clamp_min(FAINT).log() for value in (low, high))
    return (one + share * (other - one)).exp()


def _ratios(low: Candidate, high: Candidate) -> list[float]:
    """Multiples of the step strictly between two candidates' ratios."""
    first = math.floor(low.method.ratio / STEP + 1e-6) + 1
    last = math.ceil(high.method.ratio / STEP - 1e-6) - 1
    return [round(step * STEP, 6) for step in range(first, last + 1)]
