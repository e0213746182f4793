"""Composites kept ready as latents and tokens, so that training does not wait for the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from . import captions, compose
from .autoencoder import encode, to_tensor
from .concepts import wanted
from .preset import FOLDER, Phase
from .render import Art
from .text import tokens

CHUNK = 32


@dataclass(frozen=True)
class Encoders:
    """The parts a training example passes through on its way to the denoiser."""

    autoencoder: AutoencoderTiny
    text: CLIPTextModel
    tokenizer: CLIPTokenizer

    @property
    def scale(self) -> float:
        """What latents are multiplied with; the pipeline divides by it."""
        return float(dict(self.autoencoder.config)["scaling_factor"])

    def tokens(self, texts: list[str]) -> Tensor:
        """Return what the text encoder sees of some texts."""
        return tokens(self.tokenizer, texts).to(self.text.device)

    def states(self, ids: Tensor) -> Tensor:
        """Return what the denoiser sees of some tokens."""
        return self.text(ids).last_hidden_state

    @torch.no_grad()
    def latents(self, pictures: list[compose.Picture]) -> Tensor:
        """Return normalised latents of 8-bit pictures."""
        device = self.autoencoder.device
        return encode(self.autoencoder, to_tensor(pictures).to(device)) * self.scale


class Pool:
    """A ring of examples, renewed little by little.

    Args:
        art: What is shown, concept by concept, those listed as frequent more often.
        encoders: Applied once an example.
        phase: Picture size, object sizes and number of examples.
        seed: Seed of composites, captions and batches.
    """

    def __init__(self, art: Art, encoders: Encoders, phase: Phase, seed: int) -> None:
        self._art = art
        self._encoders = encoders
        self._phase = phase
        self._rng = np.random.default_rng(seed)
        self._next = 0
        often = set(wanted(FOLDER / phase.often)) if phase.often else set[str]()
        self._often = [i for i, c in enumerate(art.concepts) if c.label in often]
        self._rare = [i for i, c in enumerate(art.concepts) if c.label not in often]
        self._turns = [0, 0]
        self._order = np.zeros(0, dtype=np.int64)
        parts = [self._make(min(CHUNK, phase.pool - i)) for i in range(0, phase.pool, CHUNK)]
        self.latents = torch.cat([latents for latents, _ in parts])
        self.tokens = torch.cat([ids for _, ids in parts])

    def _make(self, count: int) -> tuple[Tensor, Tensor]:
        pictures: list[compose.Picture] = []
        texts: list[str] = []
        for _ in range(count):
            index = self._next_concept()
            background = compose.random_background(self._rng)
            rgba = self._art.rgba[index]
            size, scales = self._phase.size, self._phase.scales
            pictures.append(compose.compose(rgba, background, size, self._rng, scales=scales))
            texts.append(captions.caption(self._art.concepts[index], background, self._rng))
        return self._encoders.latents(pictures), self._encoders.tokens(texts)

    def _next_concept(self) -> int:
        share = self._phase.often_share if self._often else 0.0
        rare = bool(self._rng.random() >= share)
        group = self._rare if rare else self._often
        self._turns[rare] += 1
        return group[self._turns[rare] % len(group)]

    def renew(self, count: int) -> None:
        """Replace the oldest examples by new ones."""
        latents, ids = self._make(count)
        for row in range(count):
            self.latents[self._next] = latents[row]
            self.tokens[self._next] = ids[row]
            self._next = (self._next + 1) % len(self.latents)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw examples; none comes twice before all came once."""
        if len(self._order) < count:
            self._order = self._rng.permutation(len(self.latents))
        rows = torch.from_numpy(self._order[:count].copy())
        self._order = self._order[count:]
        return self.latents[rows], self.tokens[rows]
