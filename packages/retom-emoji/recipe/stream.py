"""Examples for the denoiser, every batch composed anew on the device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from . import captions
from .autoencoder import encode
from .pool import Encoders
from .preset import Phase
from .render import Art
from .scenes import Layout, Scenes
from .text import tokens


class Stream:
    """An endless supply of latents and tokens.

    A thread lays out the next batch and writes its captions while the device is busy with this
    one.

    Args:
        art: All pictures; only trained ones are shown.
        encoders: Applied to every batch.
        phase: Picture size, object sizes, share of pairs and batch size.
        seed: Seed of layouts and captions.
    """

    def __init__(self, art: Art, encoders: Encoders, phase: Phase, seed: int) -> None:
        self._encoders = encoders
        self._phase = phase
        self._scenes = Scenes(art, "trained", encoders.autoencoder.device, seed)
        self._thread = ThreadPoolExecutor(1)
        self._next: Future[tuple[list[Layout], Tensor]] = self._thread.submit(self._plan)

    def _plan(self) -> tuple[list[Layout], Tensor]:
        scenes, rng = self._scenes, self._scenes.rng
        pairs = round(self._phase.pairs * self._phase.batch)
        layouts = [scenes.singles(self._phase.batch - pairs, self._phase.scales)]
        shown = [scenes.concepts[row] for row in layouts[0].rows[:, 0]]
        texts = [
            captions.varied(concept, background, rng)
            for concept, background in zip(shown, layouts[0].backgrounds, strict=True)
        ]
        if pairs:
            layout = scenes.pairs(pairs)
            layouts.append(layout)
            for rows, words, background in zip(
                layout.rows, layout.relations, layout.backgrounds, strict=True
            ):
                both = (scenes.concepts[rows[0]], scenes.concepts[rows[1]])
                texts.append(captions.varied_pair(both, words, background, rng))
        return layouts, tokens(self._encoders.tokenizer, texts)

    @torch.no_grad()
    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the latents and tokens of ``phase.batch`` new pictures, on the device."""
        layouts, ids = self._next.result()
        self._next = self._thread.submit(self._plan)
        autoencoder = self._encoders.autoencoder
        pictures = torch.cat([self._scenes.compose(each, self._phase.size) for each in layouts])
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
            latents = encode(autoencoder, pictures)
        return latents.float() * self._encoders.scale, ids.to(pictures.device)
