"""What to merge and where: an immutable configuration, checked when made, kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from retom.errors import ConfigError
from retom.methods import METHODS, Method, ReToM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scope = Literal["attention"]
SCOPES: tuple[str, ...] = get_args(Scope)
Levels = tuple[int, ...] | Literal["all"]

FORMAT = 1
"""Version of the JSON form; a file with another one is refused."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How merging is applied to one denoiser.

    Args:
        method: Which tokens merge into which.
        scope: The layers that run on fewer tokens. ``attention``: self-attention, its input merged
            and its output un-merged, as in the paper (arXiv:2507.12771).
        levels: Which attention levels merge, counted from the largest grid on which the model has
            self-attention: (0,) is that grid alone, (0, 1) the next smaller one too, ``"all"``
            every level. SDXL's first level has no attention at all; its level 0 is the one below.

    Raises:
        ConfigError: An option is unknown or out of its range.

    Example:
        >>> config = Config(method=ReToM(ratio=0.3))
        >>> Config.from_dict(config.to_dict()) == config
        True
    """

    method: Method = field(default_factory=ReToM)
    scope: Scope = "attention"
    levels: Levels = (0,)

    def __post_init__(self) -> None:
        _check_method(self.method)
        if self.scope not in SCOPES:
            raise ConfigError(f"scope is one of {', '.join(SCOPES)}; {self.scope!r} was given.")
        object.__setattr__(self, "levels", _check_levels(self.levels))

    def with_options(self, **options: object) -> Config:
        """A copy with some options changed, each the method's or the configuration's own.

        Raises:
            ConfigError: An option is neither.
        """
        own = {"scope", "levels", "method"}
        method = _check_method(options.pop("method", self.method))
        method_fields = {f.name for f in dataclasses.fields(cast("Any", method))}
        unknown = sorted(set(options) - own - method_fields)
        if unknown:
            raise ConfigError(
                f"Unknown option {', '.join(unknown)}. {type(method).__name__} takes "
                f"{', '.join(sorted(method_fields))}; the configuration takes "
                f"{', '.join(sorted(own))}."
            )
        for_method = {name: options.pop(name) for name in list(options) if name in method_fields}
        if for_method:
            method = dataclasses.replace(cast("Any", method), **for_method)
        return dataclasses.replace(self, method=method, **cast("Any", options))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        options = dataclasses.asdict(cast("Any", self.method))
        data = {
            "format": FORMAT,
            "method": {"name": self.method.name, **options},
            "scope": self.scope,
            "levels": self.levels,
        }
        return json.loads(
            json.dumps(data)
        )  # tuples become lists, as a reader of the file gets them

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Config:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ConfigError: Another format, an unknown method, or an unknown or impossible option.
        """
        data = dict(data)
        if data.pop("format", None) != FORMAT:
            raise ConfigError(
                f'A retom configuration says "format": {FORMAT}; this one does not. It was written '
                "by another version of retom, or is not a retom configuration."
            )
        method: object = data.pop("method", {})
        if not isinstance(method, dict):
            raise ConfigError(
                f'"method" is an object with a name and options; {method!r} was given.'
            )
        method = dict(cast("dict[str, Any]", method))
        name = method.pop("name", ReToM.name)
        if name not in METHODS:
            raise ConfigError(f"Unknown method {name!r}; the methods are {', '.join(METHODS)}.")
        return Config(method=METHODS[name]()).with_options(**data, **method)

    def save(self, path: str | Path) -> None:
        """Write the configuration to ``path`` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path) -> Config:
        """Read a configuration that :meth:`save` wrote.

        Raises:
            ConfigError: ``path`` does not hold one.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"{path} cannot be read as a retom configuration: {reason}."
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"{path} cannot be read as a retom configuration: it is not JSON ({error})."
            ) from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path} holds {type(data).__name__}, not a retom configuration.")
        return Config.from_dict(cast("dict[str, Any]", data))


def _check_method(method: object) -> Method:
    if isinstance(method, type) or not isinstance(method, Method):
        raise ConfigError(
            f"method is an object such as retom.ReToM(ratio=0.5); {method!r} was given."
        )
    return method


def _check_levels(levels: object) -> Levels:
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
