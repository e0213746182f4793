"""Unpack the art into one array of RGBA pictures, so that training never touches an archive."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import concepts, download
from .concepts import Concept

SIZE = 256
"""Edge of the art as published."""


@dataclass(frozen=True)
class Art:
    """The pictures and what they show.

    Attributes:
        concepts: One entry a picture.
        rgba: ``(n, 256, 256, 4)`` pictures, straight alpha.
    """

    concepts: tuple[Concept, ...]
    rgba: npt.NDArray[np.uint8]

    def subset(self, split: concepts.Split) -> Art:
        """Return only the pictures of one split."""
        keep = [i for i, c in enumerate(self.concepts) if c.split == split]
        return Art(tuple(self.concepts[i] for i in keep), self.rgba[keep])


def run(work: Path, concept_list: Path) -> None:
    """Decode the wanted art and store it beside its labels."""
    chosen = concepts.load(work, concepts.wanted(concept_list))
    pictures = np.zeros((len(chosen), SIZE, SIZE, 4), dtype=np.uint8)
    with tarfile.open(download.path(download.ART, work)) as tar:
        for i, concept in enumerate(chosen):
            stream = tar.extractfile(f"package/assets/{concept.code}.webp")
            if stream is None:
                raise FileNotFoundError(concept.code)
            with Image.open(io.BytesIO(stream.read())) as image:
                pictures[i] = np.asarray(image.convert("RGBA").resize((SIZE, SIZE)))
    np.save(work / "art.npy", pictures)
    rows = [dataclasses.asdict(concept) for concept in chosen]
    (work / "concepts.json").write_text(json.dumps(rows, indent=1), "utf-8")
    trained = sum(c.split == "trained" for c in chosen)
    print(f"render: {trained} trained and {len(chosen) - trained} held-out concepts", flush=True)


def load(work: Path) -> Art:
    """Read what :func:`run` stored."""
    rows = json.loads((work / "concepts.json").read_text("utf-8"))
    chosen = tuple(
        Concept(row["code"], row["label"], tuple(row["tags"]), row["split"]) for row in rows
    )
    return Art(chosen, np.load(work / "art.npy"))
