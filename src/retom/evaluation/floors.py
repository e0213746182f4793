"""What the screening finds where nothing merges: errors of rounding, and of another seed.

An error says something only beside these. Below the first it is rounding: the same network on the
same inputs, each sample in a batch of its own. The second is no floor but the other end: the same
prompts with the latents and the noise of another seed, another picture, that is. Outputs of one
size that have nothing in common would have 1.41.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from retom.evaluation.results import FLOOR, ONE_BY_ONE
from retom.evaluation.screening import Calls, unmerged_outputs
from retom.evaluation.store import key_of
from retom.metrics import relative_error
from retom.models import find_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from retom.evaluation.settings import Sample
    from retom.evaluation.subject import Subject

FLOORS: tuple[str, ...] = (ONE_BY_ONE, FLOOR)


def floor_key(
    subject: Subject, floor: str, samples: Sequence[Sample], again: Sequence[Sample]
) -> str:
    """Name of a floor's errors of some samples.

    Args:
        subject: Whose.
        floor: One of :data:`FLOORS`.
        samples: What contenders are screened on.
        again: The same prompts at another seed.
    """
    return key_of("floor", _content(subject, floor, samples, again))


def screen_floors(
    subject: Subject, samples: Sequence[Sample], again: Sequence[Sample]
) -> Iterator[str]:
    """Measure the floors of a batch that are missing.

    Yields:
        Each floor's name once its errors are kept.
    """
    calls = Calls(subject, samples)
    measures = {
        ONE_BY_ONE: lambda: one_by_one(subject, samples),
        FLOOR: lambda: subject.outputs(again, None, calls.alone),
    }
    for floor in FLOORS:
        key = floor_key(subject, floor, samples, again)
        if not subject.store.has_record(key):
            errors = relative_error(measures[floor](), unmerged_outputs(subject, samples, calls))
            kept = [[round(float(value), 9) for value in row] for row in errors]
            content = _content(subject, floor, samples, again)
            subject.store.add_record(key, content, {"errors": kept})
        yield floor


def one_by_one(subject: Subject, samples: Sequence[Sample]) -> Tensor:
    """Un-merged outputs of samples in batches of one, (levels, B, ...), float32 on the CPU."""
    entry = find_entry(subject.pipe)
    noisy = [(subject.noisy(samples, t), t) for t in subject.timesteps]
    found: list[Tensor] = []
    for place, sample in enumerate(samples):
        call = subject.call_of([sample])
        each = [call(entry, x[place : place + 1], t).float().cpu() for x, t in noisy]
        found.append(torch.stack(each))
    return torch.cat(found, dim=1)


def _content(
    subject: Subject, floor: str, samples: Sequence[Sample], again: Sequence[Sample]
) -> dict[str, Any]:
    others = [[sample.prompt, sample.seed] for sample in again] if floor == FLOOR else None
    return {
        **subject.drawing(samples, None),
        "timesteps": subject.timesteps,
        "floor": floor,
        "again": others,
    }
