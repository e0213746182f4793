"""Which method merges where and when: exceptions by level and by noise level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from retom.errors import ConfigError
from retom.methods import METHODS, Method, ReToM
from retom.noise import EVERY, Noise, check_noise, within

if TYPE_CHECKING:
    from collections.abc import Mapping

Levels = tuple[int, ...] | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """On some levels, at some noise, merge with this method instead.

    Args:
        method: What merges there; None to run un-merged.
        levels: Attention levels, as in :class:`retom.Config`.
        noise: (low, high): the rule holds where low <= noise level <= high, with the noise level a
            call's timestep over the 1000 timesteps of training (or what its family has for that): 1
            is pure noise, 0 the picture. Not the step's number, because image-to-image starts
            midway.

    Raises:
        ConfigError: An option is out of its range.

    Example:
        >>> Rule(method=None, noise=(0.0, 0.2))  # leave the last steps alone
        Rule(method=None, levels='all', noise=(0.0, 0.2))
    """

    method: Method | None
    levels: Levels = "all"
    noise: Noise = EVERY

    def __post_init__(self) -> None:
        if self.method is not None:
            check_method(self.method)
        object.__setattr__(self, "levels", check_levels(self.levels))
        object.__setattr__(self, "noise", check_noise(self.noise))

    @property
    def always(self) -> bool:
        """Whether the rule holds at every noise level."""
        return self.noise == EVERY

    def holds(self, level: int, noise: float | None) -> bool:
        """Whether the rule speaks of a level at a noise level; None: at none in particular."""
        if self.levels != "all" and level not in self.levels:
            return False
        return within(noise, self.noise)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        method = None if self.method is None else method_to_dict(self.method)
        return {"method": method, "levels": self.levels, "noise": self.noise}

    @staticmethod
    def from_dict(data: object) -> Rule:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ConfigError: An option is unknown or impossible.
        """
        known = {"method", "levels", "noise"}
        options = dict(cast("dict[str, Any]", data)) if isinstance(data, dict) else {}
        if "method" not in options or set(options) - known:
            raise ConfigError(
                'A rule is an object with "method", and "levels" and "noise" if it holds not '
                f"everywhere; {data!r} was given."
            )
        method = options.pop("method")
        return Rule(method=None if method is None else method_from_dict(method), **options)


def method_to_dict(method: Method) -> dict[str, Any]:
    """A method's name and options as plain data."""
    return {"name": method.name, **dataclasses.asdict(cast("Any", method))}


def method_from_dict(data: object) -> Method:
    """Read what :func:`method_to_dict` wrote.

    Raises:
        ConfigError: The method or an option is unknown, or impossible.
    """
    if not isinstance(data, dict):
        raise ConfigError(f'"method" is an object with a name and options; {data!r} was given.')
    options = dict(cast("dict[str, Any]", data))
    name = options.pop("name", ReToM.name)
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"Unknown method {name!r}; the methods are {', '.join(METHODS)}.")
    return method_with(METHODS[name](), options)


def method_with(method: Method, options: Mapping[str, object]) -> Method:
    """A copy of a method with some options changed.

    Raises:
        ConfigError: An option is unknown or impossible.
    """
    known = method_options(method)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(
            f"Unknown option {', '.join(unknown)}. {type(method).__name__} takes "
            f"{', '.join(sorted(known))}."
        )
    return (
        cast("Method", dataclasses.replace(cast("Any", method), **options)) if options else method
    )


def method_options(method: Method) -> set[str]:
    """Names of a method's options."""
    return {field.name for field in dataclasses.fields(cast("Any", method))}


def check_method(method: object) -> Method:
    """Return ``method``, or raise :class:`ConfigError` with what is allowed."""
    if isinstance(method, type) or not isinstance(method, Method):
        raise ConfigError(
            f"method is an object such as retom.ReToM(ratio=0.5); {method!r} was given."
        )
    return method


def check_levels(levels: object) -> Levels:
    """Return ``levels`` sorted, or raise :class:`ConfigError` with what is allowed."""
    if levels == "all":
        return "all"
    if isinstance(levels, (tuple, list)):
        given = tuple(cast("Sequence[object]", levels))
        if given and all(type(level) is int and level >= 0 for level in given):
            return tuple(sorted(set(cast("tuple[int, ...]", given))))
    raise ConfigError(
        f'levels is "all" or whole numbers of at least 0, largest grid first; {levels!r} was '
        "given. Use levels=(0,) to merge on the largest grid alone."
    )


def check_rules(rules: object) -> tuple[Rule, ...]:
    """Return ``rules`` as a tuple, or raise :class:`ConfigError` with what is allowed."""
    given = tuple(cast("Sequence[object]", rules)) if isinstance(rules, (tuple, list)) else None
    if given is None or not all(isinstance(rule, Rule) for rule in given):
        raise ConfigError(
            "rules is a tuple of retom.Rule, for example "
            f"(retom.Rule(method=None, noise=(0.0, 0.2)),); {rules!r} was given."
        )
    return cast("tuple[Rule, ...]", given)
