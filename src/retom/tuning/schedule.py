"""From the choice of each level and stretch of noise to a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retom.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.config import Config
    from retom.methods import Method
    from retom.tuning.candidates import Candidate
    from retom.tuning.plateaus import Plateau


@dataclass(frozen=True, slots=True)
class Cell:
    """A level in a stretch of noise.

    Attributes:
        level: 0 for the largest grid.
        plateau: Place among the plateaus, 0 for the noisiest.
    """

    level: int
    plateau: int


def cells_of(levels: Sequence[int], plateaus: int) -> list[Cell]:
    """Every level in every stretch of noise, level by level."""
    return [Cell(level, place) for level in levels for place in range(plateaus)]


def schedule(chosen: dict[Cell, Candidate | None], plateaus: Sequence[Plateau]) -> Config:
    """The configuration in which every cell merges by its choice.

    The method that most calls use on a level is the configuration's own, and rules say where it is
    another one or none. Stretches next to each other with the same choice become one.

    Args:
        chosen: For each cell a candidate, all of one family, or None not to merge; at least one
            merges.
        plateaus: From pure noise down.
    """
    votes: dict[Method, int] = {}
    for cell, candidate in chosen.items():
        if candidate is not None:
            calls = plateaus[cell.plateau].calls
            votes[candidate.method] = votes.get(candidate.method, 0) + calls
    base = max(votes, key=lambda method: votes[method])
    levels = sorted({cell.level for cell in chosen})
    by_level = {level: _methods(chosen, level, len(plateaus)) for level in levels}
    own = tuple(level for level in levels if base in by_level[level])
    rules: list[Rule] = []
    for level in levels:
        default = base if level in own else None
        rules += _rules(by_level[level], level, default, plateaus)
    family = next(candidate.config for candidate in chosen.values() if candidate is not None)
    return replace(family, method=base, levels=own, rules=tuple(rules))


def alone(candidate: Candidate, cell: Cell, plateaus: Sequence[Plateau]) -> Config:
    """The configuration in which one cell merges, and nothing else."""
    nothing = dict.fromkeys(cells_of([cell.level], len(plateaus)))
    return schedule({**nothing, cell: candidate}, plateaus)


def _methods(
    chosen: dict[Cell, Candidate | None], level: int, plateaus: int
) -> list[Method | None]:
    found = [chosen[Cell(level, place)] for place in range(plateaus)]
    return [None if candidate is None else candidate.method for candidate in found]


def _rules(
    methods: list[Method | None], level: int, default: Method | None, plateaus: Sequence[Plateau]
) -> list[Rule]:
    """Where a level does not merge by default, from pure noise down."""
    found: list[Rule] = []
    first = 0
    for place in range(1, len(methods) + 1):
        if place < len(methods) and methods[place] == methods[first]:
            continue
        if methods[first] != default:
            noise = plateaus[place - 1].noise[0], plateaus[first].noise[1]
            found.append(Rule(method=methods[first], levels=(level,), noise=noise))
        first = place
    return found
