"""Which concepts are learned, what they are called, and which are held out.

The split is by codepoint and depends on nothing but the codepoint, so a concept held out today is
held out in every later run, in every style.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import download

Split = Literal["trained", "held_out"]
SPLITS: tuple[Split, ...] = ("trained", "held_out")
ALWAYS_TRAINED = frozenset({"1f34e"})
"""Codepoints never held out: the red apple is the prompt all examples use."""


@dataclass(frozen=True)
class Concept:
    """One emoji.

    Attributes:
        code: Lower-case hexadecimal codepoints joined by dashes.
        label: Its name, for example ``red apple``.
        tags: Further words for it.
        split: Whether the model may see it in training.
    """

    code: str
    label: str
    tags: tuple[str, ...]
    split: Split


def split_of(code: str, *, one_in: int = 10) -> Split:
    """Assign a codepoint to a split by its hash.

    Args:
        code: Lower-case hexadecimal codepoints joined by dashes.
        one_in: One codepoint in this many is held out.
    """
    if code in ALWAYS_TRAINED:
        return "trained"
    digest = int.from_bytes(hashlib.sha256(code.encode()).digest()[:8], "big")
    return "held_out" if digest % one_in == 0 else "trained"


def wanted(file: Path) -> tuple[str, ...]:
    """Read the labels of a concept list, one a line, ``#`` starts a comment."""
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _member(archive: Path, name: str) -> Any:  # noqa: ANN401 - whatever the JSON holds
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(name)
        if stream is None:
            msg = f"{archive.name} has no file {name}"
            raise FileNotFoundError(msg)
        return json.load(stream)


def load(work: Path, labels: tuple[str, ...]) -> tuple[Concept, ...]:
    """Look the wanted labels up in emojibase and keep those with art of a known origin.

    The 3d art carries some pictures whose origin could not be established; those missing from the
    flat set of the same designer are left out.

    Args:
        work: The work folder, after the download stage.
        labels: Emojibase labels.

    Raises:
        ValueError: A label is unknown or has no usable art.
    """
    entries = _member(download.path(download.LABELS, work), "package/en/data.json")
    known = set(_member(download.path(download.ART_INDEX, work), "package/chars.json"))
    with tarfile.open(download.path(download.ART, work)) as tar:
        art = {Path(name).stem for name in tar.getnames() if name.endswith(".webp")}
    by_label = {entry["label"]: entry for entry in entries}
    concepts: list[Concept] = []
    unusable: list[str] = []
    for label in labels:
        entry = by_label.get(label)
        codes = _spellings(entry["hexcode"].lower()) if entry else ("", "", "")
        code = next((c for c in codes if c in art), None)
        if entry is None or code is None or not known & set(codes):
            unusable.append(label)
            continue
        tags = tuple(t.lower() for t in entry.get("tags", ()) if t.isascii())
        bare = codes[-1]
        concepts.append(Concept(code, label.lower(), tags, split_of(bare)))
    if unusable:
        msg = f"no usable art for: {', '.join(unusable)}"
        raise ValueError(msg)
    return tuple(concepts)


def all_words(work: Path) -> tuple[str, ...]:
    """Return every label and tag of emojibase, for the tokenizer and the distillation."""
    entries = _member(download.path(download.LABELS, work), "package/en/data.json")
    words: dict[str, None] = {}
    for entry in entries:
        for text in (entry["label"], *entry.get("tags", ())):
            if text.isascii():
                words[text.lower()] = None
    return tuple(words)


def _spellings(code: str) -> tuple[str, str, str]:
    """Return a codepoint as written, and without the emoji variation selector."""
    bare = "-".join(part for part in code.split("-") if part != "fe0f")
    return (code, f"{bare}-fe0f", bare)
