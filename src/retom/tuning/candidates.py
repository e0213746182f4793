"""What a level may merge by, and which of these can stand in one configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retom.errors import BudgetError, ConfigError
from retom.evaluation.contenders import Contender, contenders
from retom.evaluation.tomesd import Tomesd
from retom.settling import settled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retom.config import Config
    from retom.grid import Grid
    from retom.methods import Method
    from retom.models.layout import Layout
    from retom.tuning.settings import Settings


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to merge on a level.

    Attributes:
        name: Its specification and ratio.
        spec: Its specification.
        config: It alone, on every level that it can merge on, at all noise.
        levels: These.
    """

    name: str
    spec: str
    config: Config
    levels: tuple[int, ...]

    @property
    def method(self) -> Method:
        """What merges."""
        return self.config.method

    @property
    def family(self) -> str:
        """What holds for a whole configuration: candidates share one if this is equal."""
        shared = replace(self.config, levels="all").to_dict()
        shared = {k: v for k, v in shared.items() if k != "method"}
        return json.dumps([shared, self.config.weighs_by_size], sort_keys=True)

    def contender(self, config: Config, where: str) -> Contender:
        """A configuration of it under a name, for what an evaluation measures."""
        return Contender(f"{self.name} {where}", self.method.ratio, config.scope, config, own=True)


def candidates_of(
    settings: Settings, layout: Layout, grids: Mapping[int, Grid]
) -> tuple[list[Candidate], dict[str, str]]:
    """Every method at every ratio, on the levels that can give up so many tokens.

    Args:
        settings: Methods, ratios, scope and levels.
        layout: Of the denoiser.
        grids: Of each level at the size that is tuned for.

    Returns:
        Them, and by name why some are left out on a level or altogether.

    Raises:
        ConfigError: A level does not exist, a method cannot stand in a schedule, or nobody is left.
    """
    wanted = layout.levels if settings.levels == "all" else settings.levels
    found: list[Candidate] = []
    left_out: dict[str, str] = {}
    for contender in contenders(settings.methods, settings.measured, auto=layout.scopes[0]):
        config = _scheduled(contender)
        name = f"{contender.method} · {contender.ratio:g}"
        able: list[int] = []
        for level in wanted:
            try:
                settled(replace(config, levels=(level,)), layout)
                if config.method.num_removed(grids[level]):
                    able.append(level)
            except BudgetError as error:
                left_out[f"{name} on level {level}"] = str(error)
        if able:
            levels = tuple(able)
            merges = replace(config, levels=levels)
            found.append(Candidate(name, contender.method, merges, levels))
    if not found:
        reasons = " ".join(left_out.values())
        raise ConfigError(f"No candidate can merge on this model at this size. {reasons}")
    return found, left_out


def _scheduled(contender: Contender) -> Config:
    """A contender's configuration, if it can be part of a schedule by noise."""
    config = contender.merging
    if isinstance(config, Tomesd):
        raise ConfigError(
            "tomesd is another package and cannot stand in a configuration of retom; leave it out, "
            "or take tome."
        )
    if not config.steady:
        raise ConfigError(
            f"{contender.method} names the noise at which it merges, and that is what tuning finds "
            "out; leave it out."
        )
    if config.refresh is not None or config.alternates or config.needs_guidance:
        raise ConfigError(
            f"{contender.method} depends on earlier calls (refresh, alternate or importance), "
            "which the denoiser's error on single calls cannot see; leave it out. refresh can be "
            "added to the tuned configuration, and retom check says what it does."
        )
    return config


def families(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that can stand in one configuration, together."""
    found: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        found.setdefault(candidate.family, []).append(candidate)
    return list(found.values())
