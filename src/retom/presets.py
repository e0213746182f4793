"""Configurations with a name, in one table: a measured result goes in by changing one line.

None of them is validated on real weights, by which Stable Diffusion's or SDXL's are meant: those
were not at hand. What was measured on the model that comes along stands beside each; the numbers
are those of ``benchmarks/results/presets.md`` (retom-emoji-256, 32 prompts, 8 steps, guidance 4,
level 0, two CPU cores: PSNR of pictures to the un-merged ones, and speed-up of the denoiser over a
picture, of ``paper`` in a call that makes its plans; tomesd at ratio 0.5: 34.6 dB at 1.24x, the
defaults at ratio 0.5: 42.2 dB at 1.42x).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retom.checks import check_choice
from retom.methods import ReToM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retom.methods import Method

NOT_VALIDATED = "not validated on real weights"
WHOLE_END = (0.2, 1.0)
"""Noise at which the presets merge: no later step mends what the last ones get wrong."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of the table.

    Attributes:
        purpose: What it is for.
        measured: What was measured, and on what.
        method: Which tokens merge into which.
        options: Options of :class:`retom.Config` besides the method; its defaults for the others.
    """

    purpose: str
    measured: str
    method: Method
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        return f"{self.purpose}; {NOT_VALIDATED}; measured: {self.measured}"


PRESETS: dict[str, Preset] = {
    "quality": Preset(
        "pictures close to the un-merged ones, the defaults at ratio 0.3, the last steps whole",
        "54.9 dB at 1.18x",
        ReToM(ratio=0.3),
        {"noise": WHOLE_END},
    ),
    "balanced": Preset(
        "the defaults, the last steps whole",
        "51.5 dB at 1.37x",
        ReToM(ratio=0.5),
        {"noise": WHOLE_END},
    ),
    "fast": Preset(
        "few tokens, the defaults at ratio 0.7, in windows of 4x2, the last steps whole",
        "46.9 dB at 1.53x",
        ReToM(ratio=0.7),
        {"noise": WHOLE_END},
    ),
    "paper": Preset(
        "the form of arXiv:2507.12771: windows that adjust, the representative speaks for its "
        "window, similarities computed at a specific timestep and reused; ratio, window sizes and "
        "timesteps are not published and are ours",
        "25.6 dB at 1.53x",
        ReToM(
            ratio=0.5,
            window=(2, 2),
            allocation="multiscale",
            reach=0,
            merge="representative",
            kv_lean=0,
            unmerge="copy",
        ),
        {"scope": "attention", "refresh": (0.5,), "share": "level", "size_weighted": False},
    ),
}


def preset_of(name: object) -> Preset:
    """The preset of a name.

    Raises:
        ConfigError: There is none; the message lists those that exist.
    """
    check_choice("preset", name, tuple(PRESETS))
    return PRESETS[str(name)]
