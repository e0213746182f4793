"""Which contenders go on from the screening to whole pictures."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import TYPE_CHECKING

from retom.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retom.evaluation.contenders import Contender


def pick(
    contenders: Sequence[Contender],
    errors: Mapping[str, Sequence[float]],
    best: int,
    always: Sequence[str] = (),
) -> list[Contender]:
    """The best few of each ratio and scope, and those that are wanted anyway.

    The best are taken in turns from two rankings: by mean error over all noise levels, and by mean
    error over the noisier half. On the model that this was tried on, pictures followed the second.

    Args:
        contenders: All.
        errors: By name, the mean error at each noise level, the least noisy first. Contenders that
            were not screened are all taken.
        best: How many of each ratio and scope, beside those of ``always``.
        always: Patterns of methods, such as ``tomesd*``, that are taken whatever their rank.

    Returns:
        In the order of ``contenders``.

    Raises:
        ConfigError: A pattern fits no method.
    """
    for pattern in always:
        if not any(_fits(contender, pattern) for contender in contenders):
            methods = ", ".join(dict.fromkeys(contender.method for contender in contenders))
            raise ConfigError(f"No method fits {pattern!r}; there are {methods}.")
    taken = {c.name for c in contenders if c.stands_apart or any(_fits(c, p) for p in always)}
    for group in {(c.ratio, c.scope) for c in contenders}:
        members = [c for c in contenders if (c.ratio, c.scope) == group]
        taken |= {c.name for c in members if c.name not in errors}
        screened = [c.name for c in members if c.name in errors and c.name not in taken]
        overall = sorted(screened, key=lambda name: _mean(errors[name]))
        noisy = sorted(screened, key=lambda name: _mean(errors[name][len(errors[name]) // 2 :]))
        turns = [name for turn in zip_longest(overall, noisy) for name in turn if name]
        taken |= set(list(dict.fromkeys(turns))[:best])
    return [contender for contender in contenders if contender.name in taken]


def _fits(contender: Contender, pattern: str) -> bool:
    return fnmatchcase(contender.method, pattern) or fnmatchcase(contender.name, pattern)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
