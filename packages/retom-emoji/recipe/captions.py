"""Turn concepts into captions.

Every caption names the concept and the style; some add tags, and some name the background, so that
a prompt may leave either out.
"""

from __future__ import annotations

import numpy as np

from .compose import Background
from .concepts import Concept

STYLE = "fluent 3d emoji"
TAGGED = 0.25
BACKGROUND_NAMED = 0.85
"""Share of captions that name the background. One that is not named is noise in what is learned:
half of the picture cannot be foretold."""
_SINGULAR_IN_S = frozenset({"cactus", "octopus", "bus", "hibiscus", "lotus"})


def with_article(label: str) -> str:
    """Put the indefinite article before a label, unless it is a plural.

    >>> with_article("red apple"), with_article("octopus"), with_article("grapes")
    ('a red apple', 'an octopus', 'grapes')
    """
    last = label.split()[-1]
    plural = last.endswith("s") and not last.endswith("ss") and last not in _SINGULAR_IN_S
    if plural and " with " not in label:
        return label
    vowel = label[0] in "aeiou" and not label.startswith(("uni", "euro", "one"))
    return f"{'an' if vowel else 'a'} {label}"


def prompt(label: str, *, tags: tuple[str, ...] = (), background: str | None = None) -> str:
    """Write the caption of one picture.

    Args:
        label: What is shown.
        tags: Further words for it.
        background: Name of the background's colour, or nothing to leave it open.
    """
    parts = [with_article(label), *tags, STYLE]
    if background is not None:
        parts.append(f"on {with_article(background)} background")
    return ", ".join(parts)


def caption(concept: Concept, background: Background, rng: np.random.Generator) -> str:
    """Draw one of the captions of a picture: some tags, often the background."""
    words = set(concept.label.split())
    extra = [t for t in concept.tags if not words & set(t.split())]
    count = int(rng.integers(1, 3)) if rng.random() < TAGGED else 0
    tags = tuple(rng.permutation(extra)[:count].tolist()) if extra else ()
    named = background.colour if rng.random() < BACKGROUND_NAMED else None
    return prompt(concept.label, tags=tags, background=named)
