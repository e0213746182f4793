"""``retom.tune``: the schedule of least damage for a speed, or of most speed for a closeness."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from retom.drawing.generation import check_size
from retom.drawing.loading import Model, as_model
from retom.errors import ConfigError
from retom.evaluation.noise import schedule_length
from retom.evaluation.prompts import prompts_of
from retom.evaluation.provenance import provenance
from retom.evaluation.steps import steps_of
from retom.evaluation.store import Store
from retom.evaluation.subject import Subject
from retom.handle import handle_of
from retom.models import find_denoiser, find_entry, layout_of
from retom.tuning.aiming import aim, check_reachable
from retom.tuning.between import dense
from retom.tuning.candidates import candidates_of
from retom.tuning.choosing import Chooser, ceiling
from retom.tuning.costs import measure_costs
from retom.tuning.damage import measure_damage
from retom.tuning.judging import judge
from retom.tuning.plateaus import plateaus
from retom.tuning.result import SCHEDULE, Baseline, Prediction, Step, Tuned
from retom.tuning.settings import Settings, check_target
from retom.tuning.uniform import uniforms
from retom.tuning.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.tuning.aiming import Tried
    from retom.tuning.costs import Costs
    from retom.tuning.judging import Judged
    from retom.tuning.uniform import Uniform
    from retom.tuning.work import OnProgress


MET = 0.02
"""Share of a target speed-up that may be lacking on other prompts: timings vary by so much."""


def _silent(stage: str, what: str, done: int, total: int) -> None:
    """Tell nobody."""


def tune(
    target: object,
    settings: Settings | None = None,
    folder: Path | str | None = None,
    *,
    target_speedup: float | None = None,
    target_psnr: float | None = None,
    command: Sequence[str] = ("retom.tune",),
    on_progress: OnProgress = _silent,
    **options: Any,  # noqa: ANN401 - of the settings
) -> Tuned:
    """Find a schedule: what merges on which level, in which stretch of noise.

    The layers of each level are timed with every candidate; what each does to pictures is measured
    on a few prompts, see :mod:`retom.tuning.damage`; :mod:`retom.tuning.solver` picks. The schedule
    is tried out and corrected until what is measured meets the target, and judged on other prompts
    beside the best setting that is the same at all noise and equally fast.

    Args:
        target: A diffusers text-to-image pipeline without merging applied.
        settings: What is tuned for; in its place one of the two targets and ``options``.
        folder: Where measurements are kept: killed and started again, nothing is measured twice.
            None keeps none.
        target_speedup: How many times as fast the denoiser is to be over a whole picture.
        target_psnr: Mean PSNR in dB of merged pictures to un-merged ones of the same seed.
        command: Stands in the result.
        on_progress: Told of every piece of work.
        **options: Of :class:`retom.tuning.settings.Settings`: ``height=1024``, ``tuning=8``, ...
            Prompts that come along are used if none are given.

    Returns:
        The configuration, and what was measured; ``print`` shows it.

    Raises:
        ConfigError: An option is out of its range, merging is applied, the pipeline is compiled, or
            the target is out of reach: the message says what is the most here.
        RetomError: As :func:`retom.apply`.

    Example:
        >>> tuned = retom.tune(pipe, target_speedup=1.3, height=1024, width=1024)  # doctest: +SKIP
        >>> tuned.save("tuned.json")  # doctest: +SKIP
        >>> handle = retom.apply(pipe, retom.Config.load("tuned.json"))  # doctest: +SKIP
    """
    settings = _settings(settings, target_speedup, target_psnr, options)
    model = target if isinstance(target, Model) else as_model(target)
    if handle_of(model.pipe) is not None:
        raise ConfigError(
            "Merging is applied to this pipeline; call handle.remove() first: tuning applies every "
            "candidate itself."
        )
    if find_entry(model.pipe) is not find_denoiser(model.pipe):
        raise ConfigError(
            "This pipeline's denoiser is compiled, and every candidate would compile it anew. "
            "Tune the pipeline as it is loaded; compile it before applying what was found."
        )
    source = provenance(command, model.device)
    with ExitStack() as stack:
        folder = folder or stack.enter_context(TemporaryDirectory(prefix="retom-tune-"))
        store = stack.enter_context(Store(folder, source))
        subject = Subject(model, settings.measured, store)
        check_size(model, subject.height, subject.width)
        work, left_out = _work(subject, settings, on_progress)
        costs = measure_costs(work)
        most = ceiling(work, costs)
        check_reachable(work, costs, most)
        finer = dense(work, costs, measure_damage(work))
        tried = aim(work, Chooser(finer.work, finer.costs, finer.damage))
        found = tried[-1].choice.config
        assert found is not None
        baselines = uniforms(work, costs, tried[-1].speedup)
        configs = {SCHEDULE: found}
        configs |= {one.name: one.config for one in baselines[:1] if one.psnr is not None}
        judged = judge(work, configs)
        return Tuned(
            config=found,
            target=settings.target,
            met=_met(settings, judged[0]),
            model=Path(model.name).name,
            content=subject.content,
            ceiling=most,
            schedule=_steps(work, finer.costs, tried[-1]),
            judged=tuple(judged),
            baselines=tuple(_baseline(one) for one in baselines),
            predictions=tuple(_prediction(one) for one in tried),
            left_out=left_out,
            prompts=settings.tuning,
            source=source,
        )


def _settings(
    settings: Settings | None, speedup: float | None, psnr: float | None, options: dict[str, Any]
) -> Settings:
    names = [field.name for field in fields(Settings)]
    unknown = sorted(options.keys() - set(names))
    if unknown:
        raise ConfigError(
            f"Tuning has no option {', '.join(unknown)}; there are {', '.join(names)}."
        )
    targets = {"target_speedup": speedup, "target_psnr": psnr}
    given = {name: value for name, value in targets.items() if value is not None}
    if settings is not None:
        return replace(settings, **given, **options)
    check_target(speedup, psnr)
    every: dict[str, Any] = {"prompts": prompts_of(None), **given, **options}
    return Settings(**every)


def _work(subject: Subject, settings: Settings, tell: OnProgress) -> tuple[Work, dict[str, str]]:
    tell("steps", "watching one picture", 0, 1)
    steps = steps_of(subject, subject.settings.chunks()[0])
    tell("steps", "watched one picture", 1, 1)
    layout = layout_of(find_denoiser(subject.pipe))
    candidates, left_out = candidates_of(settings, layout, steps.grids)
    length = schedule_length(subject.pipe.scheduler)
    found = plateaus(steps.noise, settings.plateaus, length)
    return Work(settings, subject, steps, found, candidates, tell), left_out


def _met(settings: Settings, judged: Judged) -> bool:
    """Whether the speed is there, or the mean PSNR over prompts."""
    if settings.target_speedup is not None:
        return judged.speedup.value >= settings.target_speedup * (1 - MET)
    assert settings.target_psnr is not None
    return judged.psnr.value >= settings.target_psnr


def _steps(work: Work, costs: Costs, tried: Tried) -> tuple[Step, ...]:
    calls = sum(plateau.calls for plateau in work.plateaus)
    found: list[Step] = []
    for cell, candidate in tried.choice.chosen.items():
        plateau, grid = work.plateaus[cell.plateau], work.steps.grids[cell.level]
        saved = 0.0
        if candidate is not None:
            saved = costs.levels[cell.level] - costs.merged[candidate.name][cell.level]
        found.append(
            Step(
                level=cell.level,
                grid=(grid.height, grid.width),
                noise=plateau.noise,
                calls=plateau.calls,
                merges="" if candidate is None else candidate.name,
                saved=saved * plateau.calls / (calls * costs.call),
            )
        )
    return tuple(found)


def _baseline(one: Uniform) -> Baseline:
    return Baseline(one.name, one.speedup, one.psnr)


def _prediction(one: Tried) -> Prediction:
    return Prediction(one.speedup, one.choice.speedup, one.psnr, one.choice.psnr)
