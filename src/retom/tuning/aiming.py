"""Schedules tried out until what is measured meets the target, not only what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retom.errors import ConfigError
from retom.tuning.costs import measured_speedups
from retom.tuning.damage import picture_errors
from retom.tuning.settings import MOST_DB

if TYPE_CHECKING:
    from retom.config import Config
    from retom.tuning.choosing import Choice, Chooser
    from retom.tuning.costs import Costs
    from retom.tuning.work import Work

TRIES = 4
SPEED_TOLERANCE = 0.01
"""Share of the target that a measured speed-up may lack: less than timings vary."""

PSNR_TOLERANCE = 0.05
"""In dB, the same."""

ENOUGH_SPEED = 0.03
"""Share above the target from which on a slower schedule is tried."""

ENOUGH_PSNR = 0.5
"""In dB, the same for pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A schedule, predicted and measured on the prompts that are tuned on.

    Attributes:
        choice: It, and what is predicted.
        speedup: Measured, of the denoiser over a picture.
        psnr: Measured, in dB, the mean over pictures.
    """

    choice: Choice
    speedup: float
    psnr: float


def aim(work: Work, chooser: Chooser) -> list[Tried]:
    """Schedules that were tried out, the one to take last.

    Raises:
        ConfigError: The target is out of reach here.
    """
    speedup, psnr = work.settings.target_speedup, work.settings.target_psnr
    if speedup is not None:
        tried = _at_speedup(work, chooser, speedup)
        good = [one for one in tried if one.speedup >= speedup * (1 - SPEED_TOLERANCE)]
        best = max(good, key=lambda one: one.psnr, default=None)
        best = best or max(tried, key=lambda one: one.speedup)
    else:
        assert psnr is not None
        tried = _at_psnr(work, chooser, psnr)
        good = [one for one in tried if one.psnr >= psnr - PSNR_TOLERANCE]
        best = max(good, key=lambda one: one.speedup, default=None)
        best = best or max(tried, key=lambda one: one.psnr)
    return [*(one for one in tried if one is not best), best]


def check_reachable(work: Work, costs: Costs, ceiling: float) -> None:
    """Refuse a target that times alone put out of reach, before anything is drawn.

    Args:
        work: For the target and the candidates.
        costs: Of the levels.
        ceiling: Highest speed-up of any schedule, see :func:`~retom.tuning.choosing.ceiling`.

    Raises:
        ConfigError: It is; the message says what is the most here.
    """
    target = work.settings.target_speedup
    if target is not None and ceiling < target:
        raise ConfigError(_out_of_reach(work, costs, target, ceiling))
    if ceiling <= 1:
        size = f"{work.subject.height}x{work.subject.width}"
        raise ConfigError(
            f"No candidate makes the denoiser faster on this machine at {size} px, so that no "
            f"schedule is better than none at {work.settings.target}. Merging pays at larger "
            "pictures; retom explain says from which size on."
        )


def _at_speedup(work: Work, chooser: Chooser, target: float) -> list[Tried]:
    ceiling = chooser.fastest().speedup
    tried: list[Tried] = []
    seen: list[Config] = []
    goal = target
    for _ in range(TRIES):
        choice = chooser.at_speedup(min(goal, ceiling))
        if choice is None or choice.config is None or choice.config in seen:
            break
        seen.append(choice.config)
        one = _try(work, choice, len(tried))
        tried.append(one)
        if target * (1 - SPEED_TOLERANCE) <= one.speedup <= target * (1 + ENOUGH_SPEED):
            break
        goal *= target / one.speedup
    return tried


def _at_psnr(work: Work, chooser: Chooser, target: float) -> list[Tried]:
    tried: list[Tried] = []
    seen: list[Config] = []
    goal = target
    for _ in range(TRIES):
        choice = chooser.at_psnr(min(max(goal, 1.0), MOST_DB))
        if choice.config is None or choice.config in seen:
            break
        seen.append(choice.config)
        one = _try(work, choice, len(tried))
        tried.append(one)
        if target - PSNR_TOLERANCE <= one.psnr <= target + ENOUGH_PSNR:
            break
        goal += target - one.psnr
    if not tried:
        raise ConfigError(_nothing_to_gain(work, chooser, target))
    return tried


def _try(work: Work, choice: Choice, number: int) -> Tried:
    """Time a schedule, and draw with it."""
    assert choice.config is not None
    stage = f"schedule {number + 1}"
    speedups = measured_speedups(work, {"schedule": choice.config}, stage)
    return Tried(choice, speedups["schedule"], tuned_psnr(work, choice.config, "schedule"))


def tuned_psnr(work: Work, config: Config, name: str) -> float:
    """Mean PSNR in dB of a configuration on the prompts that are tuned on."""
    errors = picture_errors(work, work.candidates[0].contender(config, name))
    return float((-10 * torch.log10(errors)).mean())


def _out_of_reach(work: Work, costs: Costs, target: float, ceiling: float) -> str:
    shares = {level: seconds / costs.call for level, seconds in costs.levels.items()}
    able = sum(shares[level] for level in work.levels)
    parts = ", ".join(
        f"level {level} ({work.steps.grids[level]} tokens) {share:.0%}"
        for level, share in shares.items()
    )
    free = f"{1 / (1 - able):.2f}x" if able < 1 else "no bound"
    ratio = max(candidate.method.ratio for candidate in work.candidates)
    size = f"{work.subject.height}x{work.subject.width}"
    gains = (
        f"The most that these candidates reach is {ceiling:.2f}x"
        if ceiling > 1
        else "No candidate makes the denoiser faster"
    )
    return (
        f"A denoiser {target:g} times as fast is out of reach on this machine at {size} px. "
        f"{gains}, at every noise level. Blocks take of its time: {parts}; if those of the levels "
        f"that may merge took none it would be {free}. What raises it: larger pictures, more "
        f"levels, a wider scope, ratios above {ratio:g}."
    )


def _nothing_to_gain(work: Work, chooser: Chooser, target: float) -> str:
    fastest = chooser.fastest()
    return (
        f"No candidate that saves time keeps pictures at {target:g} dB, even on one level in one "
        f"stretch of noise. The fastest schedule is {fastest.speedup:.2f}x as fast at a predicted "
        f"{fastest.psnr:.1f} dB. Ask for less, use more plateaus, or gentler candidates, such as "
        f"ratios below {min(candidate.method.ratio for candidate in work.candidates):g}."
    )
