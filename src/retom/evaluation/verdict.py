"""What a check amounts to, in sentences. The bounds are rules of thumb, and stand in the docs."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retom.evaluation.checking import Check

FASTER = 1.02
"""Below this a picture is not faster by more than timings vary."""

CLOSE_DB = 30.0
"""PSNR from which on differences are hard to see."""

NEAR_DB = 24.0
"""PSNR from which on differences are small."""

ABOVE_FLOOR_DB = 3.0
"""A picture no more than this above another seed's PSNR shares little but the prompt."""

GRID_DB = 3.0
"""Mean rise of the window grid that pictures without a grid do not show."""


def verdict_of(found: Check) -> str:
    """Whether the setting pays, what it does to pictures, and how sure that is."""
    sentences = [f"{_speed(found)}, {_closeness(found)}."]
    if found.artefacts and fmean(found.artefacts) > GRID_DB:
        sentences.append(
            f"The windows print through ({fmean(found.artefacts):+.1f} dB): try another window or "
            "alternate=True."
        )
    sentences.append(_advice(found))
    pairs = "One pair says" if found.pairs == 1 else f"{found.pairs} pairs say"
    sentences.append(
        f"{pairs} what to expect, not which of two settings is better: that takes retom eval."
    )
    return " ".join(sentences)


def _speed(found: Check) -> str:
    spread = f"from {min(found.speedups):.2f} to {max(found.speedups):.2f}"
    if min(found.speedups) > 1 and found.speedup >= FASTER:
        return f"{found.speedup:.2f}x as fast on this machine ({spread})"
    if found.speedup >= FASTER:
        return f"Perhaps faster, {found.speedup:.2f}x, but pairs disagree ({spread})"
    return f"Not faster here ({found.speedup:.2f}x, {spread})"


def _closeness(found: Check) -> str:
    mean = fmean(found.psnr)
    if found.floor and mean < fmean(found.floor) + ABOVE_FLOOR_DB:
        return (
            f"and pictures are hardly closer to the un-merged ones ({mean:.1f} dB) than another "
            f"seed's ({fmean(found.floor):.1f} dB)"
        )
    if mean >= CLOSE_DB:
        return f"and pictures are hard to tell from the un-merged ones ({mean:.1f} dB)"
    if mean >= NEAR_DB:
        return f"and pictures differ in small things ({mean:.1f} dB)"
    return f"and pictures differ visibly from the un-merged ones ({mean:.1f} dB)"


def _advice(found: Check) -> str:
    if found.kept == 1:
        return "Nothing merged: the ratio is 0, or no step has a noise that merges."
    near = fmean(found.psnr) >= NEAR_DB
    if found.speedup < FASTER:
        return (
            "Merging pays at large grids, where self-attention takes most of the time: a larger "
            "picture, or leave it off."
        )
    if not near:
        return "Where the picture must stay the same, use a lower ratio."
    return "Worth using."
