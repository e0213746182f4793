"""Reference pictures: composites that no model drew, with the captions that fit them."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from . import captions, compose, concepts, render
from .compose import Background, Picture
from .concepts import Concept
from .preset import Preset
from .render import Art

EACH = 4


@dataclass(frozen=True)
class Composites:
    """Pictures of some concepts, concept by concept.

    Attributes:
        pictures: ``(size, size, 3)`` each.
        concepts: What each shows.
        backgrounds: What lies behind it.
    """

    pictures: list[Picture]
    concepts: list[Concept]
    backgrounds: list[Background]


def composites(
    art: Art, preset: Preset, each: int, seed: int, *, background: Background | None = None
) -> Composites:
    """Compose pictures as the last phase of training does.

    Args:
        art: What is shown.
        preset: Its last phase gives size and scales.
        each: Pictures of every entry.
        seed: Of backgrounds and places.
        background: The one for all; drawn at random if not given.
    """
    phase = preset.denoiser.phases[-1]
    rng = np.random.default_rng(seed)
    pictures: list[Picture] = []
    shown: list[Concept] = []
    behind: list[Background] = []
    for rgba, concept in zip(art.rgba, art.concepts, strict=True):
        for _ in range(each):
            own = background or compose.random_background(rng)
            pictures.append(compose.compose(rgba, own, phase.size, rng, scales=phase.scales))
            shown.append(concept)
            behind.append(own)
    return Composites(pictures, shown, behind)


def plain(concept: Concept) -> str:
    """Return the prompt that names a concept and its style alone."""
    return captions.prompt(concept.label, style=concept.style)


def plain_of(art: Art, split: concepts.Split) -> list[str]:
    """Return the plain prompt of every entry of a split."""
    return [plain(concept) for concept in art.concepts if concept.split == split]


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Write PNG files by split, for ``retom eval --real OUT/trained``, and their prompts.

    ``OUT/trained.txt`` has a line a picture, with its object, style and background: every concept
    once, then every concept again, so that as many prompts as there are concepts name each.
    """
    target: Path = options.out or options.work / "references"
    art = render.load(options.work)
    for seed, split in enumerate(concepts.SPLITS):
        made = composites(art.subset(split), preset, EACH, preset.seed + seed)
        folder = target / split
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for i, (picture, concept) in enumerate(zip(made.pictures, made.concepts, strict=True)):
            Image.fromarray(picture).save(folder / f"{concept.code}-{i % EACH}.png")
        named = [
            captions.prompt(concept.label, style=concept.style, background=behind.colour)
            for concept, behind in zip(made.concepts, made.backgrounds, strict=True)
        ]
        lines = [line for turn in range(EACH) for line in named[turn::EACH]]
        (target / f"{split}.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
        print(f"references: {len(made.pictures)} pictures in {folder.name}", flush=True)
