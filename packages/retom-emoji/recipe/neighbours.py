"""Does the model repeat its training pictures? Each drawn picture beside its nearest ones.

All prompts ask for one background, and the training art is laid on it: otherwise the background
would decide what is near. The model has seen one picture a concept and style, so that a good
picture of a trained concept is near its art. Two comparisons say what nearness is worth: held-out
art, which is new by construction, and drawn pictures of held-out concepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .compose import Picture

CELL = 96
LABEL = 12
COLUMNS = 4
COPY_DB = 25.0
"""From this PSNR on, a drawn picture is called a near copy; the autoencoder alone reaches 31."""


@dataclass(frozen=True)
class Nearest:
    """The training pictures that are nearest to some pictures.

    Attributes:
        by_features: Their places, ``(n,)``, by cosine of features.
        cosine: Of those.
        by_pixels: Their places, ``(n,)``, by mean squared error.
        psnr: Of those, in dB.
    """

    by_features: npt.NDArray[np.int64]
    cosine: npt.NDArray[np.float64]
    by_pixels: npt.NDArray[np.int64]
    psnr: npt.NDArray[np.float64]


def nearest(
    pictures: list[Picture],
    features: npt.NDArray[np.float32],
    known: list[Picture],
    known_features: npt.NDArray[np.float32],
) -> Nearest:
    """Look for the nearest of some known pictures, by features and by pixels.

    Args:
        pictures: ``(h, w, 3)`` each.
        features: ``(n, d)``.
        known: Of the same size.
        known_features: ``(m, d)``.
    """
    scores = _unit(features) @ _unit(known_features).T
    pool = np.stack(known).astype(np.float32).reshape(len(known), -1)
    places: list[int] = []
    errors: list[float] = []
    for picture in pictures:
        error = ((pool - picture.astype(np.float32).reshape(1, -1)) ** 2).mean(axis=1)
        places.append(int(error.argmin()))
        errors.append(float(error.min()))
    psnr = 10 * np.log10(255**2 / np.maximum(np.array(errors), 1e-3))
    return Nearest(scores.argmax(axis=1), scores.max(axis=1), np.array(places), psnr)


def sheet(
    drawn: list[Picture], labels: list[str], known: list[Picture], names: list[str], near: Nearest
) -> Image.Image:
    """Lay out threes: drawn, nearest by features, nearest by pixels, with their names below."""
    rows = -(-len(drawn) // COLUMNS)
    gap = 10
    width = 3 * CELL + gap
    out = Image.new("RGB", (COLUMNS * width, rows * (CELL + 2 * LABEL + gap)), "white")
    pen = ImageDraw.Draw(out)
    for i, picture in enumerate(drawn):
        left, top = i % COLUMNS * width, i // COLUMNS * (CELL + 2 * LABEL + gap)
        a, b = int(near.by_features[i]), int(near.by_pixels[i])
        cells = (
            (picture, labels[i], ""),
            (known[a], names[a], f"cosine {near.cosine[i]:.2f}"),
            (known[b], names[b], f"{near.psnr[i]:.1f} dB"),
        )
        for column, (shown, name, value) in enumerate(cells):
            x = left + column * CELL
            small = Image.fromarray(shown).resize((CELL - 2, CELL - 2), Image.Resampling.LANCZOS)
            out.paste(small, (x + 1, top + 1))
            pen.text((x + 2, top + CELL), name[:16], fill="black")
            pen.text((x + 2, top + CELL + LABEL), value, fill="grey")
    return out


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    values = rows.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)
