"""Turn concepts into captions.

Every caption names the concept and the style; some add tags, and some name the background, so that
a prompt may leave either out.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .compose import Background
from .concepts import Concept

STYLE = "fluent 3d emoji"
"""The style examples ask for."""
TAGGED = 0.25
RENAMED = 0.15
"""Share of a large set's captions that call the object by one of its tags."""
UNSTYLED = 0.2
"""Share of captions that leave the style open."""
BARE = 0.2
"""Share of captions without the article: people type "red apple"."""
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


def prompt(
    label: str,
    *,
    tags: tuple[str, ...] = (),
    style: str | None = STYLE,
    background: str | None = None,
) -> str:
    """Write the caption of one picture.

    Args:
        label: What is shown.
        tags: Further words for it.
        style: Words for the style, or nothing to leave it open.
        background: Name of the background's colour, or nothing to leave it open.
    """
    return _join(with_article(label), *tags, style=style, background=background)


def pair_prompt(
    first: str,
    relation: str,
    second: str,
    *,
    style: str | None = STYLE,
    background: str | None = None,
) -> str:
    """Write the caption of a picture of two objects.

    >>> pair_prompt("red apple", "next to", "banana", background="blue")
    'a red apple next to a banana, fluent 3d emoji, on a blue background'
    """
    objects = f"{with_article(first)} {relation} {with_article(second)}"
    return _join(objects, style=style, background=background)


def _join(*parts: str, style: str | None, background: str | None) -> str:
    out = [*parts, style] if style else [*parts]
    if background is not None:
        out.append(f"on {with_article(background)} background")
    return ", ".join(out)


def caption(concept: Concept, background: Background, rng: np.random.Generator) -> str:
    """Draw one of the captions of a picture: some tags, often the style and the background."""
    words = set(concept.label.split())
    extra = [t for t in concept.tags if not words & set(t.split())]
    count = int(rng.integers(1, 3)) if rng.random() < TAGGED else 0
    tags = tuple(rng.permutation(extra)[:count].tolist()) if extra else ()
    named = background.colour if rng.random() < BACKGROUND_NAMED else None
    style = "" if rng.random() < UNSTYLED else concept.style
    written = prompt(concept.label, tags=tags, style=style, background=named)
    if rng.random() < BARE:
        written = written.removeprefix("a ").removeprefix("an ")
    return written


def varied(concept: Concept, background: Background, rng: np.random.Generator) -> str:
    """Draw a caption that may also use a tag as the name."""
    label = concept.label
    if concept.tags and rng.random() < RENAMED:
        label = concept.tags[int(rng.integers(len(concept.tags)))]
    return caption(dataclasses.replace(concept, label=label), background, rng)


def varied_pair(
    concepts: tuple[Concept, Concept],
    relation: str,
    background: Background,
    rng: np.random.Generator,
) -> str:
    """Draw a caption of two objects in one style."""
    first, second = concepts
    named = background.colour if rng.random() < BACKGROUND_NAMED else None
    style = None if rng.random() < UNSTYLED else first.style
    return pair_prompt(first.label, relation, second.label, style=style, background=named)
