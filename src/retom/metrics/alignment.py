"""Text alignment: whether a picture shows what its prompt says, by a small contrastive head.

Two frozen networks give a feature vector of a picture and one of a text; the head maps both to unit
vectors of one space, in which a picture is near the text it belongs to. The score is their cosine.
It is comparable among pictures measured with one head only, and is no CLIP score: that is defined
by OpenAI's networks and their 400 million pairs. :mod:`retom.metrics.alignment_training` trains a
head; what it is worth is said by its retrieval on texts it has not seen, which it carries along.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.functional import normalize

from retom.errors import MetricError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from retom.metrics.features import Features

FORMAT = "retom-alignment-1"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How often pictures find their own text among others.

    Attributes:
        top1: Share of pictures whose own text scores highest.
        top5: Share of pictures whose own text is among the five highest.
        median_rank: Median place of the own text; 1 is the best.
        n: Pictures.
        num_texts: Texts to choose from. Chance is 1 / num_texts for ``top1``.
    """

    top1: float
    top5: float
    median_rank: float
    n: int
    num_texts: int


class AlignmentHead(nn.Module):
    """Maps picture features and text vectors to unit vectors of one space.

    Picture features are standardised by the training set's moments and go through one hidden layer;
    text vectors, which come from a sentence model already, through a linear map.

    Args:
        features: Name of the extractor.
        feature_dim: Length of its vectors.
        texts: Name of the text encoder.
        text_dim: Length of its vectors.
        width: Length of the common vectors.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, *, features: str, feature_dim: int, texts: str, text_dim: int, width: int = 256
    ) -> None:
        super().__init__()
        self.sizes = {
            "features": features,
            "feature_dim": feature_dim,
            "texts": texts,
            "text_dim": text_dim,
            "width": width,
        }
        self.held_out: Retrieval | None = None
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("deviation", torch.ones(feature_dim))
        self.image = nn.Sequential(
            nn.Linear(feature_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.text = nn.Linear(text_dim, width)

    def embed_pictures(self, features: Tensor) -> Tensor:
        """Unit vectors (n, width) of picture features (n, feature_dim)."""
        return normalize(self.image((features - self.mean) / self.deviation), dim=1)

    def embed_texts(self, vectors: Tensor) -> Tensor:
        """Unit vectors (n, width) of text vectors (n, text_dim)."""
        return normalize(self.text(vectors), dim=1)


def alignment(head: AlignmentHead, features: Features, texts: Tensor) -> Tensor:
    """Cosine between pictures and their prompts in the head's space; higher is better aligned.

    Args:
        head: A trained head.
        features: Of n pictures, by the extractor the head was trained on.
        texts: Vectors of their n prompts, (n, text_dim), by the head's text encoder.

    Returns:
        float32 (n,), from -1 to 1; :func:`~retom.metrics.mean_estimate` gives mean and interval.

    Raises:
        MetricError: The features are of another extractor, or the numbers or sizes disagree.
    """
    pictures, prompts = _embed(head, features, texts)
    if len(pictures) != len(prompts):
        raise MetricError(
            f"Each picture has a prompt; {len(pictures)} pictures and {len(prompts)} prompts were "
            "given."
        )
    return (pictures * prompts).sum(dim=1)


def retrieval(
    head: AlignmentHead, features: Features, texts: Tensor, owner: Tensor | None = None
) -> Retrieval:
    """Rank all texts for every picture and look where its own one stands.

    Args:
        head: A trained head.
        features: Of n pictures.
        texts: Vectors of the texts to choose from, (m, text_dim), m at least 2. They should differ:
            equal texts are ties, which count against the picture.
        owner: For every picture the row of its own text, int64 (n,); picture i owns text i if it is
            not given.

    Raises:
        MetricError: As :func:`alignment`, or an owner is no row of ``texts``.
    """
    pictures, prompts = _embed(head, features, texts)
    if owner is None:
        owner = torch.arange(len(pictures))
    if len(prompts) < 2 or owner.shape != (len(pictures),):
        raise MetricError(
            "Retrieval needs at least 2 texts and one owned text a picture; "
            f"{len(prompts)} texts, {len(pictures)} pictures and {len(owner)} owners were given."
        )
    if int(owner.min()) < 0 or int(owner.max()) >= len(prompts):
        raise MetricError(
            f"Owners are rows of the texts, from 0 to {len(prompts) - 1}; "
            f"{int(owner.min())} to {int(owner.max())} were given."
        )
    scores = pictures @ prompts.T
    own = scores.gather(1, owner[:, None])
    rank = (scores >= own).sum(dim=1)  # the own text counts itself, hence from 1
    return Retrieval(
        top1=float((rank <= 1).double().mean()),
        top5=float((rank <= 5).double().mean()),
        median_rank=float(rank.double().quantile(0.5)),
        n=len(pictures),
        num_texts=len(prompts),
    )


def save_head(head: AlignmentHead, path: Path | str) -> None:
    """Write a head to one safetensors file: weights, names of both networks, held-out retrieval.

    Raises:
        MissingExtraError: The extra ``eval`` is not installed.
    """
    held_out = None if head.held_out is None else asdict(head.held_out)
    about = {"format": FORMAT, "head": json.dumps({**head.sizes, "held_out": held_out})}
    tensors = {name: value.contiguous() for name, value in head.state_dict().items()}
    Path(path).write_bytes(_safetensors("torch").save(tensors, metadata=about))


def load_head(path: Path | str) -> AlignmentHead:
    """Read a head that :func:`save_head` wrote.

    Raises:
        MissingExtraError: The extra ``eval`` is not installed.
        ModelError: The file is missing or is no such head.
    """
    file = Path(path)
    opened: Any = _safetensors("").safe_open
    try:
        with opened(str(file), framework="pt") as stream:
            about = cast("dict[str, str]", stream.metadata() or {})
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises types of its own, without a common base
        raise ModelError(f"{file.name} cannot be read as safetensors: {error}.") from error
    if about.get("format") != FORMAT:
        raise ModelError(
            f"{file.name} is no alignment head of the format {FORMAT}; it says "
            f"{about.get('format', 'nothing about its format')}."
        )
    try:
        sizes: dict[str, Any] = json.loads(about["head"])
        held_out = sizes.pop("held_out")
        head = AlignmentHead(**sizes)
        head.load_state_dict(tensors)
        head.held_out = None if held_out is None else Retrieval(**held_out)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{file.name} is a damaged alignment head: {error}.") from error
    return head.eval()


@torch.no_grad()
def _embed(head: AlignmentHead, features: Features, texts: Tensor) -> tuple[Tensor, Tensor]:
    wanted = head.sizes
    if (features.extractor, features.dim) != (wanted["features"], wanted["feature_dim"]):
        raise MetricError(
            f"This head reads {wanted['features']} ({wanted['feature_dim']} numbers); features of "
            f"{features.extractor} ({features.dim} numbers) were given."
        )
    if texts.ndim != 2 or texts.shape[1] != wanted["text_dim"]:
        raise MetricError(
            f"This head reads text vectors (n, {wanted['text_dim']}) of {wanted['texts']}; "
            f"{tuple(texts.shape)} was given."
        )
    return head.embed_pictures(features.values), head.embed_texts(texts.float())


def _safetensors(part: str) -> Any:  # noqa: ANN401 - a module
    try:
        return import_module(f"safetensors.{part}" if part else "safetensors")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Alignment heads are safetensors files; {error.name} is not installed: "
            'pip install "retom[eval]".'
        ) from error
