"""A drawn picture in numbers and in a few words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retom.drawing.loading import Model
    from retom.studio.request import Request
    from retom.studio.studio import Drawn


@dataclass(frozen=True, slots=True)
class Facts:
    """What is said of a picture both ways.

    Attributes:
        seconds: Of the whole picture, un-merged and merged.
        denoiser_seconds: Of the denoiser's calls alone, un-merged and merged.
        psnr: In dB; None for equal pictures, where it is infinite.
        ssim: 1 for equal pictures.
        tokens: (before, after) at each level that merged.
    """

    seconds: tuple[float, float]
    denoiser_seconds: tuple[float, float]
    psnr: float | None
    ssim: float
    tokens: tuple[tuple[int, int], ...]

    @property
    def speedup(self) -> float:
        """How many times as fast the whole picture was merged."""
        return self.seconds[0] / self.seconds[1]

    @property
    def denoiser_speedup(self) -> float:
        """The same for the denoiser alone."""
        return self.denoiser_seconds[0] / self.denoiser_seconds[1]

    @property
    def closeness(self) -> str:
        """PSNR in words."""
        return "identical" if self.psnr is None else f"{self.psnr:.1f} dB"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "seconds": list(self.seconds),
            "denoiser_seconds": list(self.denoiser_seconds),
            "psnr": self.psnr,
            "ssim": self.ssim,
        }


def facts_of(drawn: Drawn) -> Facts:
    """The numbers of a picture both ways."""
    result, comparison = drawn.result, drawn.comparison
    unmerged, merged = comparison.unmerged, result.merged
    rows = result.summary.levels if result.summary.seen else ()
    return Facts(
        seconds=(unmerged.median_seconds, merged.median_seconds),
        denoiser_seconds=(unmerged.median_denoiser_seconds, merged.median_denoiser_seconds),
        psnr=comparison.psnr if math.isfinite(comparison.psnr) else None,
        ssim=comparison.ssim,
        tokens=tuple((row.tokens, row.kept) for row in rows if row.kept < row.tokens),
    )


def where(model: Model) -> str:
    """What the times were taken on."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    threads = torch.get_num_threads()
    cores = f", {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else ""
    return f"{name}{cores}, {str(model.dtype).removeprefix('torch.')}"


def setting(request: Request) -> str:
    """How it merges in a few words: method, ratio, window, scope, noise."""
    values = request.values
    paper = " (paper)" if values["preset"] == "paper" and values["method"] == "retom" else ""
    words = [f"{values['method']}{paper}", f"{values['ratio']:g}"]
    words += [values["window"]] if values["window"] not in (None, "auto") else []
    words += [] if values["scope"] == "auto" else [values["scope"]]
    words += [f"whole below {values['whole_below']:g}"] if values["whole_below"] else []
    return " · ".join(words)


def picture(values: Mapping[str, Any]) -> str:
    """What was drawn in a few words: size, steps, seed."""
    return (
        f"{values['height']}x{values['width']} px · {values['steps']} steps · seed {values['seed']}"
    )
