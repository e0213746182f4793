"""What to merge, where and when: an immutable configuration, checked when made, kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast, get_args

from retom.checks import check_choice
from retom.clock import Refresh, check_refresh
from retom.config_file import read_json, write_json
from retom.conflicts import check_against_scope
from retom.errors import ConfigError
from retom.methods import Method, ReToM
from retom.noise import EVERY, Noise, check_noise, within
from retom.presets import preset_of
from retom.profit import Skip, check_skip
from retom.rules import (
    Levels,
    Rule,
    check_levels,
    check_method,
    check_rules,
    method_from_dict,
    method_options,
    method_to_dict,
    method_with,
)

Scope = Literal["auto", "attention", "attention+mlp", "block", "kv"]
SCOPES: tuple[str, ...] = get_args(Scope)
Sharing = Literal["level", "layer"]
SHARINGS: tuple[str, ...] = get_args(Sharing)
Score = Literal["input", "block", "keys"]
SCORES: tuple[str, ...] = get_args(Score)

FORMAT = 1
"""Version of the JSON form; a file with another one is refused."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How merging is applied to one denoiser.

    Args:
        method: Which tokens merge into which.
        scope: The layers that run on fewer tokens. ``auto``: ``attention`` in a UNet and ``block``
            in a transformer; applying puts the one meant in its place. ``attention``:
            self-attention, its input merged and its output un-merged, as in the paper
            (arXiv:2507.12771). ``attention+mlp``: the MLP as well, on its own merged input.
            ``block``: the whole transformer block with its text attention, x + U(g(M x) - M x), so
            that detail survives in the residual. ``kv``: only keys and values of self-attention;
            every token still asks.
        levels: Which attention levels merge, counted from the largest grid on which the model has
            self-attention: (0,) is that grid alone, (0, 1) the next smaller one too, ``"all"``
            every level. SDXL's first level has no attention at all; its level 0 is the one below.
        noise: (low, high): ``method`` merges where low <= noise level <= high, with the noise level
            as in :class:`retom.Rule`. ``(0.2, 1.0)`` leaves the last steps whole. Other than the
            whole range, it needs the timestep on the host once a step.
        rules: Exceptions by level and noise level; the last that holds decides. Where none holds,
            ``method`` merges on ``levels`` at ``noise``. By noise, they need the timestep as well.
        refresh: When plans are renewed while a picture is drawn (the paper's "specific timestep").
            None: in every call of the denoiser. A whole number n: at every n-th timestep; 1 shares
            a plan among the calls of one timestep. Noise levels such as (0.9, 0.5): at the first
            call of a picture and at the first one at or below each level.
        share: Who shares a plan: ``level``, the layers of a level, from the first one's tokens; or
            ``layer``: none, each layer plans from its own tokens at its own cost.
        score: What plans compare. ``input``: what the first layer in scope gets, which for
            self-attention is the block's input after its norm. ``block``: the block's input before
            that norm, as tomesd does. ``keys``: the keys of self-attention, as ToMe did in image
            classifiers (arXiv:2210.09461), at the cost of one projection a plan; not for scope
            ``block``, outside of which there are none yet.
        size_weighted: Add the logarithm of a merged token's size to its attention logits, so that
            it weighs as much as its members did (ToMe's proportional attention,
            arXiv:2210.09461). Not for scope ``block``, whose text attention it does not concern.
            ``auto``: where the method gains by it and the scope has it, see
            :attr:`weighs_by_size`.
        skip: Where merging is left off. None: nowhere. ``unprofitable``: where it does not pay.
            Each distinct layer is timed un-merged and merged when a call first brings it tokens of
            some shape, and merges from then on if that was clearly faster; not inside compiled
            graphs. Names of blocks, as ``summary().skipped_sites`` gives them: there.

    Raises:
        ConfigError: An option is unknown or out of its range.

    Example:
        >>> config = Config(method=ReToM(ratio=0.3), refresh=4)
        >>> Config.from_dict(config.to_dict()) == config
        True
    """

    method: Method = field(default_factory=ReToM)
    scope: Scope = "auto"
    levels: Levels = (0,)
    noise: Noise = EVERY
    rules: tuple[Rule, ...] = ()
    refresh: Refresh = None
    share: Sharing = "layer"
    score: Score = "input"
    size_weighted: bool | Literal["auto"] = "auto"
    skip: Skip = None

    def __post_init__(self) -> None:
        check_method(self.method)
        check_choice("scope", self.scope, SCOPES)
        check_choice("share", self.share, SHARINGS)
        check_choice("score", self.score, SCORES)
        object.__setattr__(self, "levels", check_levels(self.levels))
        object.__setattr__(self, "noise", check_noise(self.noise))
        object.__setattr__(self, "rules", check_rules(self.rules))
        object.__setattr__(self, "refresh", check_refresh(self.refresh))
        object.__setattr__(self, "skip", check_skip(self.skip))
        if type(self.size_weighted) is not bool and self.size_weighted != "auto":
            raise ConfigError(
                f"size_weighted is True, False or 'auto'; {self.size_weighted!r} was given."
            )
        check_against_scope(
            self.scope,
            score=self.score,
            size_weighted=self.size_weighted,
            methods=self.methods(),
        )

    @staticmethod
    def preset(name: str) -> Config:
        """A configuration by its name: ``quality``, ``balanced``, ``fast`` or ``paper``.

        ``paper`` is the paper's own form (arXiv:2507.12771). None is validated on real weights;
        :data:`retom.presets.PRESETS` says what was measured.

        Raises:
            ConfigError: There is no such preset; the message lists those that exist.

        Example:
            >>> Config.preset("quality").method.ratio
            0.3
        """
        row = preset_of(name)
        return Config(method=row.method, **row.options)

    @property
    def steady(self) -> bool:
        """Whether the same merges at every noise level."""
        return self.noise == EVERY and all(rule.always for rule in self.rules)

    @property
    def needs_timestep(self) -> bool:
        """Whether merging depends on the timestep, which the host then has to know."""
        if self.refresh is not None or not self.steady:
            return True
        return self.needs_guidance or self.alternates

    @property
    def alternates(self) -> bool:
        """Whether windows of some method take turns."""
        return any(getattr(method, "alternate", False) for method in self.methods())

    @property
    def needs_guidance(self) -> bool:
        """Whether a method compares the two halves of classifier-free guidance."""
        return any(getattr(method, "uses_guidance", False) for method in self.methods())

    @property
    def weighs_by_size(self) -> bool:
        """Whether attention is weighted by the sizes of merged tokens, where no rule speaks.

        With ``size_weighted="auto"`` it is for ReToM and its like, and not for methods whose
        papers do without; nor in scope ``block``. Of scope ``auto`` it says what holds in a UNet,
        until applying puts the scope that is meant in its place.
        """
        return self.weighs(self.method)

    def weighs(self, method: Method) -> bool:
        """Whether attention is weighted by size where ``method`` merges, which a rule may name."""
        if self.size_weighted == "auto":
            return self.scope != "block" and getattr(method, "weighs_by_size", False)
        return self.size_weighted

    @property
    def named_levels(self) -> set[int]:
        """Levels that it or a rule names, where these are not all."""
        given: list[Levels] = [self.levels, *(rule.levels for rule in self.rules)]
        return {level for levels in given if levels != "all" for level in levels}

    def method_at(self, level: int, noise: float | None) -> Method | None:
        """What merges on a level at a noise level; None where nothing does."""
        for rule in reversed(self.rules):
            if rule.holds(level, noise):
                return rule.method
        on_level = self.levels == "all" or level in self.levels
        return self.method if on_level and within(noise, self.noise) else None

    def methods(self, level: int | None = None) -> tuple[Method, ...]:
        """Every method that may merge, on one level or on any, the default first."""
        found: list[Method] = []
        if level is None or self.levels == "all" or level in self.levels:
            found.append(self.method)
        for rule in self.rules:
            speaks = level is None or rule.levels == "all" or level in rule.levels
            if rule.method is not None and speaks:
                found.append(rule.method)
        return tuple(method for method in dict.fromkeys(found) if method.ratio > 0)

    def plateaus(self) -> tuple[tuple[float, float], ...]:
        """Stretches of noise on which nothing changes, from pure noise down to the picture."""
        edges = sorted({*EVERY, *self.noise, *(edge for rule in self.rules for edge in rule.noise)})
        return tuple(pairwise(edges))[::-1]

    def with_options(self, **options: object) -> Config:
        """A copy with some options changed, each the method's or the configuration's own.

        Raises:
            ConfigError: An option is neither.
        """
        own = {field.name for field in dataclasses.fields(self)}
        method = check_method(options.pop("method", self.method))
        of_method = method_options(method)
        unknown = sorted(set(options) - own - of_method)
        if unknown:
            raise ConfigError(
                f"Unknown option {', '.join(unknown)}. {type(method).__name__} takes "
                f"{', '.join(sorted(of_method))}; the configuration takes "
                f"{', '.join(sorted(own))}."
            )
        given = {name: options.pop(name) for name in list(options) if name in of_method}
        return dataclasses.replace(self, method=method_with(method, given), **cast("Any", options))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        data = {
            "format": FORMAT,
            "method": method_to_dict(self.method),
            "scope": self.scope,
            "levels": self.levels,
            "noise": self.noise,
            "rules": [rule.to_dict() for rule in self.rules],
            "refresh": self.refresh,
            "share": self.share,
            "score": self.score,
            "size_weighted": self.size_weighted,
            "skip": self.skip,
        }
        # tuples become lists, as a reader of the file gets them
        return json.loads(json.dumps(data))

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Config:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ConfigError: Another format, an unknown method, or an unknown or impossible option.
        """
        if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"from_dict takes what to_dict gives, a dict; {type(data).__name__} was given."
            )
        data = dict(data)
        if data.pop("format", None) != FORMAT:
            raise ConfigError(
                f'A retom configuration says "format": {FORMAT}; this one does not. It was written '
                "by another version of retom, or is not a retom configuration."
            )
        method = method_from_dict(data.pop("method", {}))
        if "rules" in data:
            rules = data["rules"]
            if not isinstance(rules, list):
                raise ConfigError(f'"rules" is a list; {rules!r} was given.')
            data["rules"] = tuple(Rule.from_dict(rule) for rule in cast("list[object]", rules))
        own = {field.name for field in dataclasses.fields(Config)}
        unknown = sorted(map(str, set(data) - own))
        if unknown:
            raise ConfigError(
                f"Unknown option {', '.join(unknown)}; a configuration takes "
                f"{', '.join(sorted(own))}."
            )
        return Config(method=method, **data)

    def save(self, path: str | Path) -> None:
        """Write the configuration to ``path`` as JSON.

        Raises:
            ConfigError: ``path`` cannot be written.
        """
        write_json(path, self.to_dict())

    @staticmethod
    def load(path: str | Path) -> Config:
        """Read a configuration that :meth:`save` wrote.

        Raises:
            ConfigError: ``path`` does not hold one.
        """
        return Config.from_dict(read_json(path))
