"""What merging on a level, in a stretch of noise, does to the pictures that are tuned on.

The denoiser's error on given latents ranks candidates cheaply, but an error at high noise moves the
picture in another measure than one of the same size at low noise. So on every level and plateau one
candidate, the *probe*, is drawn with alone, and the mean squared error of its pictures is the
measure: another candidate's damage there is the probe's, times the ratio of the squares of their
teacher-forced errors in that plateau. With ``thorough`` every candidate is drawn with, and nothing
is inferred.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import torch

from retom.evaluation.pairs import paired
from retom.evaluation.screening import screen, screening_key
from retom.tuning.schedule import Cell, alone, cells_of

if TYPE_CHECKING:
    from torch import Tensor

    from retom.config import Config
    from retom.evaluation.contenders import Contender
    from retom.tuning.candidates import Candidate
    from retom.tuning.work import Work

Errors = dict[tuple[str, int], list[float]]
"""Squared relative error of a candidate on a level, one a plateau, the mean over pictures."""

Damage = dict[tuple[str, Cell], "Tensor"]
"""Mean squared error of each picture with a candidate in a cell, float64 (n,)."""


def measure_damage(work: Work) -> Damage:
    """The damage of every candidate in every cell that it can merge in."""
    errors = _errors(work)
    probes = {level: _probe(work, errors, level) for level in work.levels}
    cells = cells_of(work.levels, len(work.plateaus))
    drawn: Damage = {}
    todo = [
        (candidate, cell)
        for cell in cells
        for candidate in work.candidates
        if cell.level in candidate.levels
        and (work.settings.thorough or candidate.name == probes[cell.level])
    ]
    work.tell("pictures", "starting", 0, len(todo))
    for done, (candidate, cell) in enumerate(todo, start=1):
        config = alone(candidate, cell, work.plateaus)
        where = f"on level {cell.level}, plateau {cell.plateau}"
        drawn[candidate.name, cell] = picture_errors(work, candidate.contender(config, where))
        work.tell("pictures", f"{candidate.name} {where}", done, len(todo))
    if work.settings.thorough:
        return drawn
    found: Damage = {}
    for candidate in work.candidates:
        for cell in cells:
            if cell.level not in candidate.levels:
                continue
            probe = probes[cell.level]
            own = errors[candidate.name, cell.level][cell.plateau]
            of_probe = errors[probe, cell.level][cell.plateau]
            factor = 1.0 if own == of_probe else own / max(of_probe, 1e-20)
            found[candidate.name, cell] = drawn[probe, cell] * factor
    return found


def picture_errors(work: Work, contender: Contender) -> Tensor:
    """Mean squared error of each picture that is tuned on to the un-merged one, float64 (n,).

    Of 8-bit pictures, as they are kept; 1e-10 for equal ones.
    """
    found: list[float] = []
    for samples in work.chunks:
        reference = work.subject.drawn(samples, None)
        pictures = work.subject.drawn(samples, contender)
        found += paired(work.subject.store, pictures, reference, None)["psnr"]
    return 10 ** (-torch.tensor(found, dtype=torch.float64) / 10)


def on_level(candidate: Candidate, level: int) -> Config:
    """A candidate on one level at all noise."""
    return candidate.config.with_options(levels=(level,))


def _errors(work: Work) -> Errors:
    subject = work.subject
    timesteps = [t for plateau in work.plateaus for t in plateau.timesteps]
    subject.timesteps = timesteps
    contenders = {
        (candidate.name, level): candidate.contender(
            on_level(candidate, level), f"on level {level}"
        )
        for candidate in work.candidates
        for level in candidate.levels
    }
    total = len(contenders) * len(work.chunks)
    work.tell("screening", "starting", 0, total)
    done = 0
    rows: dict[tuple[str, int], list[list[float]]] = {key: [] for key in contenders}
    for samples in work.chunks:
        measured = [
            subject.store.has_record(screening_key(subject, samples, contender))
            for contender in contenders.values()
        ]
        done += sum(measured)
        for contender in screen(subject, samples, list(contenders.values())):
            done += 1
            work.tell("screening", contender.name, done, total)
        for key, contender in contenders.items():
            record = subject.store.record(screening_key(subject, samples, contender))
            rows[key] += record["values"]["errors"]
    return {key: _by_plateau(work, values) for key, values in rows.items()}


def _by_plateau(work: Work, rows: list[list[float]]) -> list[float]:
    found: list[float] = []
    start = 0
    for plateau in work.plateaus:
        end = start + len(plateau.timesteps)
        found.append(fmean(error**2 for row in rows for error in row[start:end]))
        start = end
    return found


def _probe(work: Work, errors: Errors, level: int) -> str:
    """The candidate in the middle, by error: neither too gentle to measure nor too rough."""
    able = [c.name for c in work.candidates if level in c.levels]
    ranked = sorted(able, key=lambda name: fmean(errors[name, level]))
    return ranked[len(ranked) // 2]
