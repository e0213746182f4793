"""``retom.bench``: contenders timed against un-merged and against free merging, in one process."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from retom.benchmarking.case import Timing, time_case
from retom.benchmarking.compiling import many_graphs
from retom.benchmarking.lineup import default_methods_of, lineup
from retom.benchmarking.memory import HOW
from retom.benchmarking.result import Bench
from retom.benchmarking.settings import Settings
from retom.benchmarking.spots import sized, spots
from retom.benchmarking.subject import part_for, subject_named
from retom.errors import ConfigError
from retom.evaluation.provenance import provenance
from retom.handle import handle_of
from retom.models import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def bench(
    model: object = None,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    command: Sequence[str] = ("retom.bench",),
    on_progress: Callable[[str, str, int, int], None] = lambda case, what, done, total: None,
    **options: object,
) -> Bench:
    """Time ways of merging on one model, interleaved round by round.

    Args:
        model: None for the bundled model or the name of one, a diffusers folder or hub id, the name
            of a shipped configuration (:func:`retom.explanation.known_models`), which gets random
            weights, or a pipeline without merging applied.
        settings: What is measured.
        device: ``auto`` for the accelerator if there is one, else the CPU; a pipeline stays where
            it is.
        dtype: ``auto`` for float16 on CUDA and float32 elsewhere; a pipeline keeps its own.
        command: Words that stand in the result.
        on_progress: Told the case, what is under way, how many rounds are done, and of how many.
        **options: On top of ``settings``: ``sizes=[(1024, 1024)]``, ``ratios=[0.3, 0.5]``, ...

    Returns:
        The numbers; ``print`` shows them.

    Raises:
        ConfigError: An option is unknown or out of its range, a size does not divide into tokens,
            or no contender merges; also where not even the un-merged call fits into memory.
        ModelError: There is no such model.
        UnsupportedModelError: retom does not merge in it, or how to call it is not known.
        MissingExtraError: A package is not installed.

    Example:
        >>> print(retom.bench("sd-1.5", sizes=[(512, 512)], part="layer"))  # doctest: +SKIP
    """
    settings = _settings(settings, options)
    if model is not None and not isinstance(model, str) and handle_of(model) is not None:
        raise ConfigError(
            "Merging is applied to this pipeline already, and un-merged is part of a benchmark. "
            "Call handle.remove() first."
        )
    if settings.methods is not None:
        lineup(settings, "attention")  # words that mean nothing are refused before a model loads
    subject = subject_named(model, device=device, dtype=dtype)
    layout = layout_of(subject.about.denoiser)
    if settings.methods is None:
        settings = replace(settings, methods=default_methods_of(subject.about.denoiser))
    contenders, left_out = lineup(settings, layout.scopes[0])
    part, why = part_for(subject, settings.part)
    sizes = [sized(subject, size, settings.batch) for size in settings.sizes or (None,)]
    source = provenance(command, subject.device)
    timing = Timing(settings.rounds, settings.seed, settings.compiled, subject.device)
    with many_graphs(enabled=settings.compiled):
        cases = [
            time_case(spot, contenders, timing, on_progress)
            for spot in spots(subject, part, settings, sizes)
        ]
    return Bench(
        model=f"{subject.name}, {subject.weights}",
        denoiser=type(subject.about.denoiser).__name__,
        part=part,
        why=why,
        dtype=str(subject.dtype).removeprefix("torch."),
        rounds=settings.rounds,
        seed=settings.seed,
        compiled=settings.compiled,
        memory=HOW.get(subject.device.type, ""),
        source=source,
        cases=tuple(cases),
        left_out=left_out,
    )


def _settings(settings: Settings | None, options: dict[str, Any]) -> Settings:
    names = [field.name for field in fields(Settings)]
    unknown = sorted(options.keys() - set(names))
    if unknown:
        raise ConfigError(
            f"A benchmark has no option {', '.join(unknown)}; there are {', '.join(names)}."
        )
    return replace(settings or Settings(), **options)
