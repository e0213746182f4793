"""The screening: how far merging moves the denoiser's output on identical inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import retom
from retom.evaluation.store import key_of
from retom.evaluation.tokens import check_equal, in_all, unequal
from retom.metrics import relative_error
from retom.noise import EVERY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from retom.evaluation.contenders import Contender
    from retom.evaluation.denoiser_call import DenoiserCall
    from retom.evaluation.guided_call import GuidedCall
    from retom.evaluation.settings import Sample
    from retom.evaluation.subject import Subject
    from retom.noise import Noise


class Calls:
    """The calls of the denoiser for some prompts, each caught once and when it is first asked for.

    Args:
        subject: Whose they are.
        samples: The prompts.
    """

    def __init__(self, subject: Subject, samples: Sequence[Sample]) -> None:
        self._subject, self._samples = subject, samples
        self._alone: DenoiserCall | None = None
        self._guided: GuidedCall | None = None

    @property
    def alone(self) -> DenoiserCall:
        """Without guidance."""
        if self._alone is None:
            self._alone = self._subject.call_of(self._samples)
        return self._alone

    def of(self, contender: Contender) -> DenoiserCall | GuidedCall:
        """Without guidance, unless the contender needs both of its halves."""
        if not contender.is_guided:
            return self.alone
        if self._guided is None:
            self._guided = self._subject.guided_call_of(self._samples, self.alone)
        return self._guided


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
    calls = Calls(subject, samples)
    whole = unmerged_outputs(subject, samples, calls)
    for contender in todo:
        errors = relative_error(subject.outputs(samples, contender, calls.of(contender)), whole)
        subject.store.add_record(
            screening_key(subject, samples, contender),
            screening_content(subject, samples, contender),
            {"errors": [[round(float(value), 7) for value in row] for row in errors]},
        )
        yield contender


def unmerged_outputs(subject: Subject, samples: Sequence[Sample], calls: Calls) -> Tensor:
    """What errors are relative to, (levels, B, ...), computed once and kept."""
    content = {**subject.drawing(samples, None), "timesteps": subject.timesteps}
    return subject.store.tensors(
        key_of("outputs", content),
        lambda: {"outputs": subject.outputs(samples, None, calls.alone)},
    )["outputs"]


def comparable(
    subject: Subject, contenders: Sequence[Contender], samples: Sequence[Sample]
) -> tuple[list[Contender], dict[str, str], set[str]]:
    """The contenders that can reach their ratio, all on the same tokens as others of that ratio.

    Returns:
        Them; those that cannot, with the reason; and the names of those that stand apart and
        compute on other numbers of tokens than the first contender of their ratio and scope.

    Raises:
        ConfigError: Two contenders of one ratio and scope, neither of which stands apart, compute
            on different numbers of tokens; tomesd at a ratio over 0.75 silently merges less.
    """
    calls = Calls(subject, samples)
    found: list[Contender] = []
    left_out: dict[str, str] = {}
    other: set[str] = set()
    first: dict[tuple[float, str], tuple[str, dict[str, list[int]], Noise]] = {}
    for contender in sorted(contenders, key=lambda c: c.stands_apart):
        content = {**subject.drawing(samples, contender), "timesteps": subject.timesteps}
        key = key_of("tokens", content)
        if not subject.store.has_record(key):
            call = calls.of(contender)
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
        computed = in_all(values["tokens"])
        group = (round(contender.ratio, 6), contender.scope)
        noise = getattr(contender.merging, "noise", EVERY)  # between the levels that were counted
        name, tokens, where = first.setdefault(group, (contender.name, computed, noise))
        if not contender.stands_apart:
            check_equal(contender.name, computed, name, tokens)
        elif noise != where or unequal(computed, tokens):
            other.add(contender.name)
    order = {contender.name: place for place, contender in enumerate(contenders)}
    return sorted(found, key=lambda c: order[c.name]), left_out, other
