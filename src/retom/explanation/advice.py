"""Where merging cannot win, and which scope, levels or size would: sentences from the numbers.

Other sizes are not counted anew but scaled: products of attention grow with the square of the
number of tokens, everything else with the number, so what is said of them is "about".
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from retom.errors import BudgetError
from retom.explanation.result import readable

if TYPE_CHECKING:
    from retom.explanation.result import Ceiling, Explanation, LayerCost
    from retom.grid import Grid

WORTH_IT = 1.1
"""Ceiling below which a scope is said to be too little: measured speed is lower still."""

LARGEST = 16
"""How many times as many tokens a suggested size has at most; beyond, no size is suggested."""


def advise(explanation: Explanation) -> Explanation:
    """The explanation with its advice."""
    if explanation.unsupported:
        return explanation
    sentences = [*_of_layers(explanation), *_of_the_whole(explanation)]
    if explanation.config.skip is not None:
        sentences.append("Nothing runs here: layers that skip leaves out are counted as merging.")
    return replace(explanation, advice=tuple(sentences))


def _of_layers(explanation: Explanation) -> list[str]:
    """Levels on which merging costs more than it saves, or which the windows cannot reach."""
    sentences: list[str] = []
    seen: set[tuple[int | None, tuple[float, float] | None]] = set()
    for layer in explanation.layers:
        merging = [x for x in explanation.layers if x.merges and x.level == layer.level]
        if merging and not layer.merges:
            continue  # what is to be said of the level is said of the noise at which it merges
        key = layer.level, layer.noise if merging else None
        if key in seen or layer.tokens is None or layer.grid is None:
            continue
        seen.add(key)
        alike = [x for x in explanation.layers if (x.level, x.noise) == (layer.level, layer.noise)]
        layers = "1 layer" if len(alike) == 1 else f"{len(alike)} layers"
        where = f"Level {layer.level} ({layer.grid} tokens, {layers})"
        if layer.flops_merged is None:
            if _is_out_of_reach(explanation, layer.grid):
                sentences.append(
                    f"{where} cannot merge at ratio {explanation.config.method.ratio:g}: its "
                    "windows cannot give up so many tokens. Lower the ratio or use larger windows."
                )
            continue
        losing = [x for x in alike if x.pays is False]
        if not losing:
            continue
        worst = max(losing, key=lambda x: x.flops.total)
        saved = worst.flops.total - _merged_total(worst)
        sentences.append(
            f"{where} cannot win on hardware of {explanation.balance:g} FLOPs a byte: each layer "
            f"saves {readable(saved)}FLOPs and moves {readable(worst.moved_bytes or 0)}bytes to "
            f"do so. {_what_now(explanation, worst)} {_what_would(explanation, worst, losing)}"
        )
    return sentences


def _what_now(explanation: Explanation, layer: LayerCost) -> str:
    """What to do with a level that does not pay."""
    if not layer.merges:
        return "It is left out."
    if any(x.merges and x.level != layer.level for x in explanation.layers):
        return "Leave it out with levels=."
    return "No other level merges: draw pictures of this size un-merged on such hardware."


def _what_would(explanation: Explanation, worst: LayerCost, losing: list[LayerCost]) -> str:
    """The scope, the size and the hardware with which a level would pay."""
    sentences: list[str] = []
    scopes = [s for s in worst.pays_in if all(s in layer.pays_in for layer in losing)]
    if scopes:
        sentences.append(f"It would pay in scope {' or '.join(scopes)}.")
    elif sum(c.speedup is not None and c.levels == "all" for c in explanation.ceilings) > 1:
        sentences.append("No other scope would pay.")
    size = _size(explanation, _growth_of_layer(worst, explanation.balance))
    sentences.append(
        f"It would pay {size}."
        if size
        else f"{LARGEST} times as many tokens would not change that."
    )
    balance = (worst.flops.total - _merged_total(worst)) / (worst.moved_bytes or math.inf)
    if balance >= 1:
        sentences.append(f"Hardware of {math.floor(balance)} FLOPs a byte or fewer gains as it is.")
    return " ".join(sentences)


def _is_out_of_reach(explanation: Explanation, grid: Grid) -> bool:
    try:
        explanation.config.method.num_removed(grid)
    except BudgetError:
        return True
    return False


def _of_the_whole(explanation: Explanation) -> list[str]:
    """What the configured scope gains at most, and what would gain more."""
    own = explanation.ceiling(explanation.scope)
    if own.speedup is None or own.speedup >= WORTH_IT:
        return []
    sentence = (
        f"Scope {own.scope} on the configured levels cannot make the denoiser more than "
        f"{own.speedup:.2f}x as fast here."
    )
    better = sorted(
        (c for c in explanation.ceilings if (c.speedup or 0) >= WORTH_IT),
        key=lambda c: c.speedup or 0,
    )
    everywhere = explanation.ceiling(explanation.scope, "all")
    named = [everywhere] if everywhere in better else []
    named += [c for c in better[-1:] if c not in named]
    if named:
        sentence += f" {' and '.join(_named(c) for c in named)} at most."
    size = _size(explanation, _growth_of_whole(explanation))
    if size:
        sentence += f" On the configured levels it reaches {WORTH_IT:g}x {size}."
    return [sentence]


def _named(ceiling: Ceiling) -> str:
    levels = ' with levels="all"' if ceiling.levels == "all" else ""
    return f"scope={ceiling.scope!r}{levels} reaches {ceiling.speedup:.2f}x"


def _growth_of_layer(layer: LayerCost, balance: float) -> float | None:
    """How many times as many tokens a layer needs to pay: a g² + b g = balance moved g."""
    if layer.flops_merged is None or layer.moved_bytes is None:
        return None
    squared = layer.flops.attention - layer.flops_merged.attention
    linear = layer.flops.total - _merged_total(layer) - squared
    missing = balance * layer.moved_bytes - linear
    return missing / squared if squared > 0 else None


def _growth_of_whole(explanation: Explanation) -> float | None:
    """How many times as many tokens bring the configured scope to :data:`WORTH_IT`."""
    squared = squared_kept = 0.0
    kept = float(explanation.flops)
    for layer in explanation.layers:
        share = layer.noise[1] - layer.noise[0]  # of all noise levels, evenly
        squared += share * layer.flops.attention
        squared_kept += share * layer.flops_kept.attention
        kept += share * (layer.flops_kept.total - layer.flops.total)
    gain = squared - WORTH_IT * squared_kept
    missing = WORTH_IT * (kept - squared_kept) - (explanation.flops - squared)
    return missing / gain if gain > 0 else None


def _size(explanation: Explanation, growth: float | None) -> str:
    """A size of so many times the tokens, rounded up to 64 pixels; empty where there is none."""
    if growth is None or not 1 < growth <= LARGEST:
        return ""
    if explanation.height is None or explanation.width is None:
        return f"with about {growth:.1f} times as many tokens"
    sides = (explanation.height, explanation.width)
    height, width = (math.ceil(side * math.sqrt(growth) / 64) * 64 for side in sides)
    return f"from about {height}x{width} px on"


def _merged_total(layer: LayerCost) -> int:
    return layer.flops.total if layer.flops_merged is None else layer.flops_merged.total
