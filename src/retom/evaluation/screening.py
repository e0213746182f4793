"""The screening: how far merging moves the denoiser's output on identical inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import retom
from retom.evaluation.denoiser_call import DenoiserCall
from retom.evaluation.store import key_of
from retom.evaluation.timing import interleave, shared_copy, synchroniser
from retom.evaluation.tokens import check_equal, unequal
from retom.metrics import relative_error
from retom.models import find_denoiser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from retom.evaluation.contenders import Contender
    from retom.evaluation.settings import Sample
    from retom.evaluation.subject import Subject

UNMERGED = "un-merged"


def screening_content(
    subject: Subject, samples: Sequence[Sample], contender: Contender
) -> dict[str, Any]:
    """What the errors of some samples depend on."""
    return {**subject.drawing(samples, contender), "timesteps": subject.timesteps}


def screening_key(subject: Subject, samples: Sequence[Sample], contender: Contender) -> str:
    """Name of the errors of some samples."""
    return key_of("screening", screening_content(subject, samples, contender))


def screen(
    subject: Subject, samples: Sequence[Sample], contenders: Sequence[Contender]
) -> Iterator[Contender]:
    """Measure the denoiser error of a batch of samples for each contender that lacks it.

    Yields:
        Each contender once its errors are kept.
    """
    todo = [
        c for c in contenders if not subject.store.has_record(screening_key(subject, samples, c))
    ]
    if not todo:
        return
    call = subject.call_of(samples)
    content = {**subject.drawing(samples, None), "timesteps": subject.timesteps}
    whole = subject.store.tensors(
        key_of("outputs", content), lambda: {"outputs": subject.outputs(samples, None, call)}
    )["outputs"]
    for contender in todo:
        errors = relative_error(subject.outputs(samples, contender, call), whole)
        subject.store.add_record(
            screening_key(subject, samples, contender),
            screening_content(subject, samples, contender),
            {"errors": [[round(float(value), 7) for value in row] for row in errors]},
        )
        yield contender


def comparable(
    subject: Subject, contenders: Sequence[Contender], samples: Sequence[Sample]
) -> tuple[list[Contender], dict[str, str], set[str]]:
    """The contenders that can reach their ratio, all on the same tokens as others of that ratio.

    Returns:
        Them; those that cannot, with the reason; and the names of those from configuration files
        that compute on other numbers of tokens than the first contender of their ratio and scope.

    Raises:
        ConfigError: Two contenders of one ratio and scope, both named on the command line, compute
            on different numbers of tokens; tomesd at a ratio over 0.75 silently merges less.
    """
    call: DenoiserCall | None = None
    found: list[Contender] = []
    left_out: dict[str, str] = {}
    other: set[str] = set()
    first: dict[tuple[float, str], tuple[str, dict[str, list[int]]]] = {}
    for contender in sorted(contenders, key=lambda c: c.own):
        content = {**subject.drawing(samples, contender), "timesteps": subject.timesteps}
        key = key_of("tokens", content)
        if not subject.store.has_record(key):
            call = call or subject.call_of(samples)
            try:
                values: dict[str, Any] = {"tokens": subject.tokens(samples, contender, call)}
            except retom.BudgetError as error:
                values = {"refused": str(error)}
            subject.store.add_record(key, content, values)
        values = subject.store.record(key)["values"]
        if "refused" in values:
            left_out[contender.name] = values["refused"]
            continue
        found.append(contender)
        group = (round(contender.ratio, 6), contender.scope)
        name, tokens = first.setdefault(group, (contender.name, values["tokens"]))
        if not contender.own:
            check_equal(contender.name, values["tokens"], name, tokens)
        elif unequal(values["tokens"], tokens):
            other.add(contender.name)
    order = {contender.name: place for place, contender in enumerate(contenders)}
    return sorted(found, key=lambda c: order[c.name]), left_out, other


def timing_content(
    subject: Subject, samples: Sequence[Sample], contender: Contender, hardware: dict[str, Any]
) -> dict[str, Any]:
    """What the timing of a contender depends on."""
    kept = {name: hardware[name] for name in ("cpu", "threads", "device")}
    return {
        **subject.drawing(samples, contender),
        "hardware": kept,
        "rounds": subject.settings.rounds,
    }


def time_calls(
    subject: Subject, samples: Sequence[Sample], contender: Contender, hardware: dict[str, Any]
) -> str:
    """Time one denoiser call of these samples, un-merged and merged in turns; the record's name.

    Two samples are what one picture with guidance costs at a step.
    """
    content = timing_content(subject, samples, contender, hardware)
    key = key_of("timing", content)
    if subject.store.has_record(key):
        return key
    timestep = subject.timesteps[len(subject.timesteps) // 2]
    x = subject.noisy(samples, timestep)
    call = subject.call_of(samples)
    plain = find_denoiser(subject.pipe)
    merged = shared_copy(plain)

    def run(denoiser: torch.nn.Module) -> Callable[[], object]:
        return lambda: call(denoiser, x, timestep)

    with contender.applied(merged):
        seconds = interleave(
            {UNMERGED: run(plain), "merged": run(merged)},
            subject.settings.rounds,
            synchronise=synchroniser(subject.device),
        )
    values = {"unmerged_s": seconds[UNMERGED], "merged_s": seconds["merged"]}
    subject.store.add_record(key, content, values)
    return key
