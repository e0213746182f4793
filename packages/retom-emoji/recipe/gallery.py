"""Pictures that the model under evaluation drew, kept one by one, so that a kill loses little."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from .compose import Picture

BATCH = 4


@dataclass(frozen=True)
class Gallery:
    """Draws prompts, each once.

    Attributes:
        pipe: The model.
        model: Digest of its files.
        folder: Where pictures are kept.
        steps: Sampling steps.
        guidance: Guidance scale.
    """

    pipe: StableDiffusionPipeline
    model: str
    folder: Path
    steps: int
    guidance: float

    def drawn(
        self, name: str, prompts: list[str], tell: Callable[[str], None] = lambda _: None
    ) -> list[Picture]:
        """Return a picture a prompt, of those that are kept and of those drawn now.

        Args:
            name: Of the list; it stands in the folder's name.
            prompts: The seed of each is its place in the list.
            tell: Told of every batch.
        """
        place = self.folder / f"{name}-{self._digest(prompts)}"
        place.mkdir(parents=True, exist_ok=True)
        files = [place / f"{i:03}.png" for i in range(len(prompts))]
        for start in range(0, len(prompts), BATCH):
            rows = range(start, min(start + BATCH, len(prompts)))
            if all(files[i].exists() for i in rows):
                continue
            found = self.pipe(
                [prompts[i] for i in rows],
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                generator=[torch.Generator().manual_seed(i) for i in rows],
                return_dict=False,
            )[0]
            for i, picture in zip(rows, found, strict=True):
                unfinished = files[i].with_suffix(".part")
                picture.save(unfinished, "PNG")
                unfinished.replace(files[i])
            tell(f"{name} {rows.stop}/{len(prompts)}")
        return [_read(file) for file in files]

    def _digest(self, prompts: list[str]) -> str:
        content = [self.model, prompts, self.steps, self.guidance, torch.__version__]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def digest_of(model: Path) -> str:
    """Return what tells one exported model from another: a digest of all its files."""
    found = hashlib.sha256()
    for file in sorted(model.rglob("*")):
        if file.is_file():
            found.update(file.relative_to(model).as_posix().encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


def _read(file: Path) -> Picture:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
