"""What a visitor asks for: read from whatever arrives, every value checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from retom.checks import check_choice
from retom.config import SCOPES, Config
from retom.drawing.generation import Settings, check_size
from retom.errors import ConfigError
from retom.methods import METHODS
from retom.presets import PRESETS
from retom.rules import method_options
from retom.studio.abilities import takes_negative_prompt

if TYPE_CHECKING:
    from retom.drawing.loading import Model
    from retom.methods.window import WindowSize
    from retom.studio.limits import Limits

SEED_LIMIT = 2**53
"""Seeds are less than this: larger whole numbers do not survive a browser."""
GUIDANCE_LIMIT = 50.0
WINDOW_LIMIT = 16
"""Tokens along one side of a window."""

NAMES = (
    "model",
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "guidance",
    "height",
    "width",
    "preset",
    "method",
    "ratio",
    "window",
    "scope",
    "whole_below",
)
"""Everything that can be asked for."""

_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to draw.

    Attributes:
        model: Name of one of the studio's models.
        settings: What to draw.
        config: How it merges.
        values: The values that this was read from, complete: a form shows them again.
    """

    model: str
    settings: Settings
    config: Config
    values: Mapping[str, Any]


def read_request(values: object, models: Mapping[str, Model], limits: Limits) -> Request:
    """Read what a visitor asks for.

    Args:
        values: A mapping of names in :data:`NAMES` to values as JSON has them. What is missing or
            None is the model's or the preset's own; only ``prompt`` is needed.
        models: Those that the owner allows, the first by default.
        limits: The owner's.

    Raises:
        ConfigError: A value is unknown, of the wrong type or out of its range; the message says
            which.
    """
    given = _given(values)
    check_choice("model", shortened(given.setdefault("model", next(iter(models)))), tuple(models))
    name: str = given["model"]
    model = models[name]
    settings = _settings(given, model, limits)
    config = config_of(given)
    read = {
        **{field.name: getattr(settings, field.name) for field in fields(settings)},
        "model": name,
        "preset": given.get("preset", "balanced"),
        "method": config.method.name,
        "ratio": config.method.ratio,
        "window": window_words(getattr(config.method, "window", None)),
        "scope": config.scope,
        "whole_below": config.noise[0],
    }
    return Request(name, settings, config, read)


def config_of(given: Mapping[str, Any]) -> Config:
    """The configuration of a preset with the visitor's options on top.

    A method that is not the preset's comes with its own defaults in place of the preset, at the
    preset's noise, so that methods are compared over the same steps.

    Raises:
        ConfigError: An option is unknown to the method or out of its range.
    """
    preset = given.get("preset", "balanced")
    check_choice("preset", shortened(preset), tuple(PRESETS))
    config = Config.preset(preset)
    method = given.get("method", config.method.name)
    check_choice("method", shortened(method), tuple(METHODS))
    if method != config.method.name:
        config = Config(method=METHODS[method](), noise=config.noise)
    options: dict[str, Any] = {}
    for name in ("ratio", "window"):
        if name in given and name not in takes(method):
            raise ConfigError(f"The method {method} takes no {name}; leave it out.")
    if "ratio" in given:
        options["ratio"] = _number("ratio", given["ratio"], 0.0, 1.0)
    if "window" in given:
        window = _window(given["window"])
        own = cast("Any", METHODS[method]()).window
        options["window"] = own if window == "auto" else window
    if "scope" in given:
        check_choice("scope", shortened(given["scope"]), SCOPES)
        options["scope"] = given["scope"]
    if "whole_below" in given:
        low = _number("whole_below", given["whole_below"], 0.0, 1.0)
        options["noise"] = (low, config.noise[1])
    return config.with_options(**options)


def takes(method: str) -> set[str]:
    """Which of ``ratio`` and ``window`` a method has as an option, by its name."""
    return {"ratio", "window"} & method_options(METHODS[method]())


def _given(values: object) -> dict[str, Any]:
    """The values that are there, by name."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"A request is an object with a prompt; {shortened(values)!r} was given.")
    named = cast("Mapping[object, Any]", values)
    unknown = sorted(str(shortened(name)) for name in named if name not in NAMES)
    if unknown:
        raise ConfigError(
            f"Unknown option {', '.join(unknown)}; a request takes {', '.join(NAMES)}."
        )
    return {str(name): value for name, value in named.items() if value is not None}


def _settings(given: Mapping[str, Any], model: Model, limits: Limits) -> Settings:
    prompt = _text("prompt", given.get("prompt", ""), limits.prompt)
    if not prompt.strip():
        raise ConfigError("The prompt is empty; write what to draw.")
    negative = _text("negative prompt", given.get("negative_prompt", ""), limits.prompt)
    if negative.strip() and not takes_negative_prompt(model):
        raise ConfigError(f"{model.name} takes no negative prompt; leave it empty.")
    size = model.default_size or (None, None)
    height, width = (
        whole(side, given.get(side, own), 1, limits.side)
        for side, own in zip(("height", "width"), size, strict=True)
    )
    check_size(model, height, width)
    return Settings(
        prompt=prompt,
        negative_prompt=negative if negative.strip() else None,
        seed=whole("seed", given.get("seed", 0), 0, SEED_LIMIT - 1),
        steps=whole("steps", given.get("steps", min(model.steps, limits.steps)), 1, limits.steps),
        guidance=_number("guidance", given.get("guidance", model.guidance), 0.0, GUIDANCE_LIMIT),
        height=height,
        width=width,
    )


def _text(name: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"The {name} is text; {shortened(value)!r} was given.")
    if len(value) > limit:
        raise ConfigError(
            f"The {name} has {len(value)} characters; at most {limit} are taken here."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"The {name} holds characters that are not text.") from error
    return value


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number of a range, also where JSON wrote it as 7.0.

    Raises:
        ConfigError: It is none.
    """
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if type(number) is not int or not least <= number <= most:
        raise ConfigError(
            f"{name} is a whole number from {least} to {most} here; {shortened(value)!r} was given."
        )
    return number


def _number(name: str, value: object, least: float, most: float) -> float:
    real = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not least <= real <= most:
        raise ConfigError(
            f"{name} is a number from {least:g} to {most:g}; {shortened(value)!r} was given."
        )
    return float(real)


def _window(value: object) -> WindowSize:
    """``"2x2"`` or ``[2, 2]`` as (height, width); ``auto`` is the method's own default."""
    if value == "auto":
        return "auto"
    sides: list[object] = []
    if isinstance(value, str) and len(value) <= _SHOWN:
        sides = [int(side) for side in value.split("x") if side.isascii() and side.isdecimal()]
    elif isinstance(value, (list, tuple)):
        sides = list(cast("list[object]", value))
    whole = [side for side in sides if type(side) is int and 1 <= side <= WINDOW_LIMIT]
    if len(whole) != 2 or len(sides) != 2:
        raise ConfigError(
            f"window is height x width in tokens, each from 1 to {WINDOW_LIMIT}, such as 2x2, or "
            f"auto; {shortened(cast('object', value))!r} was given."
        )
    return whole[0], whole[1]


def window_words(window: WindowSize | None) -> str | None:
    """A method's windows as a form shows them; None where it has none."""
    return f"{window[0]}x{window[1]}" if isinstance(window, tuple) else window


def shortened(value: object) -> object:
    """A value as messages repeat it: itself, or the beginning of how it is written."""
    if isinstance(value, int) and abs(value) >= SEED_LIMIT:
        return "a larger number"
    if isinstance(value, (int, float)):
        return value
    try:
        words = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):
        return "a value too large to repeat"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
