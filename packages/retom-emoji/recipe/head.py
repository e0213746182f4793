"""Train the text-alignment head on the art: which words a picture shows, by a frozen network.

A picture's features are EfficientNet-Lite0's, a text's vector is MiniLM's. Neither is part of the
model, so the judge shares no confusion with what it judges: two words that the model's own text
encoder mixes up are apart here. It learns from real art in all five styles, most of it degraded.
Needs ``retom[eval]``.
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
from torch import Tensor

from . import captions, compose, concepts, download, references, render
from .compose import Background, Picture
from .concepts import Concept, Split
from .degrade import degrade
from .preset import Preset
from .render import Art
from .sentences import WITHIN

if TYPE_CHECKING:
    from retom.metrics import AlignmentHead, Extractor, Features, Retrieval, TextEncoder

FILE = "alignment_head.safetensors"
REPORT = "alignment_head.json"
SHIPPED = Path(__file__).parent.parent / "src" / "retom_emoji" / FILE
EACH = 3
"""Composites of every entry of the art; their features take nearly all of the time."""
SIDE = 160
"""Pixels of a composite's edge: the network enlarges it, and halves that at once."""
SCALES = (0.6, 0.95)
"""How much of the edge an object takes."""
STEPS = 2500
BATCH = 4
"""Pictures at a time; on a processor larger batches take longer for each."""
CHUNK = 256
"""Composites in memory at a time."""
WIDTH = 256
DROPOUT = 0.7


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


def texts_of(concept: Concept, behind: list[Background], rng: np.random.Generator) -> list[str]:
    """Write a text for each picture of a concept: the plain prompt for the first, then captions."""
    later = [captions.varied(concept, background, rng) for background in behind[1:]]
    return [references.plain(concept), *later]


def vectors(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Return a text's vector each; equal texts are read once."""
    different = list(dict.fromkeys(texts))
    rows = dict(zip(different, encoder(different), strict=True))
    return torch.stack([rows[text] for text in texts])


@dataclass(frozen=True)
class Examples:
    """What the head learns from and is validated on.

    Attributes:
        features: Of n pictures.
        texts: Of each, a vector.
        families: What each shows, by number, int64 (n,); genders of one emoji are one family.
        held_out: Which are of concepts that the models never saw, bool (n,).
    """

    features: Features
    texts: Tensor
    families: Tensor
    held_out: Tensor


def examples(art: Art, judged: Judges, each: int, seed: int) -> Examples:
    """Compose and degrade pictures of all art, and let the frozen networks read them."""
    from retom.metrics import Features

    rng = np.random.default_rng(seed)
    shown: list[Concept] = []
    texts: list[str] = []
    waiting: list[Picture] = []
    found: list[Tensor] = []
    total = each * len(art.concepts)
    for rgba, concept in zip(art.rgba, art.concepts, strict=True):
        behind = [compose.random_background(rng) for _ in range(each)]
        texts += texts_of(concept, behind, rng)
        for background in behind:
            clean = compose.compose(rgba, background, SIDE, rng, scales=SCALES)
            waiting.append(degrade(clean, rng))
            shown.append(concept)
        if len(waiting) >= CHUNK or len(shown) == total:
            found.append(judged.features(waiting).values)
            waiting = []
            print(f"head: read {len(shown)} of {total} pictures", flush=True)
    numbers = {family: i for i, family in enumerate(dict.fromkeys(map(_family, shown)))}
    return Examples(
        Features(torch.cat(found), judged.pictures.name),
        vectors(judged.texts, texts),
        torch.tensor([numbers[_family(concept)] for concept in shown]),
        torch.tensor([concept.split == "held_out" for concept in shown]),
    )


def _family(concept: Concept) -> str:
    return concepts.family(concept.code)


def train(made: Examples, judged: Judges, *, steps: int, seed: int) -> AlignmentHead:
    """Train on the pictures of trained concepts; validate on those of the held-out ones."""
    from retom.metrics import Training, train_head

    return train_head(
        made.features,
        made.texts,
        made.families,
        text_encoder=judged.texts.name,
        held_out=made.held_out,
        training=Training(width=WIDTH, steps=steps, dropout=DROPOUT, seed=seed),
    )


def found_again(
    head: AlignmentHead, art: Art, preset: Preset, judged: Judges, split: Split
) -> Retrieval:
    """Retrieval with new, clean composites of a split in the style that examples ask for.

    The texts to choose from are the plain prompts of all concepts of the split.
    """
    keep = [i for i, c in enumerate(art.concepts) if (c.style, c.split) == (captions.STYLE, split)]
    known = Art(tuple(art.concepts[i] for i in keep), art.rgba[keep])
    made = references.composites(known, preset, 1, preset.seed + 1)
    own = [references.plain(concept) for concept in made.concepts]
    return named(head, judged, judged.features(made.pictures), own, own)


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
    if len({concept.style for concept in art.concepts}) == 1:
        msg = (
            f"a head that learns from one style recognises little of what models draw, and"
            f" {options.work.name} has one: download and render with --preset gpu"
        )
        raise ValueError(msg)
    judged = judges(options.work)
    target: Path = (options.out or options.work) / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    made = examples(art, judged, EACH, preset.seed)
    head = train(made, judged, steps=STEPS, seed=preset.seed)
    again = {split: found_again(head, art, preset, judged, split) for split in concepts.SPLITS}
    save_head(head, target)
    assert head.held_out is not None
    report: dict[str, Any] = {
        "seed": preset.seed,
        "features": head.sizes["features"],
        "texts": head.sizes["texts"],
        "pictures": len(made.features),
        "held_out_concepts": dataclasses.asdict(head.held_out),
        "new_composites": {split: dataclasses.asdict(one) for split, one in again.items()},
        "cpu_seconds": round(time.process_time() - began),
        "torch": torch.__version__,
    }
    target.with_name(REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    rows = {"degraded, held out": head.held_out} | {
        f"new composites, {split.replace('_', ' ')}": one for split, one in again.items()
    }
    for name, one in rows.items():
        print(
            f"head: {name}: top-1 {one.top1:.1%}, top-5 {one.top5:.1%} among {one.num_texts},"
            f" n = {one.n}",
            flush=True,
        )
    print(f"head: {FILE}, {target.stat().st_size / 1e6:.2f} MB", flush=True)
