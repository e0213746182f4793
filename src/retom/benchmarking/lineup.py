"""Who is timed: methods at ratios and scopes, and an oracle for every pair of these."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from retom.benchmarking.oracle import Oracle
from retom.config import Config
from retom.errors import ConfigError
from retom.evaluation.contenders import Contender, at_ratios
from retom.evaluation.results import UNMERGED
from retom.evaluation.specs import expand
from retom.evaluation.tomesd import TOMESD, Tomesd, downsample_of, tomesd_installed
from retom.methods.local import LocalMethod
from retom.methods.tome import ToMe
from retom.models.unet import is_unet

if TYPE_CHECKING:
    from torch import nn

    from retom.benchmarking.settings import Settings
    from retom.rules import Levels

ORACLE = Oracle.name
CHEAPEST = "retom:reach=0,share=level,size_weighted=false"
QUICK_METHODS = ("retom", CHEAPEST)
DEFAULT_METHODS = (*QUICK_METHODS, "tome", "toma", "todo", "sito")
"""What is timed if nothing is named; tomesd too where it is installed."""

_ALWAYS = ("unmerged", UNMERGED, ORACLE)


def default_methods(*, quick: bool = False) -> tuple[str, ...]:
    """The methods that take part if none is named."""
    methods = QUICK_METHODS if quick else DEFAULT_METHODS
    return (*methods, TOMESD) if tomesd_installed() else methods


def default_methods_of(denoiser: nn.Module) -> tuple[str, ...]:
    """The same for a model; tomesd's own default too where that is another.

    In a UNet without attention at full latent size, such as SDXL's, ``max_downsample=1`` is, and it
    merges nothing: the table then says so.
    """
    methods = default_methods()
    if TOMESD in methods and is_unet(denoiser) and downsample_of(denoiser, 0) != 1:
        return (*methods, f"{TOMESD}:max_downsample=1")
    return methods


def lineup(settings: Settings, auto: str) -> tuple[list[Contender], dict[str, str]]:
    """Every contender, the oracle of each ratio and scope first, and who cannot take part.

    Args:
        settings: Methods, ratios, scopes and levels.
        auto: What scope ``auto`` means on the model.

    Returns:
        Contenders; and names of those left out, with the reason.

    Raises:
        ConfigError: A method or an option is unknown, or something is named twice.
        MissingExtraError: tomesd is asked for and not installed.
    """
    methods = default_methods() if settings.methods is None else settings.methods
    scopes = list(dict.fromkeys(auto if scope == "auto" else scope for scope in settings.scopes))
    found: list[Contender] = []
    left_out: dict[str, str] = {}
    for spec in methods:
        if spec in _ALWAYS:
            continue
        for method, scope in product(expand_here(spec), scopes):
            try:
                at = at_ratios(method, scope, settings.ratios, settings.levels)
                reason = "It merges around the self-attention of UNets, in no other scope."
            except ConfigError as error:
                if not isinstance(method, Tomesd):
                    raise
                at, reason = [], str(error)
            if not at and isinstance(method, Tomesd):
                left_out[f"{method.method} · {scope}"] = reason
            found += at
    names = [contender.name for contender in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"A contender is named once; {', '.join(twice)} is named twice.")
    oracles = [
        _oracle(ratio, scope, settings.levels, Oracle())
        for ratio, scope in product(settings.ratios, scopes)
    ]
    oracles += [oracle_of(contender, settings.levels) for contender in found]
    return [*{oracle.name: oracle for oracle in oracles}.values(), *found], left_out


def oracle_of(contender: Contender, levels: Levels = (0,)) -> Contender:
    """Free merging of as many queries and as many keys; an oracle's is itself."""
    if is_oracle(contender.method):
        return contender
    oracle = Oracle()
    method = getattr(contender.merging, "method", None)
    if contender.scope == "attention" and isinstance(method, (LocalMethod, ToMe)):
        oracle = Oracle(kv_lean=method.kv_lean, window=method.window)
    return _oracle(contender.ratio, contender.scope, levels, oracle)


def is_oracle(method: str) -> bool:
    """Whether a row's method is merging that costs nothing."""
    return method.partition(":")[0] == ORACLE


def expand_here(spec: str) -> list[Config | Tomesd]:
    """The methods that a specification names.

    Raises:
        ConfigError: The name or an option is unknown; the message has unmerged and oracle too.
    """
    name = spec.partition(":")[0]
    if name in _ALWAYS:
        raise ConfigError(f"{name} takes no options; {spec!r} was given. It always takes part.")
    try:
        return expand(spec)
    except ConfigError as error:
        if str(error).startswith("Unknown method"):
            message = f"{str(error).rstrip('.')}; unmerged and oracle always take part."
            raise ConfigError(message) from error
        raise


def _oracle(ratio: float, scope: str, levels: Levels, like: Oracle) -> Contender:
    method = replace(like, ratio=ratio)
    config = Config(method=method, levels=levels, share="level", size_weighted=False)
    lean = f"kv_lean={like.kv_lean:g}" if like.kv_lean else ""
    if lean and like.window != "auto":
        lean += f",window={like.window[0]}x{like.window[1]}"
    name = f"{ORACLE}:{lean}" if lean else ORACLE
    return Contender(name, ratio, scope, config.with_options(scope=scope))
