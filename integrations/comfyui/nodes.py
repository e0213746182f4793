"""The two nodes: what a person can set, and the configuration that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from retom import Config, ConfigError, ReToM
from retom.hosts import CHOICES

from .patching import patched
from .running import Settings

if TYPE_CHECKING:
    from retom.methods.window import WindowSize

PRESETS = ("custom", "quality", "balanced", "fast")
SIZE_WEIGHTED = {"auto": "auto", "on": True, "off": False}
CATEGORY = "model_patches/token merging"


class ReToMNode:
    """Token merging with the library's defaults, by a ratio or a preset."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Merges neighbouring tokens that are alike, so that the model has fewer to run."
    FUNCTION = "patch"
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What ComfyUI asks the user for."""
        return {
            "required": {
                "model": ("MODEL",),
                "ratio": ("FLOAT", _ratio()),
                "preset": (
                    list(PRESETS),
                    {"default": "custom", "tooltip": "Other than custom: its own ratio is used."},
                ),
            }
        }

    def patch(self, model: Any, ratio: float, preset: str) -> tuple[Any]:
        """The MODEL that merges; at ratio 0 the very one that came in."""
        if preset not in PRESETS:
            raise ConfigError(f"preset is one of {', '.join(PRESETS)}; {preset!r} was given.")
        custom = preset == "custom"
        config = Config(method=ReToM(ratio=ratio)) if custom else Config.preset(preset)
        return (_patched(model, Settings(config)),)


class ReToMAdvancedNode:
    """Token merging with every option that a host of its own can carry out."""

    CATEGORY = CATEGORY
    DESCRIPTION = "ReToM with every option that a node can carry out: see docs/comfyui.md."
    FUNCTION = "patch"
    RETURN_TYPES = ("MODEL",)

    DEFAULT: ClassVar[ReToM] = ReToM()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What ComfyUI asks the user for."""
        default = cls.DEFAULT
        tooltip = "Tokens of a window, 1 to 16; 0 and 0 let the ratio decide."
        side = {"default": 0, "min": 0, "max": 16, "step": 1, "tooltip": tooltip}
        percent = {"min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "model": ("MODEL",),
                "ratio": ("FLOAT", _ratio()),
                "window_height": ("INT", side),
                "window_width": ("INT", side),
                "reach": ("INT", {"default": default.reach, "min": 0, "max": 4, "step": 1}),
                "allocation": (list(CHOICES["allocation"]), {"default": default.allocation}),
                "merge": (list(CHOICES["merge"]), {"default": default.merge}),
                "unmerge": (list(CHOICES["unmerge"]), {"default": default.unmerge}),
                "rematch": ("BOOLEAN", {"default": default.rematch}),
                "scope": (["auto", "attention", "kv", "block"], {"default": "auto"}),
                "levels": (
                    "STRING",
                    {
                        "default": "0",
                        "tooltip": "Attention levels of a UNet, 0 for the largest grid: 0 or 0, 1 "
                        "or all. Transformers have level 0 alone.",
                    },
                ),
                "share": (list(CHOICES["share"]), {"default": "layer"}),
                "size_weighted": (list(SIZE_WEIGHTED), {"default": "auto"}),
                "start_percent": ("FLOAT", {"default": 0.0, **percent}),
                "end_percent": ("FLOAT", {"default": 1.0, **percent}),
            }
        }

    def patch(
        self,
        model: Any,
        ratio: float,
        window_height: int,
        window_width: int,
        reach: int,
        allocation: Any,
        merge: Any,
        unmerge: Any,
        rematch: bool,  # noqa: FBT001
        scope: Any,
        levels: str,
        share: Any,
        size_weighted: str,
        start_percent: float,
        end_percent: float,
    ) -> tuple[Any]:
        """The MODEL that merges; at ratio 0 the very one that came in."""
        if size_weighted not in SIZE_WEIGHTED:
            raise ConfigError(f"size_weighted is auto, on or off; {size_weighted!r} was given.")
        method = ReToM(
            ratio=ratio,
            window=read_window(window_height, window_width),
            reach=reach,
            allocation=allocation,
            merge=merge,
            unmerge=unmerge,
            rematch=rematch,
        )
        config = Config(
            method=method,
            scope=scope,
            levels=read_levels(levels),
            share=share,
            size_weighted=SIZE_WEIGHTED[size_weighted],
        )
        return (_patched(model, Settings(config, start_percent, end_percent)),)


def read_window(height: int, width: int) -> WindowSize:
    """(height, width), or ``auto`` for two zeros.

    Raises:
        ConfigError: One of them is zero.
    """
    if (height == 0) != (width == 0):
        raise ConfigError(
            "window_height and window_width are both at least 1, or both 0 to let the ratio decide"
            f"; {height} and {width} were given."
        )
    return (height, width) if height else "auto"


def read_levels(text: str) -> Any:
    """Levels as a person writes them: ``0``, ``0, 1`` or ``all``.

    Raises:
        ConfigError: It is none of these.
    """
    parts = [part.strip() for part in text.split(",")]
    if parts == ["all"]:
        return "all"
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"levels is all, or numbers such as 0 or 0, 1; {text!r} was given.")
    return tuple(int(part) for part in parts)


def _ratio() -> dict[str, Any]:
    tooltip = "Share of the tokens that go."
    return {"default": 0.5, "min": 0.0, "max": 0.95, "step": 0.01, "tooltip": tooltip}


def _patched(model: Any, settings: Settings) -> Any:
    return model if settings.config.method.ratio == 0 else patched(model, settings)
