"""Evaluate the model itself: is it like its data, does it draw what it is asked, does it copy?

Writes ``evaluation.md``, ``evaluation.json`` and two sheets. Started again it draws nothing twice.
Needs ``retom[eval]`` and the alignment head.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from . import (
    captions,
    card,
    compose,
    concepts,
    export,
    gallery,
    head,
    neighbours,
    references,
    render,
    samples,
    words,
)
from .compose import Background, Picture
from .concepts import Concept
from .gallery import Gallery
from .head import Judges
from .preset import FOLDER, Preset
from .render import Art

if TYPE_CHECKING:
    from retom.metrics import AlignmentHead, Estimate, Features

TRAINED = 100
"""Random trained concepts that are drawn."""
HELD_OUT = 50
NEAR = 24
NEAR_HELD_OUT = 12
SHEET = "sheet64.txt"
SHEET_COLUMNS = 8
BEHIND = Background("light blue", "flat")


@dataclasses.dataclass(frozen=True)
class Study:
    """What everything below works with."""

    art: Art
    preset: Preset
    judged: Judges
    head: AlignmentHead
    gallery: Gallery
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    """Further words that the model knows, and the label that each stands for."""

    def drawn(self, name: str, prompts: list[str]) -> list[Picture]:
        """Draw a list of prompts, with progress."""
        return self.gallery.drawn(name, prompts, lambda said: print(said, flush=True))


def chosen(art: Art, split: concepts.Split, count: int) -> list[Concept]:
    """Return random concepts of a split, each codepoint in one style; always the same ones."""
    first = {c.code: c for c in reversed(art.concepts) if c.split == split}
    known = sorted(first.values(), key=lambda c: c.code)
    return random.Random(0).sample(known, min(count, len(known)))


def with_backgrounds(shown: list[Concept], seed: int) -> list[str]:
    """Write prompts that name a background as often as captions of the training pictures do."""
    rng = np.random.default_rng(seed)
    out: list[str] = []
    for concept in shown:
        colour = compose.random_background(rng).colour
        named = colour if rng.random() < captions.BACKGROUND_NAMED else None
        out.append(captions.prompt(concept.label, style=concept.style, background=named))
    return out


def likeness(study: Study, drawn: dict[str, Features]) -> dict[str, dict[str, Estimate]]:
    """KID of drawn and of real pictures to real ones of both splits; real halves are the floor.

    Args:
        study: Art and networks.
        drawn: Features of drawn pictures by split.
    """
    from retom.metrics import Features, kid

    real: dict[str, Features] = {}
    for seed, split in enumerate(concepts.SPLITS):
        art = study.art.subset(split)
        each = max(references.EACH, -(-64 // len(art.concepts)))
        made = references.composites(art, study.preset, each, study.preset.seed + 11 + seed)
        found = study.judged.features(made.pictures)
        order = np.random.default_rng(0).permutation(len(found))
        real[split] = Features(found.values[order], found.extractor)
    halves = {
        split: [Features(one.values[start::2].contiguous(), one.extractor) for start in (0, 1)]
        for split, one in real.items()
    }
    table: dict[str, dict[str, Estimate]] = {
        f"drawn, {split} prompts": {to: kid(features, real[to]) for to in real}
        for split, features in drawn.items()
    }
    for split in real:
        others = [to for to in real if to != split]
        row = {split: kid(*halves[split])} | {to: kid(real[split], real[to]) for to in others}
        table[f"real, {split} concepts"] = {to: row[to] for to in real}
    return table


def naming(study: Study, shown: list[Concept], features: Features) -> dict[str, dict[str, Any]]:
    """Retrieval of drawn pictures, and of the real ones of the same concepts, by the head."""
    own = [references.plain(concept) for concept in shown]
    every = references.plain_of(study.art, "trained")
    codes = {(c.code, c.style) for c in shown}
    keep = [i for i, c in enumerate(study.art.concepts) if (c.code, c.style) in codes]
    art = Art(tuple(study.art.concepts[i] for i in keep), study.art.rgba[np.array(keep)])
    made = references.composites(art, study.preset, 1, study.preset.seed + 21)
    rows = {
        "drawn": (features, own),
        "real": (
            study.judged.features(made.pictures),
            [references.plain(concept) for concept in made.concepts],
        ),
    }
    return {
        name: {
            str(len(set(among))): dataclasses.asdict(
                head.named(study.head, study.judged, found, texts, among)
            )
            for among in (own, every)
        }
        for name, (found, texts) in rows.items()
    }


def calling(study: Study) -> dict[str, dict[str, Any]]:
    """Retrieval of pictures that were asked for by further words, as :func:`naming`."""
    if not study.words:
        return {}
    asked = sorted(random.Random(0).sample(sorted(study.words), min(TRAINED, len(study.words))))
    drawn = study.drawn("words", [captions.prompt(word) for word in asked])
    own = [captions.prompt(study.words[word]) for word in asked]
    every = references.plain_of(study.art, "trained")
    found = head.named(study.head, study.judged, study.judged.features(drawn), own, [*every, *own])
    return {"drawn, by a further word": {str(found.num_texts): dataclasses.asdict(found)}}


def copying(study: Study, target: Path) -> dict[str, Any]:
    """Write the sheet of nearest training pictures; return what it says in numbers."""
    size = study.preset.denoiser.phases[-1].size
    known = _on(study.art.subset("trained"), study.preset)
    known_features = study.judged.features(known.pictures).values.numpy()
    names = [concept.label for concept in known.concepts]
    new = _on(study.art.subset("held_out"), study.preset)
    new_features = study.judged.features(new.pictures).values.numpy()
    shown = {
        "trained": chosen(study.art, "trained", NEAR),
        "held_out": chosen(study.art, "held_out", NEAR_HELD_OUT),
    }
    found: dict[str, Any] = {}
    drawn: list[Picture] = []
    every: list[neighbours.Nearest] = []
    for split, several in shown.items():
        prompts = [
            captions.prompt(c.label, style=c.style, background=BEHIND.colour) for c in several
        ]
        pictures = [compose.resized(p, size) for p in study.drawn(f"near-{split}", prompts)]
        features = study.judged.features(pictures).values.numpy()
        near = neighbours.nearest(pictures, features, known.pictures, known_features)
        own = [names[place] == c.label for place, c in zip(near.by_features, several, strict=True)]
        found[f"drawn, {split} prompts"] = _said(near) | {"own concept": sum(own)}
        drawn += pictures
        every.append(near)
    real = neighbours.nearest(new.pictures, new_features, known.pictures, known_features)
    found["real, held_out concepts"] = _said(real)
    near = neighbours.Nearest(
        *(
            np.concatenate([getattr(one, field.name) for one in every])
            for field in dataclasses.fields(neighbours.Nearest)
        )
    )
    labels = [c.label for several in shown.values() for c in several]
    picture = neighbours.sheet(drawn, labels, known.pictures, names, near)
    samples.save(picture, target / "neighbours.png")
    return found


def _said(near: neighbours.Nearest) -> dict[str, Any]:
    return {
        "n": len(near.psnr),
        "median cosine": float(np.median(near.cosine)),
        "median PSNR": float(np.median(near.psnr)),
        "near copies": int((near.psnr >= neighbours.COPY_DB).sum()),
    }


def _on(art: Art, preset: Preset) -> references.Composites:
    return references.composites(art, preset, 1, preset.seed, background=BEHIND)


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Evaluate the shipped model, or another one."""
    began = time.monotonic()
    target: Path = options.out or options.work / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    model: Path = options.init or export.shipped(options.preset)
    study = Study(
        render.load(options.work),
        preset,
        head.judges(options.work),
        head.load(options.work),
        Gallery(
            samples.load(model).to(options.device),
            gallery.digest_of(model),
            target / "pictures",
            preset.steps,
            preset.guidance,
        ),
        words.load(model),
    )
    print(write(study, target), flush=True)
    print(f"evaluate: {target.name}, {time.monotonic() - began:.0f} s", flush=True)


