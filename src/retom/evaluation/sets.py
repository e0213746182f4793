"""Sets of pictures against reference pictures, and pictures against their prompts."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retom.errors import ConfigError
from retom.evaluation.store import key_of
from retom.metrics import (
    Estimate,
    Features,
    alignment,
    extract,
    frechet,
    frechet_difference,
    kid,
    kid_difference,
)
from retom.metrics.kid import MINIMUM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from retom.evaluation.store import Store
    from retom.metrics import AlignmentHead, Extractor, TextEncoder

PRINCIPAL = 64
"""Axes of the Fréchet distance where there are too few pictures for all features."""

REAL = "real pictures"

_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Features of the pictures that others are compared with as a set.

    Attributes:
        features: In an order of no meaning, so that the first few are a fair share of all.
        digest: Of everything that they depend on.
        name: What they are; :data:`REAL` for real pictures.
    """

    features: Features
    digest: str
    name: str = REAL

    @property
    def is_real(self) -> bool:
        """Whether nobody's model drew them."""
        return self.name == REAL

    def halves(self) -> tuple[Features, Features]:
        """Every second picture each: what two sets of one kind measure against each other."""
        values, extractor = self.features.values, self.features.extractor
        return (
            Features(values[0::2].contiguous(), extractor),
            Features(values[1::2].contiguous(), extractor),
        )


def real_pictures(
    store: Store, folder: Path, extractor: Extractor, size: tuple[int, int]
) -> Reference:
    """Features of all pictures in a folder, cropped at the centre and resized to the drawn size.

    They are shuffled, always alike: files lie together by name, and the Fréchet distance takes as
    many of the first as there are drawn pictures.

    Args:
        store: Keeps the features.
        folder: PNG, JPEG, WebP or BMP files, in any subfolder.
        extractor: The network.
        size: (height, width) of the drawn pictures, in pixels.

    Raises:
        ConfigError: There are fewer than 16 pictures, which is too few for two halves, or one
            cannot be read.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _KINDS and p.is_file())
    if len(paths) < 2 * MINIMUM:
        raise ConfigError(
            f"{folder} holds {len(paths)} pictures ({', '.join(_KINDS)}); real pictures to compare "
            f"with are at least {2 * MINIMUM}, and the more the better."
        )
    digest = hashlib.sha256(f"{size}, shuffled".encode())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    found = digest.hexdigest()[:24]
    key = key_of("real", {"pictures": found, "extractor": extractor.name})
    made = store.tensors(key, lambda: {"features": _features(paths, extractor, size)})
    return Reference(Features(made["features"], extractor.name), found)


def _features(paths: list[Path], extractor: Extractor, size: tuple[int, int]) -> Tensor:
    rows: list[Tensor] = []
    for start in range(0, len(paths), 32):
        pictures = torch.stack([_read(path, size) for path in paths[start : start + 32]])
        rows.append(extract(pictures, extractor).values)
    features = torch.cat(rows)
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]


def _read(path: Path, size: tuple[int, int]) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(
                image.convert("RGB"), (size[1], size[0]), Image.Resampling.BICUBIC
            )
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a picture: {error}.") from error
    return torch.from_numpy(np.array(fitted)).movedim(-1, 0)


def distances(
    store: Store,
    names: Sequence[str],
    own: Features,
    reference: Reference,
    other: tuple[Sequence[str], Features] | None = None,
) -> dict[str, Estimate]:
    """KID and Fréchet distance of pictures to others, or by how much they differ from third ones'.

    Args:
        store: Keeps the estimates, which take seconds.
        names: Of the pictures.
        own: Their features.
        reference: What they should look like.
        other: Names and features of pictures they are paired with: the result is then the
            difference, negative where ``own`` is closer.

    Returns:
        By measure, ``kid`` and ``frechet``; those that so few pictures do not allow are left out.
    """
    found: dict[str, Estimate] = {}
    n = min(len(own), len(reference.features))
    principal = axes_at(n, own.dim)
    content: dict[str, Any] = {
        "pictures": list(names),
        "other": list(other[0]) if other else None,
        "extractor": own.extractor,
        "real": reference.digest,
    }
    if n >= MINIMUM:

        def measure_kid() -> Estimate:
            if other is None:
                return kid(own, reference.features)
            return kid_difference(own, other[1], reference.features)

        found["kid"] = kept(store, {**content, "measure": "kid"}, measure_kid)
    if allows_frechet(n, own.dim):

        def measure_frechet() -> Estimate:
            options: Any = {"n": n, "principal": principal, "resamples": 100}
            if other is None:
                return frechet(own, reference.features, **options)
            return frechet_difference(own, other[1], reference.features, **options)

        content |= {"measure": "frechet", "n": n, "principal": principal}
        found["frechet"] = kept(store, content, measure_frechet)
    return found


def axes_at(n: int, dim: int) -> int | None:
    """Principal axes of the Fréchet distance of n pictures; None for all ``dim`` features."""
    return None if n > dim else PRINCIPAL


def allows_frechet(n: int, dim: int) -> bool:
    """Whether n pictures are more than the axes of their Fréchet distance."""
    return n > (axes_at(n, dim) or dim)


def alignments(
    head: AlignmentHead, encoder: TextEncoder, own: Features, prompts: Sequence[str]
) -> list[float]:
    """Cosine of pictures and their prompts in the head's space, one number a picture.

    Raises:
        ConfigError: The head was trained on another text encoder.
    """
    wanted = head.sizes["texts"]
    if encoder.name != wanted:
        raise ConfigError(
            f"The alignment head reads texts by {wanted}; the encoder given is {encoder.name}."
        )
    return [float(value) for value in alignment(head, own, encoder(list(prompts)))]


def kept(store: Store, content: dict[str, Any], measure: Callable[[], Estimate]) -> Estimate:
    """An estimate from the store, or from ``measure`` and then kept: it takes seconds."""
    key = key_of("sets", content)
    if not store.has_record(key):
        store.add_record(key, content, asdict(measure()))
    return Estimate(**store.record(key)["values"])
