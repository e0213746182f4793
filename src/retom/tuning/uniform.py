"""What a schedule has to beat: the best setting that is the same at all noise, equally fast.

Every specification among the candidates is taken at the ratio that makes it as fast as the
schedule, on the largest grid alone and on every level. The ratio is read off the measured costs,
timed, and corrected once. Whichever of them draws closest to un-merged, on the prompts that are
tuned on, is the one to beat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from retom.errors import ConfigError
from retom.rules import method_options
from retom.tuning.aiming import tuned_psnr
from retom.tuning.costs import measured_speedups

if TYPE_CHECKING:
    from retom.config import Config
    from retom.tuning.candidates import Candidate
    from retom.tuning.costs import Costs
    from retom.tuning.work import Work

STEP = 0.005
"""Ratios are tried in steps of this."""

AS_FAST = 0.98
"""Share of the schedule's measured speed-up from which on a setting counts as equally fast."""


@dataclass(frozen=True, slots=True)
class Uniform:
    """A setting that is the same at all noise.

    Attributes:
        name: Its specification, ratio and levels.
        config: It.
        speedup: Measured, of the denoiser over a picture.
        psnr: In dB on the prompts that are tuned on; None where it is not fast enough to count.
    """

    name: str
    config: Config
    speedup: float
    psnr: float | None


@dataclass(frozen=True, slots=True)
class _Line:
    """A specification on some levels, at any ratio up to its highest.

    Attributes:
        spec: The specification.
        levels: On which it merges.
        points: Candidates of it, by ratio.
    """

    spec: str
    levels: tuple[int, ...]
    points: tuple[Candidate, ...]

    def seconds(self, costs: Costs, ratio: float) -> float:
        """One call's, between the measured ratios on a line; un-merged at ratio 0."""
        total = costs.call
        for level in self.levels:
            base = costs.levels[level]
            known = [(0.0, base)]
            known += [(c.method.ratio, costs.merged[c.name][level]) for c in self.points]
            total += _between(known, ratio) - base
        return total

    def at(self, ratio: float) -> Config:
        """The setting at a ratio."""
        config = replace(self.points[0].config, levels=self.levels)
        if "ratio" in method_options(config.method):
            return config.with_options(ratio=round(ratio, 4))
        return config

    def ratio_for(self, costs: Costs, speedup: float) -> float | None:
        """The lowest ratio that is predicted to be so fast; None where none is."""
        highest = self.points[-1].method.ratio
        if "ratio" not in method_options(self.points[0].method):
            return highest if costs.call / self.seconds(costs, highest) >= speedup else None
        for step in range(1, round(highest / STEP) + 1):
            ratio = min(step * STEP, highest)
            if costs.call / self.seconds(costs, ratio) >= speedup:
                return ratio
        return None


def uniforms(work: Work, costs: Costs, speedup: float) -> list[Uniform]:
    """Settings as fast as a schedule, the closest to un-merged first; those too slow last.

    Args:
        work: For the candidates, and for what is measured.
        costs: Of the levels.
        speedup: The schedule's, measured on the denoiser.
    """
    ratios: dict[_Line, float] = {}
    for line in _lines(work):
        ratio = line.ratio_for(costs, speedup)
        if ratio is not None:
            ratios[line] = ratio
    if not ratios:
        return []
    first = measured_speedups(work, _named(ratios), "uniform settings")
    corrected: dict[_Line, float] = {}
    for line, ratio in ratios.items():
        predicted = costs.call / line.seconds(costs, ratio)
        wanted = speedup * predicted / first[_name(line, ratio)]
        corrected[line] = line.ratio_for(costs, wanted) or line.points[-1].method.ratio
    second = measured_speedups(work, _named(corrected), "uniform settings again")
    found: dict[str, Uniform] = {}
    for speedups, at in ((first, ratios), (second, corrected)):
        for line, ratio in at.items():
            name = _name(line, ratio)
            fast = speedups[name] >= AS_FAST * speedup
            psnr = tuned_psnr(work, line.at(ratio), "uniform") if fast else None
            found[name] = Uniform(name, line.at(ratio), speedups[name], psnr)
    return sorted(found.values(), key=lambda one: -1.0 if one.psnr is None else one.psnr)[::-1]


def _lines(work: Work) -> list[_Line]:
    specs: dict[str, list[Candidate]] = {}
    for candidate in work.candidates:
        specs.setdefault(candidate.spec, []).append(candidate)
    found: list[_Line] = []
    for spec, members in specs.items():
        for levels in dict.fromkeys((work.levels[:1], work.levels)):
            able = [c for c in members if set(levels) <= set(c.levels)]
            able.sort(key=lambda candidate: candidate.method.ratio)
            if able:
                found.append(_Line(spec, levels, tuple(able)))
    return found


def _named(ratios: dict[_Line, float]) -> dict[str, Config]:
    return {_name(line, ratio): line.at(ratio) for line, ratio in ratios.items()}


def _name(line: _Line, ratio: float) -> str:
    levels = ", ".join(map(str, line.levels))
    return f"{line.spec} · {ratio:.4g} on level{'s' if len(line.levels) > 1 else ''} {levels}"


def _between(points: list[tuple[float, float]], at: float) -> float:
    """The value at a place on the line through points, in ascending order of their places."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    raise ConfigError(f"There is nothing measured at {at:g}, beyond {points[-1][0]:g}.")
