"""Checks that options of several kinds share, each with what is allowed in its message."""

from __future__ import annotations

from retom.errors import ConfigError


def check_choice(option: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of those allowed."""
    if value not in allowed:
        raise ConfigError(f"{option} is one of {', '.join(allowed)}; {value!r} was given.")


def check_ratio(ratio: object) -> None:
    """Raise :class:`ConfigError` unless ``ratio`` is a fraction of tokens that may go."""
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool):
        raise ConfigError(f"ratio is a number in [0, 1); {ratio!r} was given.")
    if not 0 <= ratio < 1:
        raise ConfigError(
            "ratio is the fraction of the tokens to remove, at least 0 and less than 1; "
            f"{ratio} was given. Use 0.5 to remove half of them."
        )


def check_seed(seed: object) -> None:
    """Raise :class:`ConfigError` unless ``seed`` is a whole number of at least 0."""
    if type(seed) is not int or seed < 0:
        raise ConfigError(f"seed is a whole number of at least 0; {seed!r} was given.")


def check_kv_lean(kv_lean: object) -> None:
    """Raise :class:`ConfigError` unless ``kv_lean`` is a number from 0 to 1."""
    if not isinstance(kv_lean, (int, float)) or isinstance(kv_lean, bool) or not 0 <= kv_lean <= 1:
        raise ConfigError(f"kv_lean is a number from 0 to 1; {kv_lean!r} was given.")
