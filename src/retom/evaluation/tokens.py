"""That all contenders of a ratio compute on the same number of tokens in the same layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from retom.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

Tokens = dict[str, list[int]]
"""Tokens that entered each linear layer, one entry a call."""

_SHOWN = 4


def tokens_in_layers(denoiser: nn.Module, call: Callable[[], object]) -> Tokens:
    """Count the tokens that really enter each linear layer while ``call`` runs."""
    seen: Tokens = {}
    named = cast("Iterator[tuple[str, nn.Module]]", denoiser.named_modules())
    removables = [
        module.register_forward_pre_hook(_note(seen, name))
        for name, module in named
        if isinstance(module, nn.Linear)
    ]
    try:
        call()
    finally:
        for removable in removables:
            removable.remove()
    return seen


def in_all(tokens: Mapping[str, list[int]]) -> Tokens:
    """The same with the projections of an attention layer added up.

    Queries may merge otherwise than keys and values; what is compared is how many tokens a layer
    computes on in all. A projection that also runs for the plan (``score="keys"``) does so before
    the layer, and only its last run in a call counts.
    """
    layers: dict[str, list[list[int]]] = {}
    for name, counts in tokens.items():
        layers.setdefault(name.partition(".to_")[0], []).append(counts)
    found: Tokens = {}
    for layer, projections in layers.items():
        calls = min(len(counts) for counts in projections)
        each = [len(counts) // calls for counts in projections]
        own = (counts[n - 1 :: n] for counts, n in zip(projections, each, strict=True))
        found[layer] = [sum(counts) for counts in zip(*own, strict=True)]
    return found


def check_equal(name: str, tokens: Mapping[str, list[int]], than: str, others: Tokens) -> None:
    """Refuse two contenders that do not remove the same number of tokens in the same layers.

    Raises:
        ConfigError: They do not; the message names the first layers.
    """
    different = unequal(tokens, others)
    if different:
        shown = [
            f"{layer} ({others.get(layer)}, {tokens.get(layer)})" for layer in different[:_SHOWN]
        ]
        more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise ConfigError(
            f"{than} and {name} compute on different numbers of tokens in {', '.join(shown)}"
            f"{more}, so that they cannot stand in one comparison. Leave one of them out."
        )


def unequal(tokens: Mapping[str, list[int]], others: Mapping[str, list[int]]) -> list[str]:
    """Layers on which two counts differ, in the order of the model."""
    layers = {**others, **tokens}
    return [layer for layer in layers if tokens.get(layer) != others.get(layer)]


def _note(seen: Tokens, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args and args[0].ndim == 3:
            seen.setdefault(name, []).append(args[0].shape[1])

    return note