def write(study: Study, target: Path) -> str:
    """Draw, measure and write everything; return the report."""
    preset = study.preset
    shown = {
        "trained": chosen(study.art, "trained", TRAINED),
        "held_out": chosen(study.art, "held_out", HELD_OUT),
    }
    drawn = {
        split: study.judged.features(study.drawn(split, with_backgrounds(several, preset.seed)))
        for split, several in shown.items()
    }
    fixed = list(concepts.wanted(FOLDER / SHEET))
    sheet = [Image.fromarray(p) for p in study.drawn("sheet64", fixed)]
    labels = tuple(text.replace(f", {captions.STYLE}", "") for text in fixed)
    samples.save(samples.sheet(sheet, labels, columns=SHEET_COLUMNS), target / "sheet64.png")
    found: dict[str, Any] = {
        "model": study.gallery.model,
        "seed": preset.seed,
        "steps": preset.steps,
        "guidance": preset.guidance,
        "kid": {
            row: {to: dataclasses.asdict(one) for to, one in cells.items()}
            for row, cells in likeness(study, drawn).items()
        },
        "retrieval": naming(study, shown["trained"], drawn["trained"]) | calling(study),
        "neighbours": copying(study, target),
        "head": None if study.head.held_out is None else dataclasses.asdict(study.head.held_out),
        "versions": {"torch": torch.__version__, "machine": platform.machine()},
    }
    (target / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    report = card.markdown(found)
    (target / "evaluation.md").write_text(report, "utf-8")
    return report
