"""The tables that the solver reads, and the schedule that it finds in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retom.tuning.candidates import families
from retom.tuning.schedule import cells_of, schedule
from retom.tuning.solver import UNITS, fastest, least_damage, least_time, mean_psnr, total_damage

if TYPE_CHECKING:
    from torch import Tensor

    from retom.config import Config
    from retom.tuning.candidates import Candidate
    from retom.tuning.costs import Costs
    from retom.tuning.damage import Damage
    from retom.tuning.plateaus import Plateau
    from retom.tuning.schedule import Cell
    from retom.tuning.work import Work


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Times and damage of one family of candidates.

    Attributes:
        cells: Levels in stretches of noise.
        options: Not to merge (None), then the family's candidates.
        times: Units of :data:`~retom.tuning.solver.UNITS`, int64 (K, J), rounded up.
        damage: float64 (K, J, n); infinite where a candidate cannot merge.
        seconds: Of a whole picture's denoiser calls un-merged.
        outside: Of them outside of all cells.
    """

    cells: list[Cell]
    options: list[Candidate | None]
    times: Tensor
    damage: Tensor
    seconds: float
    outside: float

    @staticmethod
    def of(work: Work, costs: Costs, damage: Damage, family: list[Candidate]) -> Table:
        """Put together what was measured."""
        cells = cells_of(work.levels, len(work.plateaus))
        options: list[Candidate | None] = [None, *family]
        pictures = sum(len(samples) for samples in work.chunks)
        calls = sum(plateau.calls for plateau in work.plateaus)
        seconds = calls * costs.call
        times = torch.zeros(len(cells), len(options), dtype=torch.int64)
        harm = torch.full((len(cells), len(options), pictures), torch.inf, dtype=torch.float64)
        for k, cell in enumerate(cells):
            for j, option in enumerate(options):
                taken = costs.levels[cell.level]
                if option is None:
                    harm[k, j] = 0.0
                elif cell.level in option.levels:
                    harm[k, j] = damage[option.name, cell]
                    taken = costs.merged[option.name][cell.level]
                taken *= work.plateaus[cell.plateau].calls
                times[k, j] = math.ceil(UNITS * taken / seconds)
        inside = sum(costs.levels[cell.level] * work.plateaus[cell.plateau].calls for cell in cells)
        return Table(cells, options, times, harm, seconds, max(seconds - inside, 0.0))

    def budget(self, speedup: float) -> int:
        """Units that the cells may take for a speed-up; negative where there is none."""
        return math.floor(UNITS * (1 / speedup - self.outside / self.seconds) + 1e-9)

    def speedup(self, choices: list[int]) -> float:
        """Predicted speed-up of the denoiser over a whole picture."""
        units = sum(int(self.times[k, j]) for k, j in enumerate(choices))
        return 1 / (self.outside / self.seconds + units / UNITS)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A schedule, and what is predicted of it.

    Attributes:
        chosen: What each cell merges by; None not to merge.
        config: The same as a configuration; None where nothing merges.
        speedup: Predicted, of the denoiser over a whole picture.
        psnr: Predicted, in dB, the mean over the pictures that are tuned on.
        damage: Predicted mean squared error of each of these, float64 (n,).
    """

    chosen: dict[Cell, Candidate | None]
    config: Config | None
    speedup: float
    psnr: float
    damage: Tensor

    @staticmethod
    def of(table: Table, choices: list[int], plateaus: tuple[Plateau, ...]) -> Choice:
        """From the solver's answer."""
        chosen = {cell: table.options[j] for cell, j in zip(table.cells, choices, strict=True)}
        merges = any(candidate is not None for candidate in chosen.values())
        return Choice(
            chosen=chosen,
            config=schedule(chosen, plateaus) if merges else None,
            speedup=table.speedup(choices),
            psnr=mean_psnr(table.damage, choices),
            damage=total_damage(table.damage, choices),
        )


class Chooser:
    """Finds schedules in what was measured, over all families of candidates."""

    def __init__(self, work: Work, costs: Costs, damage: Damage) -> None:
        self._plateaus = work.plateaus
        self._tables = [
            Table.of(work, costs, damage, family) for family in families(work.candidates)
        ]

    def fastest(self) -> Choice:
        """The schedule of the highest predicted speed-up: the ceiling here."""
        found = [self._choice(t, fastest(t.times, t.damage)) for t in self._tables]
        return max(found, key=lambda choice: choice.speedup)

    def at_speedup(self, speedup: float) -> Choice | None:
        """The highest predicted PSNR at a predicted speed-up; None where it is out of reach."""
        found: list[Choice] = []
        for table in self._tables:
            budget = table.budget(speedup)
            quickest = table.speedup(fastest(table.times, table.damage))
            if budget >= 0 and quickest >= speedup:
                found.append(self._choice(table, least_damage(table.times, table.damage, budget)))
        return max(found, key=lambda choice: choice.psnr, default=None)

    def at_psnr(self, psnr: float) -> Choice:
        """The highest predicted speed-up at a predicted PSNR; not to merge always reaches it."""
        found: list[Choice] = []
        for table in self._tables:
            most = int(table.times[:, 0].sum())
            choices = least_time(table.times, table.damage, psnr, most)
            if choices is not None:
                found.append(self._choice(table, choices))
        return max(found, key=lambda choice: choice.speedup)

    def _choice(self, table: Table, choices: list[int]) -> Choice:
        return Choice.of(table, choices, self._plateaus)


def ceiling(work: Work, costs: Costs) -> float:
    """Highest speed-up of any schedule, from times alone: every level at its fastest throughout."""
    found: list[float] = []
    for family in families(work.candidates):
        call = costs.call
        for level in work.levels:
            able = [costs.merged[c.name][level] for c in family if level in c.levels]
            call += min(able, default=costs.levels[level]) - costs.levels[level]
        found.append(costs.call / call)
    return max(1.0, *found)
