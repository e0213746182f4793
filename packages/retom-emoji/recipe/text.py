"""Make the tokenizer, and warm the text encoder up on the sentence vectors of a larger model.

A text encoder trained from nothing on a few hundred captions learns names, not meanings. A few
minutes of imitating a sentence model over all emoji labels and tags give it neighbours for words
that no trained picture shows.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import sentences
from .ema import Ema
from .loop import Loop, move, set_rate
from .preset import Preset, TextSettings
from .sentences import Sentences

START, END = "<|startoftext|>", "<|endoftext|>"
END_ID = 1
HEAD = "text_head.pt"


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


class Imitation:
    """What is left to learn from the teacher: the loss of a student on a draw of the sentences.

    Args:
        known: Texts and the teacher's vectors; kept on the student's device.
        tokenizer: The student's.
        student: The text encoder.
        head: Maps the student's state at the end of a text to the teacher's space.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        known: Sentences,
        tokenizer: CLIPTokenizer,
        student: CLIPTextModel,
        head: nn.Linear,
        seed: int,
    ) -> None:
        self._words = known.words
        self._ids = tokens(tokenizer, known.texts)
        self._vectors = known.vectors
        self._student = student
        self._head = head
        self._rng = np.random.default_rng(seed)

    def loss(self, count: int) -> Tensor:
        """Return the loss on so many texts, half of the time words and half of it captions."""
        everything = len(self._ids)
        first = self._rng.random() < 0.5
        low, high = (0, self._words) if first else (self._words, everything)
        rows = torch.from_numpy(self._rng.integers(low, high, count))
        device = self._student.device
        batch = trim(self._ids[rows]).to(device)
        hidden = self._student(batch).last_hidden_state
        ends = torch.eq(batch, END_ID).int().argmax(dim=1)
        last = hidden[torch.arange(count, device=device), ends]
        guess = functional.normalize(self._head(last).float(), dim=-1)
        target = self._vectors[rows].to(device)
        scores = 20 * guess @ target.T
        apart = functional.cross_entropy(scores, torch.arange(count, device=device))
        return (1 - (guess * target).sum(-1)).mean() + 0.1 * apart


def load_head(work: Path, device: torch.device) -> nn.Linear:
    """Read the frozen head that :func:`run` stored."""
    weights = torch.load(work / HEAD, map_location=device, weights_only=True)
    head = nn.Linear(*reversed(weights["weight"].shape)).to(device)
    head.load_state_dict(weights)
    return head.requires_grad_(requires_grad=False)


def run(
    preset: Preset,
    work: Path,
    device: torch.device,
    *,
    minutes: float | None,
    deadline: float = math.inf,
) -> bool:
    """Train tokenizer and encoder; save ``tokenizer/`` and ``text_encoder/`` in the work folder.

    Returns:
        Whether the budget is used up, rather than the deadline reached.
    """
    settings = preset.text
    torch.manual_seed(preset.seed)
    known = sentences.load(preset, work)
    tokenizer = train_tokenizer(known.texts, settings)
    tokenizer.save_pretrained(work / "tokenizer")
    student = build(settings, tokenizer)
    move(student, device)
    head = nn.Linear(settings.width, known.vectors.shape[1]).to(device)
    imitation = Imitation(known, tokenizer, student, head, preset.seed)
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
        deadline=deadline,
    )
    loop.restore()
    while not loop.done:
        set_rate(optimizer, step=loop.step, fraction=loop.fraction, warmup=50)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = imitation.loss(settings.batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loop.tick(loss.item(), settings.batch)
    loop.save()
    student.save_pretrained(work / "text_encoder")
    torch.save(head.state_dict(), work / HEAD)
    print(f"text: {len(tokenizer)} tokens, saved", flush=True)
    return loop.finished
