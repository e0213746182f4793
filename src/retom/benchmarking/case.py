"""One case: everybody checked on the same call, timed in turns, and their peaks of memory taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import torch

from retom.benchmarking.lineup import is_oracle, oracle_of
from retom.benchmarking.memory import peak_bytes
from retom.benchmarking.result import Case, Row
from retom.config import Config
from retom.errors import ConfigError, RetomError
from retom.evaluation.results import UNMERGED
from retom.evaluation.timing import (
    efficiency_estimate,
    ratio_estimate,
)
from retom.evaluation.tokens import tokens_in_layers, unequal
from retom.evaluation.tomesd import Tomesd
from retom.profit import UNPROFITABLE
from retom.refusals import UNMEASURED
from retom.rounds import interleave, synchroniser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retom.benchmarking.ready import Ready
    from retom.benchmarking.spots import Spot
    from retom.evaluation.contenders import Contender
    from retom.evaluation.tokens import Tokens
    from retom.metrics.estimate import Estimate

    Tell = Callable[[str, str, int, int], None]

PIECES = ("plan", "merge", "unmerge")


@dataclass(frozen=True, slots=True)
class Timing:
    """How times are taken.

    Attributes:
        rounds: Timed rounds.
        seed: Of the bootstrap.
        compiled: Whether ``torch.compile`` compiles every contender.
        device: Where the model runs.
    """

    rounds: int
    seed: int
    compiled: bool
    device: torch.device


def time_case(spot: Spot, contenders: Sequence[Contender], timing: Timing, tell: Tell) -> Case:
    """Time contenders on one call, with un-merged first among them.

    Each is run once beforehand, to count the tokens in its linear layers. Who merges nothing, or
    merges other numbers of tokens than the oracle of its ratio and scope, is not timed, and its row
    says so, unless it has a ``skip``; nor is who cannot merge here, or does not fit into memory.

    Args:
        spot: The call.
        contenders: The oracle of each ratio and scope before the others.
        timing: How times are taken.
        tell: Told the case, what is under way, how many rounds are done, and of how many.

    Raises:
        ConfigError: Nobody merges, or un-merged does not fit into memory.
    """
    tell(spot.name, "counting tokens", 0, timing.rounds)
    base = spot.ready(None)
    whole = _count(base, spot.name)
    if isinstance(whole, str):
        raise ConfigError(f"{spot.name}: {whole} Use a smaller size or another part.")
    rows, made = _checked(spot, contenders, whole, compiled=timing.compiled)
    if not made:
        raise ConfigError(f"Nobody merges in {spot.name}: {rows[0].note}")
    if timing.compiled:
        base, made = _compiled(spot, made)
    calls = {UNMERGED: base.run}
    for name, (_, ready) in made.items():
        calls[name] = ready.run
        calls |= {f"{name}: {piece}": call for piece, call in ready.pieces.items()}
    seconds = interleave(
        calls,
        timing.rounds,
        synchronise=synchroniser(timing.device),
        on_round=lambda done: tell(spot.name, "timing", done, timing.rounds),
    )
    tell(spot.name, "memory", timing.rounds, timing.rounds)
    peaks = {UNMERGED: peak_bytes(base.run, timing.device)}
    peaks |= {name: peak_bytes(ready.run, timing.device) for name, (_, ready) in made.items()}
    tokens = spot.grid.num_tokens
    first = Row(
        method=UNMERGED,
        ratio=0.0,
        scope="",
        tokens=tokens,
        kept=tokens,
        seconds=tuple(seconds[UNMERGED]),
        peak=peaks[UNMERGED],
    )
    found = [first]
    for row in rows:
        if row.label in made:
            contender, ready = made[row.label]
            oracle = seconds[oracle_of(contender).name]
            timed = _timed(row, ready, seconds, oracle, timing.seed)
            found.append(replace(timed, peak=peaks[row.label]))
        else:
            found.append(row)
    return Case(name=spot.name, size=spot.size, rows=tuple(found))


def _checked(
    spot: Spot, contenders: Sequence[Contender], whole: Tokens, *, compiled: bool
) -> tuple[list[Row], dict[str, tuple[Contender, Ready]]]:
    """A row for everybody, and by name those who merge what they should, ready to run."""
    rows: list[Row] = []
    made: dict[str, tuple[Contender, Ready]] = {}
    references: dict[str, Tokens] = {}
    for contender in contenders:
        ready, note = _ready(spot, contender, compiled=compiled)
        tokens: Tokens | str = note
        if ready is not None:
            tokens = _count(ready, contender.name)
            note = tokens if isinstance(tokens, str) else _objection(contender, tokens, whole)
        skips = _skips(contender)
        if not note and not isinstance(tokens, str) and not skips:
            oracle = oracle_of(contender).name
            others = references.setdefault(oracle, tokens)
            different = unequal(tokens, others)
            if different:
                note = (
                    f"It computes on other numbers of tokens than the oracle in "
                    f"{len(different)} layers ({tokens.get(different[0])} for "
                    f"{others.get(different[0])} in {different[0]}), and cannot be compared with "
                    "it."
                )
        if not note and ready is not None:
            made[contender.name] = (contender, ready)
        row = _row(spot, contender, note)
        if skips and ready is not None and ready.handle is not None and not note:
            merges = not isinstance(tokens, str) and unequal(tokens, whole)
            kept = row.kept if merges else row.tokens
            row = replace(row, kept=kept, skipped=ready.handle.summary().told)
        rows.append(row)
    return rows, made


def _skips(contender: Contender) -> bool:
    """Whether a contender leaves layers out on purpose."""
    return isinstance(contender.merging, Config) and contender.merging.skip is not None


def _ready(spot: Spot, contender: Contender, *, compiled: bool) -> tuple[Ready | None, str]:
    merging = contender.merging
    if compiled and isinstance(merging, Config) and merging.skip == UNPROFITABLE:
        return None, UNMEASURED
    try:
        return spot.ready(contender), ""
    except RetomError as error:
        return None, str(error)


def _count(ready: Ready, name: str) -> Tokens | str:
    """Tokens in each linear layer in one call; or why there is none."""
    try:
        found = tokens_in_layers(ready.model, ready.run)
    except RetomError as error:
        return str(error)
    except RuntimeError as error:  # which an OutOfMemoryError is too
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            return "It does not fit into the memory of the device."
        raise
    # What plans by keys runs that projection once more, which is its price and not its tokens.
    return {layer: counts[-1:] for layer, counts in found.items()}


def _objection(contender: Contender, tokens: Tokens, whole: Tokens) -> str:
    if unequal(tokens, whole) or _skips(contender):
        return ""
    if isinstance(contender.merging, Tomesd) and contender.merging.max_downsample is not None:
        return (
            "It merges nothing here: no layer of this model stands at max_downsample="
            f"{contender.merging.max_downsample} or above."
        )
    return "It merges nothing here."


def _row(spot: Spot, contender: Contender, note: str) -> Row:
    tokens = spot.grid.num_tokens
    removed, merging = 0, contender.merging
    if not note and isinstance(merging, Tomesd):
        removed = int(tokens * contender.ratio)
    elif not note and isinstance(merging, Config):
        removed = merging.method.num_removed(spot.grid)
    return Row(
        method=contender.method,
        ratio=contender.ratio,
        scope=contender.scope,
        tokens=tokens,
        kept=tokens - removed,
        note=note,
    )


def _compiled(
    spot: Spot, made: dict[str, tuple[Contender, Ready]]
) -> tuple[Ready, dict[str, tuple[Contender, Ready]]]:
    base = spot.ready(None, compiled=True)
    return base, {
        name: (contender, spot.ready(contender, compiled=True))
        for name, (contender, _) in made.items()
    }


def _timed(
    row: Row,
    ready: Ready,
    seconds: dict[str, list[float]],
    oracle: list[float],
    seed: int,
) -> Row:
    """A row with its times."""
    base, own = seconds[UNMERGED], seconds[row.label]
    pieces = {name: seconds[f"{row.label}: {name}"] for name in ready.pieces}
    efficiency = None
    if not is_oracle(row.method):
        efficiency = efficiency_estimate(base, own, oracle, seed=seed)
    return replace(
        row,
        seconds=tuple(own),
        speedup=ratio_estimate(base, own, "speed-up", seed=seed),
        efficiency=efficiency,
        pieces={name: 1e3 * median(values) for name, values in pieces.items()},
        overhead=_overhead(pieces, base, ready.sharers, seed) if pieces else None,
    )


def _overhead(
    pieces: dict[str, list[float]], base: list[float], sharers: int, seed: int
) -> Estimate:
    """(plan / layers that share it + merge + un-merge) / the un-merged place."""
    none = [0.0] * len(base)
    plan, merge, unmerge = (pieces.get(name, none) for name in PIECES)
    own = [p / sharers + m + u for p, m, u in zip(plan, merge, unmerge, strict=True)]
    return ratio_estimate(own, base, "overhead", seed=seed)
