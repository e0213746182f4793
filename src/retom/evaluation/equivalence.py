"""Whether merged pictures are as good as un-merged ones: differences against a stated margin.

Two sets of pictures are never equal, so "no worse" needs a margin. It is taken from the model
itself: un-merged pictures of the same prompts at another seed differ from un-merged ones by chance
alone, and half the width of that difference's 95 % interval says how far. A merged set whose whole
interval lies within the margin is as close to un-merged as the same model drawn once more.

The margin shrinks with the number of pictures, as the intervals do, and says nothing about what a
viewer would mind: it is the strictest margin that this many pictures can support. A verdict is
therefore read with its n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retom.evaluation.measures import ALIGNMENT, FRECHET, KID, Measure
from retom.evaluation.results import FLOOR

if TYPE_CHECKING:
    from retom.evaluation.results import Results, Row
    from retom.metrics import Estimate

JUDGED: tuple[Measure, ...] = (KID, FRECHET, ALIGNMENT)
"""Measures of pictures that need no un-merged twin, so that un-merged has a value too."""

EXPLAINED = (
    "Margin: half the width of the 95 % interval of un-merged at another seed minus un-merged, "
    "which is as far as drawing the same prompts once more moves the number at this n. Equivalent: "
    "the interval lies within the margin on both sides; not worse: on the worse side; worse: "
    "wholly beyond it; open: neither shown."
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One measure of one row against un-merged.

    Attributes:
        difference: To un-merged.
        margin: Half-width that counts as nothing.
        word: ``equivalent``, ``not worse``, ``worse`` or ``open``.
    """

    difference: Estimate
    margin: float
    word: str


def margins(results: Results) -> dict[str, float]:
    """The margin of each measure that un-merged pictures of another seed were measured with."""
    floors = [row for row in results.rows if row.name == FLOOR]
    found = floors[0].from_unmerged if floors else {}
    return {m.key: margin_of(found[m.key]) for m in JUDGED if m.key in found}


def margin_of(seeds: Estimate) -> float:
    """Half the width of the interval of one seed minus another.

    Example:
        >>> from retom.metrics import Estimate
        >>> margin_of(Estimate("KID", 1.0, -2.0, 4.0, 256))
        3.0
    """
    return (seeds.high - seeds.low) / 2


def judgements(results: Results, row: Row) -> dict[str, Judgement]:
    """What can be said of a row, by measure."""
    limits = margins(results)
    return {
        m.key: Judgement(
            row.from_unmerged[m.key],
            limits[m.key],
            judge(row.from_unmerged[m.key], limits[m.key], higher_is_better=m.higher_is_better),
        )
        for m in JUDGED
        if m.key in limits and m.key in row.from_unmerged
    }


def judge(difference: Estimate, margin: float, *, higher_is_better: bool) -> str:
    """One word for a difference to un-merged.

    Args:
        difference: Of the measure, merged minus un-merged.
        margin: At least 0.
        higher_is_better: Which way is good.

    Example:
        >>> from retom.metrics import Estimate
        >>> judge(Estimate("KID", 0.0, -1.0, 1.0, 256), 2.0, higher_is_better=False)
        'equivalent'
        >>> judge(Estimate("KID", 0.0, -1.0, 3.0, 256), 2.0, higher_is_better=False)
        'open'
    """
    low, high = difference.low, difference.high
    least_harm, most_harm = (-high, -low) if higher_is_better else (low, high)
    if most_harm < margin:
        return "equivalent" if least_harm > -margin else "not worse"
    return "worse" if least_harm > margin else "open"
