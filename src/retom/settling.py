"""What a configuration means on one model: its scope there, and whether its levels exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retom.config import Config
    from retom.models.layout import Layout


def settled(config: Config, layout: Layout) -> Config:
    """The configuration with the scope that ``auto`` means here.

    Raises:
        ConfigError: A scope or a level does not exist here, or the ratio is out of reach at the
            model's default size (:class:`BudgetError`).
    """
    if config.scope == "auto":
        config = config.with_options(scope=layout.scopes[0])
    if config.scope not in layout.scopes:
        raise ConfigError(
            f"This model merges in scope {' or '.join(layout.scopes)}; scope='{config.scope}' was "
            "given. Inside its blocks image and text tokens share layers and rotary tables, so "
            "only whole blocks can run on fewer tokens. Leave scope at 'auto'."
        )
    check_levels_exist(config, layout.levels)
    _check_names_exist(config, layout)
    for level, grid in (layout.default_grids or {}).items():
        for method in config.methods(level):
            method.num_removed(grid)
    return config


def _check_names_exist(config: Config, layout: Layout) -> None:
    """Raise :class:`ConfigError` if the configuration skips a block that is not there."""
    exist = [site.name for site in layout.sites]
    unknown = sorted(set(config.skip) - set(exist)) if isinstance(config.skip, tuple) else []
    if unknown:
        raise ConfigError(
            f"skip names {', '.join(unknown)}, and this model has no such block. Its blocks are "
            f"{', '.join(exist)}."
        )


def check_levels_exist(config: Config, levels: Iterable[int]) -> None:
    """Raise :class:`ConfigError` if the configuration names a level that is not there."""
    exist = sorted(levels)
    missing = sorted(config.named_levels - set(exist))
    if missing:
        raise ConfigError(
            f"This model has attention on levels {', '.join(map(str, exist))}, largest "
            f"grid first; level {', '.join(map(str, missing))} was given."
        )
