"""Pairs of pictures: merged, or of another seed, against the un-merged ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retom.evaluation.store import key_of
from retom.metrics import extract, grid_artefacts, psnr, ssim

if TYPE_CHECKING:
    from torch import Tensor

    from retom.evaluation.store import Store
    from retom.metrics import Extractor

MOST_DB = 100.0
"""PSNR of equal pictures, so that it is a number and has a mean."""

Values = dict[str, list[float]]


def paired(
    store: Store, pictures: str, reference: str, period: tuple[int, int] | None
) -> dict[str, Any]:
    """PSNR, SSIM and grid artefacts of pictures in the store, one number a picture.

    Args:
        store: Has both.
        pictures: Name of the pictures.
        reference: Name of the pictures they are compared with.
        period: (height, width) of the windows in pixels; None measures no artefacts.
    """
    content = {"pictures": pictures, "reference": reference, "period": period and list(period)}
    key = key_of("pairs", content)
    if not store.has_record(key):
        x, y = store.pictures(pictures), store.pictures(reference)
        values: Values = {
            "psnr": psnr(x, y).clamp_max(MOST_DB).tolist(),
            "ssim": ssim(x, y).tolist(),
        }
        if period is not None:
            values["artefacts"] = grid_artefacts(x, y, period).tolist()
        store.add_record(key, content, values)
    return store.record(key)["values"]


def features(store: Store, pictures: str, extractor: Extractor) -> Tensor:
    """Feature vectors of pictures in the store, float32 (B, d), computed once."""
    key = key_of("features", {"pictures": pictures, "extractor": extractor.name})
    made = store.tensors(
        key, lambda: {"features": extract(store.pictures(pictures), extractor).values}
    )
    return made["features"]
