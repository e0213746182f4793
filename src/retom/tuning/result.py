"""What a tuning found: the schedule, what it beat, and how far predictions held."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retom.evaluation.provenance import caption
from retom.evaluation.tables import between, table

if TYPE_CHECKING:
    from pathlib import Path

    from retom.config import Config
    from retom.tuning.judging import Judged

FORMAT = 1
"""Version of the JSON form; it grows by keys alone as long as this stays."""

SCHEDULE = "schedule"
CLEAR = 0.5
"""dB more than the best uniform setting from which on the gain is called clear, if its interval
leaves out 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """A level in a stretch of noise.

    Attributes:
        level: 0 for the largest grid.
        grid: Its height and width in tokens.
        noise: (low, high), 1 for pure noise.
        calls: Of the denoiser in it, for one picture.
        merges: What merges, its specification and ratio; empty for nothing.
        saved: Share of a picture's denoiser time that is predicted to be saved.
    """

    level: int
    grid: tuple[int, int]
    noise: tuple[float, float]
    calls: int
    merges: str
    saved: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """A schedule that was tried out on the prompts that are tuned on; PSNR in dB.

    Attributes:
        speedup: Measured, of the denoiser over a picture.
        predicted_speedup: From the costs of levels.
        psnr: Measured.
        predicted_psnr: By adding up the damage of cells.
    """

    speedup: float
    predicted_speedup: float
    psnr: float
    predicted_psnr: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A uniform setting, on the prompts that are tuned on.

    Attributes:
        name: Its specification, ratio and levels.
        speedup: Measured, of the denoiser over a picture.
        psnr: In dB; None where it is slower than the schedule.
    """

    name: str
    speedup: float
    psnr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A schedule for a target; ``str()`` gives the Markdown.

    Attributes:
        config: To apply: ``retom.apply(pipe, tuned.config)``; ``tuned.config.save(path)``.
        target: In words.
        met: Whether the prompts that nothing was tuned on meet the target.
        model: Its name.
        content: What everything was measured on: sizes, steps, guidance, digest of the weights.
        ceiling: Highest predicted speed-up of any schedule of the candidates.
        schedule: Levels in stretches of noise.
        judged: The schedule first, then the best uniform setting if one is as fast, on prompts that
            nothing was tuned on.
        baselines: Uniform settings, the best first.
        predictions: Of the schedules that were tried out, the one taken last.
        left_out: Candidates that cannot merge on a level, and why.
        prompts: How many were tuned on.
        source: Command, commit, versions and hardware.
    """

    config: Config
    target: str
    met: bool
    model: str
    content: dict[str, Any]
    ceiling: float
    schedule: tuple[Step, ...]
    judged: tuple[Judged, ...]
    baselines: tuple[Baseline, ...]
    predictions: tuple[Prediction, ...]
    left_out: dict[str, str]
    prompts: int
    source: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Whether the target is met, and whether a schedule was worth it, in sentences."""
        own = self.judged[0]
        what = (
            f"On {len(own.pictures)} prompts that nothing was tuned on the denoiser is "
            f"{between(own.speedup, 2)} times as fast at {between(own.psnr, 1)} dB."
        )
        met = "That meets" if self.met else "That misses"
        sentences = [what, f"{met} the target, {self.target}."]
        if len(self.judged) == 1:
            sentences.append("No uniform setting of the candidates is as fast.")
            return " ".join(sentences)
        other, more = self.judged[1], own.more_psnr
        assert more is not None
        gain = f"{between(more, 2, signed=True)} dB against {other.name}"
        if more.value >= CLEAR and more.low > 0:
            sentences.append(
                f"The schedule is clearly better than the best uniform setting: {gain}."
            )
        elif more.high < 0:
            sentences.append(f"The best uniform setting is better: {gain}. Take that one.")
        else:
            sentences.append(
                f"Against the best uniform setting the schedule gains nothing clear: {gain}."
            )
        return " ".join(sentences)

    def save(self, path: str | Path) -> None:
        """Write the configuration, which :meth:`retom.Config.load` reads."""
        self.config.save(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = {name: getattr(self, name) for name in ("target", "met", "model", "content")}
        return {
            "format": FORMAT,
            **data,
            "config": self.config.to_dict(),
            "ceiling": self.ceiling,
            "schedule": [asdict(step) for step in self.schedule],
            "judged": [asdict(one) for one in self.judged],
            "baselines": [asdict(one) for one in self.baselines],
            "predictions": [asdict(one) for one in self.predictions],
            "left_out": self.left_out,
            "prompts": self.prompts,
            "verdict": self.verdict,
            "source": self.source,
        }

    def __str__(self) -> str:
        content = self.content
        parts = [
            f"# {self.model}, {self.target}",
            f"{content['height']}x{content['width']} px, {content['steps']} steps, guidance "
            f"{content['guidance']:g}, {content['dtype']} on {content['device']}. Tuned on "
            f"{self.prompts} prompts. The fastest schedule of these candidates is predicted to be "
            f"{self.ceiling:.2f}x.",
            self.verdict,
            f"## Schedule\n\n{table(*schedule_cells(self))}",
            f"## On other prompts\n\n{table(*judged_cells(self))}",
        ]
        if self.baselines:
            parts.append(f"## Uniform settings\n\n{table(*baseline_cells(self))}")
        parts.append(f"## Predicted and measured\n\n{table(*prediction_cells(self))}")
        if self.left_out:
            lines = [f"- {name}: {reason}" for name, reason in self.left_out.items()]
            parts.append("## Left out\n\n" + "\n".join(lines))
        return "\n\n".join([*parts, caption(self.source)]) + "\n"


Cells = tuple[list[str], list[list[str]]]
"""Header and rows of a table, as text."""


def schedule_cells(found: Tuned) -> Cells:
    """What merges where and when."""
    header = ["level", "grid", "noise", "calls", "merges", "time saved"]
    rows = [
        [
            str(step.level),
            "x".join(map(str, step.grid)),
            f"{step.noise[1]:.3g} to {step.noise[0]:.3g}",
            str(step.calls),
            step.merges or "nothing",
            f"{step.saved:.1%}",
        ]
        for step in found.schedule
    ]
    return header, rows


def judged_cells(found: Tuned) -> Cells:
    """The schedule and the best uniform setting on prompts that nothing was tuned on."""
    header = ["setting", "denoiser speed-up", "picture speed-up", "PSNR, dB", "SSIM", "dB more"]
    rows = [
        [
            one.name,
            between(one.speedup, 2),
            between(one.whole_speedup, 2),
            between(one.psnr, 2),
            between(one.ssim, 3),
            between(one.more_psnr, 2, signed=True),
        ]
        for one in found.judged
    ]
    return header, rows


def baseline_cells(found: Tuned) -> Cells:
    """Uniform settings, on the prompts that are tuned on."""
    rows = [
        [one.name, f"{one.speedup:.2f}", "too slow" if one.psnr is None else f"{one.psnr:.2f}"]
        for one in found.baselines
    ]
    return ["setting", "denoiser speed-up", "PSNR, dB"], rows


def prediction_cells(found: Tuned) -> Cells:
    """How far predictions held, on the prompts that are tuned on."""
    rows = [
        [
            f"{place}",
            f"{one.predicted_speedup:.2f}",
            f"{one.speedup:.2f}",
            f"{one.predicted_psnr:.2f}",
            f"{one.psnr:.2f}",
        ]
        for place, one in enumerate(found.predictions, start=1)
    ]
    return ["tried", "speed-up predicted", "measured", "PSNR predicted, dB", "measured"], rows
