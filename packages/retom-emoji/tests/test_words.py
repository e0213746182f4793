"""Further words: which there are, and that a model learns them without changing anything else."""

from __future__ import annotations

import argparse

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("tokenizers")

import torch

import retom_emoji
from recipe import preset, samples, words
from recipe.concepts import Concept
from recipe.head import Judges

WORDS = {"spud": "pizza", "moggy": "cat face"}


class Meanings:
    """Text vectors that say which words are alike."""

    name = "meanings"
    alike = ({"cat", "moggy", "pets", "cats", "cars"}, {"pizza", "pie"}, {"car", "speed"})

    def __call__(self, texts):
        rows = [
            [sum(word in group for word in text.split()) for group in self.alike] for text in texts
        ]
        return torch.tensor(rows).float() + 0.1


def test_words_stand_for_the_nearest_label_that_is_near_enough() -> None:
    known = (
        Concept("1", "cat", ("moggy", "speed", "mo ggy", "pets"), "trained"),
        Concept("2", "pizza", ("pie",), "trained"),
        Concept("3", "car", ("pets",), "held_out"),
    )
    judged = Judges(None, Meanings())  # type: ignore[arg-type]
    plurals = words.vocabulary(known, judged, ["cars", "cats", "pizzaes", "reds"], set())
    assert plurals == {"moggy": "cat", "pets": "cat", "pie": "pizza", "cats": "cat"}
    found = words.vocabulary(known, judged, ["moggy", "car", "red", "xy", "pie-s"], {"pie"})
    # A tag that is not near, a held-out name, a colour, a short or broken word and a token are out.
    assert found == {"moggy": "cat", "pets": "cat"}
    assert words.vocabulary(known, judged, [], set()) == {**found, "pie": "pizza"}


@pytest.fixture(scope="module")
def taught():
    pipe = samples.load(retom_emoji.folder(128))
    pipe.set_progress_bar_config(disable=True)
    known = list(retom_emoji.prompts("trained")[:3])
    before = (
        pipe.text_encoder.get_input_embeddings().weight.clone(),
        pipe.tokenizer(list(retom_emoji.prompts("trained")))["input_ids"],
    )
    report = words.train(pipe, WORDS, known, steps=6, guidance=4.0, seed=0)
    return pipe, before, report


def test_a_word_comes_nearer_to_what_it_stands_for(taught) -> None:
    _, _, report = taught
    assert report["after"] < report["at first"] < report["before"]


def test_captions_without_the_words_are_the_same_to_the_bit(taught) -> None:
    pipe, (table, ids), _ = taught
    assert pipe.tokenizer(list(retom_emoji.prompts("trained")))["input_ids"] == ids
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[: len(table)], table)
    others = dict(pipe.text_encoder.named_parameters())
    for name, value in samples.load(retom_emoji.folder(128)).text_encoder.named_parameters():
        if "token_embedding" not in name:
            assert torch.equal(others[name], value), name


@pytest.mark.parametrize(
    ("text", "times"),
    [("a spud", 1), ("A Spud, on blue", 1), ("spuds", 0), ("aspud", 0), ("spud moggy", 2)],
)
def test_a_word_is_a_token_only_where_it_stands_alone(taught, text, times) -> None:
    pipe, (table, _), _ = taught
    assert sum(i >= len(table) for i in pipe.tokenizer(text)["input_ids"]) == times


def test_a_taught_model_survives_being_saved(taught, tmp_path) -> None:
    pipe, _, _ = taught
    pipe.save_pretrained(tmp_path)
    again = samples.load(tmp_path)
    assert again.tokenizer("a spud")["input_ids"] == pipe.tokenizer("a spud")["input_ids"]
    rows = [one.text_encoder.get_input_embeddings().weight for one in (pipe, again)]
    assert torch.equal(*rows)
    assert again.text_encoder.config.vocab_size == len(again.tokenizer)


def test_a_model_is_taught_once(tmp_path) -> None:
    options = argparse.Namespace(init=retom_emoji.folder(256), out=None, work=tmp_path, preset=None)
    with pytest.raises(ValueError, match="model-256 knows 491 further words already"):
        words.run(preset.load("cpu-256"), options)


def test_a_word_that_is_a_token_already_is_refused() -> None:
    pipe = samples.load(retom_emoji.folder(128))
    taken = next(t for t in pipe.tokenizer.get_vocab() if len(t) > 2 and t.isalpha())
    with pytest.raises(ValueError, match="tokens already"):
        words.add_tokens(pipe.tokenizer, pipe.text_encoder, {taken: "pizza"})
