"""What sets of pictures are compared with, and what equal sets score: the floors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retom.evaluation.sets import PRINCIPAL, REAL, Reference, allows_frechet, axes_at, distances
from retom.evaluation.store import key_of
from retom.metrics import frechet, kid
from retom.metrics.kid import MINIMUM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.store import Store
    from retom.metrics import Estimate, Features

    Drawn = tuple[Sequence[str], Features]
    """Names of pictures in the store, and their features."""


ANOTHER_SEED = "un-merged pictures of another seed"


@dataclass(frozen=True, slots=True, eq=False)
class Against:
    """Compares sets of pictures with a reference.

    Attributes:
        store: Keeps the estimates.
        reference: Real pictures; or un-merged ones of another seed, see :func:`another_seed`; None
            compares nothing.
    """

    store: Store
    reference: Reference | None

    @property
    def is_real(self) -> bool:
        """Whether the reference is real pictures."""
        return self.reference is not None and self.reference.is_real

    @property
    def name(self) -> str | None:
        """What the reference is, and how many; None for none."""
        if self.reference is None:
            return None
        return f"{len(self.reference.features)} {self.reference.name}"

    def values(self, drawn: Drawn) -> dict[str, Estimate]:
        """KID and Fréchet distance to the reference, where there are enough pictures."""
        if self.reference is None:
            return {}
        return distances(self.store, drawn[0], drawn[1], self.reference)

    def differences(self, drawn: Drawn, other: Drawn) -> dict[str, Estimate]:
        """By how much the distances of pictures differ from those of others, paired."""
        if self.reference is None:
            return {}
        return distances(self.store, drawn[0], drawn[1], self.reference, other)

    def floors(self, drawn: int) -> dict[str, Estimate]:
        """What two halves of the real pictures measure against each other.

        Args:
            drawn: Pictures of a row: the Fréchet distance of the halves is at this n where they
                are as large.
        """
        if not self.is_real or self.reference is None:
            return {}
        a, b = self.reference.halves()
        found = {"kid": kid(a, b)}
        n = min(len(a), len(b), drawn)
        if allows_frechet(n, a.dim):
            found["frechet"] = frechet(a, b, n=n, principal=axes_at(n, a.dim), resamples=100)
        return found

    def notes(self, drawn: int) -> list[str]:
        """What a reader has to know about distances of so many pictures."""
        if self.reference is None or (drawn < MINIMUM and not self.is_real):
            return []
        real = len(self.reference.features)
        n, half = min(drawn, real), real // 2
        notes: list[str] = []
        if drawn < MINIMUM:
            notes.append(f"{drawn} pictures are too few for KID, which needs {MINIMUM}.")
        if not allows_frechet(n, self.reference.features.dim):
            notes.append(
                f"The Fréchet distance needs more than {PRINCIPAL} drawn and {PRINCIPAL} "
                f"{'real' if self.is_real else 'reference'} pictures, and was left out."
            )
        else:
            axes = axes_at(n, self.reference.features.dim)
            along = f"along {axes} principal axes" if axes else "along all features"
            notes.append(f"The Fréchet distance is at n = {n} pictures of each kind, {along}.")
            if self.is_real and half < n:
                notes.append(
                    f"Two halves of the real pictures have {half} each: their Fréchet distance is "
                    "higher by that alone. KID is not."
                )
        if not self.is_real:
            notes.append(
                f"KID and Fréchet are to {ANOTHER_SEED}, for want of real pictures: the same "
                "prompts occur on both sides, which shifts every row alike. Compare with the "
                "un-merged row."
            )
        return notes


def another_seed(keys: Sequence[str], features: Features) -> Reference:
    """Un-merged pictures of another seed as the reference: what there is without real pictures."""
    digest = key_of("another-seed", {"pictures": list(keys), "extractor": features.extractor})
    return Reference(features, digest, ANOTHER_SEED)


def halves_label() -> str:
    """The name of the row of floors."""
    return f"half of the {REAL} against the other half"
