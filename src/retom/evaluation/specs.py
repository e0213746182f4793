"""Methods as words: ``retom``, ``retom:reach=1,window=4x4``, ``retom:merge=mean/norm_mean``.

A specification is a method's name and, after a colon, options of the method or of the configuration
with commas between them. ``/`` separates alternatives, and every combination becomes a contender.
Lists, such as noise levels, are written with ``+``: ``refresh=0.9+0.5``, ``refresh=0.9+``.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Any, cast

from retom.config import Config
from retom.errors import ConfigError
from retom.evaluation.tomesd import TOMESD, Tomesd
from retom.methods import METHODS
from retom.rules import method_to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

_SET_ELSEWHERE = ("ratio", "scope", "levels", "method", "rules")


def expand(spec: str) -> list[Config | Tomesd]:
    """The methods that a specification names, each at its default ratio.

    Raises:
        ConfigError: The name or an option is unknown or out of its range.

    Example:
        >>> [config.method.reach for config in expand("retom:reach=0/1")]
        [0, 1]
    """
    name, _, rest = spec.partition(":")
    if name not in METHODS and name != TOMESD:
        raise ConfigError(
            f"Unknown method {name!r}; the methods are {', '.join((*METHODS, TOMESD))}."
        )
    choices: list[list[tuple[str, Any]]] = []
    for part in filter(None, rest.split(",")):
        key, equals, values = part.partition("=")
        if not equals or not values:
            raise ConfigError(
                f"Options are written name=value with commas between them; {part!r} was given in "
                f"{spec!r}. Example: retom:reach=1,window=4x4."
            )
        if key in _SET_ELSEWHERE:
            raise ConfigError(
                f"{key} is not an option of a method here: ratios, scopes and levels are those of "
                "the whole evaluation, and rules come from a configuration file."
            )
        choices.append([(key, _value(text)) for text in values.split("/")])
    return [_made(name, dict(options)) for options in product(*choices)]


def describe(config: Config) -> str:
    """The specification of a configuration: what is not as by default, in the options' order.

    Example:
        >>> describe(expand("retom:merge=mean,window=4x4")[0])
        'retom:window=4x4'
    """
    method = config.method
    default = method_to_dict(METHODS[method.name]())
    options = {k: v for k, v in method_to_dict(method).items() if v != default[k]}
    plain = Config().to_dict()
    of_config = config.to_dict()
    options |= {k: v for k, v in of_config.items() if v != plain[k]}
    shown = [f"{k}={_text(v)}" for k, v in options.items() if k not in _SET_ELSEWHERE]
    return method.name + (":" + ",".join(shown) if shown else "")


def _made(name: str, options: dict[str, Any]) -> Config | Tomesd:
    if name == TOMESD:
        return Tomesd.of(options)
    return Config(method=METHODS[name]()).with_options(**options)


def _value(text: str) -> object:
    """A word as the value it means."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?", text):
        return float(text)
    if re.fullmatch(r"\d+x\d+", text):
        height, width = text.split("x")
        return int(height), int(width)
    if "+" in text:
        return tuple(_value(part) for part in text.split("+") if part)
    return text


def _text(value: object) -> str:
    """A value as the word that :func:`_value` reads."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        parts = [_text(part) for part in cast("Sequence[object]", value)]
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            return "x".join(parts)
        return "+".join(parts) + ("+" if len(parts) == 1 else "")
    return f"{value:g}" if isinstance(value, float) else str(value)
