"""What all parts of a tuning share: the model, the folder, its steps, and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from retom.evaluation.settings import Sample
    from retom.evaluation.steps import Steps
    from retom.evaluation.subject import Subject
    from retom.tuning.candidates import Candidate
    from retom.tuning.plateaus import Plateau
    from retom.tuning.settings import Settings

    OnProgress = Callable[[str, str, int, int], None]
    """Told of the stage, of what was just done, how much of the stage is done, and of how much."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One tuning under way.

    Attributes:
        settings: What is tuned for.
        subject: The model, and the store of what is measured of it.
        steps: The calls of the denoiser for one picture.
        plateaus: From pure noise down.
        candidates: What levels may merge by.
        tell: Told of every piece of work.
    """

    settings: Settings
    subject: Subject
    steps: Steps
    plateaus: tuple[Plateau, ...]
    candidates: list[Candidate]
    tell: OnProgress

    @property
    def chunks(self) -> list[tuple[Sample, ...]]:
        """The samples that are tuned on, in batches."""
        return self.subject.settings.chunks()

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels on which some candidate can merge."""
        return tuple(sorted({level for c in self.candidates for level in c.levels}))
