"""The contenders of an evaluation: a setting of retom, or of another package, at one ratio."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from retom.config import Config
from retom.errors import ConfigError
from retom.evaluation.fingerprint import merging_code, tomesd_code
from retom.evaluation.specs import describe, expand
from retom.evaluation.tomesd import TOMESD, Tomesd, tomesd_installed
from retom.handle import applied
from retom.profit import UNPROFITABLE
from retom.rules import method_options

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from retom.evaluation.settings import Settings
    from retom.rules import Levels

DEFAULT_METHODS = (
    "retom",
    "retom:allocation=uniform",
    "retom:reach=0",
    "retom:merge=representative",
    "random_representative",
    "window_corner",
    "tome",
)
"""What is compared if nothing is named; tomesd too where it is installed."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to merge.

    Attributes:
        method: Its specification without ratio and scope, such as ``retom:reach=1``; or the name of
            a configuration file.
        ratio: Fraction of the tokens that go.
        scope: The layers that run on fewer tokens.
        merging: A configuration of retom, or tomesd's.
        own: Whether it comes from a configuration file, whose levels and rules are its own.
    """

    method: str
    ratio: float
    scope: str
    merging: Config | Tomesd
    own: bool = False

    @property
    def name(self) -> str:
        """What tells it from every other contender."""
        return f"{self.method} · {self.ratio:g} · {self.scope}"

    @property
    def stands_apart(self) -> bool:
        """Whether it need not remove the same tokens as the others of its ratio.

        Levels and rules of a configuration file are its own, and merging by noise leaves out steps.
        """
        merging = self.merging
        return self.own or (isinstance(merging, Config) and not merging.steady)

    @property
    def family(self) -> str:
        """The method without its options."""
        return self.method.partition(":")[0]

    @property
    def is_guided(self) -> bool:
        """Whether it compares the halves of classifier-free guidance, and so needs both."""
        return isinstance(self.merging, Config) and self.merging.needs_guidance

    def content(self) -> dict[str, Any]:
        """Everything that its pictures depend on, as plain data."""
        return self.merging.to_dict()

    @property
    def code(self) -> str | None:
        """What stands for the code that merges: retom's, or what sets tomesd up."""
        return merging_code() if isinstance(self.merging, Config) else tomesd_code()

    @contextmanager
    def applied(self, pipe: object) -> Generator[None]:
        """Merge inside a ``with`` block, and remove all of it at the end."""
        if isinstance(self.merging, Tomesd):
            with self.merging.applied(pipe):
                yield
        else:
            with applied(pipe, self.merging):
                yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """Who takes part in an evaluation.

    Attributes:
        methods: Specifications, see :mod:`retom.evaluation.specs`; :func:`default_methods` for
            None.
        configs: Configurations by name, compared beside the methods as they are.
        baseline: Method that differences are to; tomesd, else tome, for None.
        pictures_of: Patterns of methods that get pictures whatever the screening says.
    """

    methods: Sequence[str] | None = None
    configs: Mapping[str, Config] = field(default_factory=dict[str, Config])
    baseline: str | None = None
    pictures_of: Sequence[str] = ()

    def contenders(self, settings: Settings, auto: str = "attention") -> list[Contender]:
        """Every contender, see :func:`contenders`."""
        methods = default_methods() if self.methods is None else self.methods
        return contenders(methods, settings, self.configs, auto)

    def baseline_of(self, given: Sequence[Contender]) -> str | None:
        """The method that differences are to; None if there is no natural one.

        Raises:
            ConfigError: It is not among the contenders.
        """
        methods = list(dict.fromkeys(contender.method for contender in given))
        if self.baseline is None:
            return next((name for name in (TOMESD, "tome") if name in methods), None)
        if self.baseline not in methods:
            raise ConfigError(
                f"The baseline {self.baseline} is not among the methods: {', '.join(methods)}."
            )
        return self.baseline


def default_methods() -> tuple[str, ...]:
    """:data:`DEFAULT_METHODS`, and tomesd where it is installed."""
    return (*DEFAULT_METHODS, TOMESD) if tomesd_installed() else DEFAULT_METHODS


def contenders(
    methods: Sequence[str],
    settings: Settings,
    configs: Mapping[str, Config] | None = None,
    auto: str = "attention",
) -> list[Contender]:
    """Every method at every ratio and scope, and the configurations as they are.

    Args:
        methods: Specifications as :func:`~retom.evaluation.specs.expand` reads them.
        settings: Ratios, scopes and levels.
        configs: Configurations by name.
        auto: What scope ``auto`` means on the model under study.

    Raises:
        ConfigError: A method or an option is unknown, or something is named twice.
        MissingExtraError: tomesd is asked for and not installed.
    """
    found: list[Contender] = []
    scopes = dict.fromkeys(auto if scope == "auto" else scope for scope in settings.scopes)
    for spec in methods:
        for method, scope in product(expand(spec), scopes):
            found += at_ratios(method, scope, settings.ratios, settings.levels)
    for name, given in (configs or {}).items():
        config = given.with_options(scope=auto) if given.scope == "auto" else given
        found.append(Contender(name, config.method.ratio, config.scope, config, own=True))
    names = [contender.name for contender in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"A contender is named once; {', '.join(twice)} is named twice.")
    timed = next((c.name for c in found if getattr(c.merging, "skip", None) == UNPROFITABLE), None)
    if timed is not None:
        raise ConfigError(
            f"{timed} decides by a stopwatch what merges, and an evaluation must give the same "
            "pictures when it is run again. Take a configuration whose skip names what was "
            "skipped, handle.summary().skipped_sites, or compare speed with retom bench."
        )
    draws = any(isinstance(c.merging, Tomesd) and c.merging.use_rand for c in found)
    odd = next((n for n in (len(settings.prompts), settings.screened or 0) if n % 2), None)
    if draws and odd:
        raise ConfigError(
            "tomesd drops its random choice at odd batch sizes, and an odd number of prompts, "
            f"{odd}, leaves one over: use an even number, or leave tomesd out."
        )
    if not found:
        raise ConfigError("No contender is left: name a method, or add a scope it can run in.")
    return found


def at_ratios(
    method: Config | Tomesd, scope: str, ratios: Sequence[float], levels: Levels
) -> list[Contender]:
    """A method at each ratio it can have; tomesd in scope ``attention`` alone, else none.

    Args:
        method: As :func:`~retom.evaluation.specs.expand` makes it.
        scope: The layers that run on fewer tokens.
        ratios: Fractions of the tokens to remove.
        levels: Attention levels that merge.
    """
    if isinstance(method, Tomesd):
        if scope != "attention":
            return []  # its other layers are not those of retom's scopes
        at = [method.at(ratio, levels) for ratio in ratios]
        return [Contender(method.method, each.ratio, scope, each) for each in at]
    config = method.with_options(scope=scope, levels=levels)
    if "ratio" in method_options(config.method):
        made = [config.with_options(ratio=ratio) for ratio in ratios]
    else:
        made = [config]  # its window fixes the ratio
    return [Contender(describe(method), each.method.ratio, scope, each) for each in made]
