"""Which concepts are learned, what they are called, and which are held out.

The split is by codepoint and depends on nothing but the codepoint, so a concept held out today is
held out in every later run, in every style. Skin tones and genders of one emoji share its split.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import download

Split = Literal["trained", "held_out"]
SPLITS: tuple[Split, ...] = ("trained", "held_out")
ALWAYS_TRAINED = frozenset({"1f34e"})
"""Codepoints never held out: the red apple is the prompt all examples use."""
LEFT_OUT_GROUPS = frozenset({None, 2, 9})
"""Groups of emojibase that are no pictures of things: letters of flags, skin tones, flags."""
_SKIN_TONES = frozenset(f"{code:x}" for code in range(0x1F3FB, 0x1F400))
_GENDERS = frozenset({"2640", "2642"})
_PEOPLE = {"1f468": "1f9d1", "1f469": "1f9d1"}
_JOINER = "200d"


@dataclass(frozen=True)
class Concept:
    """One emoji in one style.

    Attributes:
        code: Lower-case hexadecimal codepoints joined by dashes, without variation selectors.
        label: Its name, for example ``red apple``.
        tags: Further words for it.
        split: Whether the model may see it in training.
        style: The words captions name its style with.
    """

    code: str
    label: str
    tags: tuple[str, ...]
    split: Split
    style: str = "fluent 3d emoji"


def bare(code: str) -> str:
    """Drop the variation selectors, which some sets write and others leave out.

    >>> bare("2764-fe0f")
    '2764'
    """
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def family(code: str) -> str:
    """Return what the skin tones and genders of one emoji have in common.

    Woman and man become person; the signs of gender and skin tone go.

    >>> family("1f469-1f3fd-200d-1f33e") == family("1f9d1-200d-1f33e")
    True
    """
    parts = [p for p in bare(code).split("-") if p not in _SKIN_TONES | _GENDERS]
    parts = [_PEOPLE.get(part, part) for part in parts]
    while parts and parts[-1] == _JOINER:
        parts.pop()
    return "-".join(parts) or bare(code)


def split_of(code: str, *, one_in: int = 10) -> Split:
    """Assign a codepoint to a split by the hash of its family.

    Args:
        code: Lower-case hexadecimal codepoints joined by dashes.
        one_in: One codepoint in this many is held out.
    """
    code = family(code)
    if code in ALWAYS_TRAINED:
        return "trained"
    digest = int.from_bytes(hashlib.sha256(code.encode()).digest()[:8], "big")
    return "held_out" if digest % one_in == 0 else "trained"


def wanted(file: Path) -> tuple[str, ...]:
    """Read the labels of a concept list, one a line, ``#`` starts a comment."""
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def entries(work: Path, labels: tuple[str, ...] | None) -> tuple[Concept, ...]:
    """Look concepts up in emojibase, without regard to art.

    Args:
        work: The work folder, after the download stage.
        labels: Emojibase labels, or nothing for every emoji that is a picture of something.

    Raises:
        ValueError: A label is unknown.
    """
    rows = download.read_json(download.LABELS, work, "en/data.json")
    by_label = {row["label"]: row for row in rows}
    if labels is None:
        chosen = [row for row in rows if row.get("group") not in LEFT_OUT_GROUPS]
    elif unknown := [label for label in labels if label not in by_label]:
        msg = f"emojibase has no emoji called: {', '.join(unknown)}"
        raise ValueError(msg)
    else:
        chosen = [by_label[label] for label in labels]
    return tuple(_concept(row) for row in chosen)


def _concept(row: dict[str, Any]) -> Concept:
    code = bare(row["hexcode"])
    tags = tuple(t.lower() for t in row.get("tags", ()) if t.isascii())
    return Concept(code, row["label"].lower(), tags, split_of(code))


def all_words(work: Path) -> tuple[str, ...]:
    """Return every label and tag of emojibase, for the tokenizer and the distillation."""
    rows = download.read_json(download.LABELS, work, "en/data.json")
    words: dict[str, None] = {}
    for row in rows:
        for text in (row["label"], *row.get("tags", ())):
            if text.isascii():
                words[text.lower()] = None
    return tuple(words)


def store(concepts: tuple[Concept, ...], work: Path) -> None:
    """Write the concepts of a run, one a picture, into the work folder."""
    rows = [asdict(concept) for concept in concepts]
    (work / "concepts.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def load(work: Path) -> tuple[Concept, ...]:
    """Read what :func:`store` wrote."""
    rows = json.loads((work / "concepts.json").read_text("utf-8"))
    return tuple(Concept(**row | {"tags": tuple(row["tags"])}) for row in rows)
