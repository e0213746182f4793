"""How plan, merge and un-merge grow with the number of tokens: ``retom bench --scaling``."""

from __future__ import annotations

import math
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from retom.benchmarking.lineup import CHEAPEST, expand_here
from retom.benchmarking.memory import available_bytes
from retom.benchmarking.scaling_result import (
    LARGE,
    LEAST_TOKENS,
    Line,
    Point,
    Scaling,
    ScalingSettings,
)
from retom.drawing.loading import device_named, dtype_named
from retom.evaluation.provenance import provenance
from retom.evaluation.specs import describe
from retom.evaluation.timing import resampled_rounds
from retom.evaluation.tomesd import TOMESD, Tomesd, tomesd_installed
from retom.grid import Grid
from retom.hints import Hints
from retom.metrics.estimate import Estimate, percentiles
from retom.rounds import interleave, synchroniser
from retom.rules import method_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from retom.config import Config

SHARE = 0.5
"""Of the free memory, what the matrix of similarities of a method may take."""

_IN_SELF_ATTENTION = Hints(apart=True)
"""Keys may merge apart from queries, as they do in the layers of a model."""

_MATRIX = ("tome", "importance", "sito", TOMESD)


def scale(
    settings: ScalingSettings | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    command: Sequence[str] = ("retom.benchmarking.scaling.scale",),
    on_progress: Callable[[str, str, int, int], None] = lambda case, what, done, total: None,
) -> Scaling:
    """Time plan, merge and un-merge on ever more tokens, all sizes and methods in turns.

    A method that compares all tokens with each other, tomesd among them, goes only as far as that
    matrix fits into half of the free memory; its line says so.

    Args:
        settings: What is measured.
        device: ``auto`` for the accelerator if there is one, else the CPU.
        dtype: ``auto`` for float16 on CUDA and float32 elsewhere.
        command: Words that stand in the result.
        on_progress: Told what is under way, how many rounds are done, and of how many.

    Raises:
        ConfigError: A method is unknown or cannot reach the ratio.
        MissingExtraError: tomesd is asked for and not installed.
    """
    settings = settings or ScalingSettings()
    place = device_named(device)
    precision = dtype_named(dtype, place)
    source = provenance(command, place)
    methods = _methods(settings)
    sizes = [
        2**power
        for power in range(LEAST_TOKENS.bit_length() - 1, settings.most_tokens.bit_length())
        if 2**power <= settings.most_tokens
    ]
    generator = torch.Generator().manual_seed(settings.seed)
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    notes: dict[str, str] = {}
    free = available_bytes(place)
    for tokens in sizes:
        shape = settings.batch, tokens, settings.channels
        x = torch.randn(shape, generator=generator).to(place, precision)
        for name, method in methods.items():
            note = _too_large(name, tokens, settings.batch, x.element_size(), free)
            if note:
                notes.setdefault(name, note)
            else:
                calls[name, tokens] = _call(method, x, grid_of(tokens), settings)
    seconds = interleave(
        {f"{name} at {tokens}": call for (name, tokens), call in calls.items()},
        settings.rounds,
        synchronise=synchroniser(place),
        on_round=lambda done: on_progress(
            "scaling", f"to {sizes[-1]} tokens", done, settings.rounds
        ),
    )
    lines = [
        _line(
            name,
            {size: seconds[f"{name} at {size}"] for size in sizes if (name, size) in calls},
            settings.seed,
            notes.get(name, ""),
        )
        for name in methods
    ]
    return Scaling(
        settings=settings,
        dtype=str(precision).removeprefix("torch."),
        source=source,
        lines=tuple(lines),
    )


def grid_of(tokens: int) -> Grid:
    """The grid of a power of two of tokens that is square, or twice as wide as high.

    Example:
        >>> print(grid_of(2048))
        32x64
    """
    power = tokens.bit_length() - 1
    return Grid(2 ** (power // 2), 2 ** (power - power // 2))


def slope_of(times: dict[int, list[float]], seed: int) -> Estimate | None:
    """Slope of log median seconds over log N by least squares, with a bootstrap over rounds.

    Rounds are drawn with all of their sizes together, because a slow minute hits all of these.

    Args:
        times: Seconds by N, one entry a round.
        seed: Of the resampling.

    Returns:
        None for fewer than two sizes.

    Example:
        >>> slope_of({1000: [1.0, 1.0], 2000: [2.0, 2.0], 4000: [4.0, 4.0]}, 0).value
        1.0
    """
    if len(times) < 2:
        return None
    x = torch.tensor([math.log(size) for size in times], dtype=torch.float64)
    x = x - x.mean()
    seconds = torch.tensor(list(times.values()), dtype=torch.float64)

    def fit(medians: Tensor) -> Tensor:
        y = medians.log()
        return (x.reshape(-1, *[1] * (y.ndim - 1)) * y).sum(0) / x.square().sum()

    rounds = seconds.shape[1]
    draws = seconds[:, resampled_rounds(rounds, 2000, seed)].quantile(0.5, dim=-1)
    low, high = percentiles(fit(draws))
    value = float(fit(seconds.quantile(0.5, dim=-1)))
    return Estimate("slope", round(value, 12), low, high, rounds)


def _line(name: str, times: dict[int, list[float]], seed: int, note: str) -> Line:
    points = tuple(Point(size, median(values)) for size, values in times.items())
    large = {size: values for size, values in times.items() if size >= LARGE}
    return Line(name, points, slope_of(times, seed), slope_of(large, seed), note)


def _methods(settings: ScalingSettings) -> dict[str, Config | Tomesd]:
    """By specification, each at the ratio."""
    specs = settings.methods
    if specs is None:
        specs = ["retom", CHEAPEST, *([TOMESD] if tomesd_installed() else [])]
    found: dict[str, Config | Tomesd] = {}
    for method in (method for spec in specs for method in expand_here(spec)):
        if isinstance(method, Tomesd):
            found[method.method] = method
            continue
        takes_ratio = "ratio" in method_options(method.method)
        found[describe(method)] = (
            method.with_options(ratio=settings.ratio) if takes_ratio else method
        )
    return found


def _call(
    method: Config | Tomesd, x: Tensor, grid: Grid, settings: ScalingSettings
) -> Callable[[], object]:
    if isinstance(method, Tomesd):
        match: Any = import_module("tomesd.merge").bipartite_soft_matching_random2d
        draws = torch.Generator(x.device).manual_seed(settings.seed)
        removed = int(x.shape[1] * settings.ratio)
        sides = grid.width, grid.height

        def tomesd() -> object:
            merge, unmerge = match(
                x, *sides, 2, 2, removed, no_rand=not method.use_rand, generator=draws
            )
            return unmerge(merge(x))

        return torch.no_grad()(tomesd)
    own = method.method
    own.num_removed(grid)

    def run() -> object:
        plan = own.plan(x, grid, _IN_SELF_ATTENTION)
        merged = plan.merge(x)
        if plan.keys is not plan:
            plan.keys.merge(x)
        return plan.unmerge(merged, x, merged)

    return torch.no_grad()(run)


def _too_large(name: str, tokens: int, batch: int, size: int, free: int | None) -> str:
    """Why a method that compares tokens far apart stops before a size; empty where it need not."""
    if name.partition(":")[0] not in _MATRIX or free is None:
        return ""
    # Three quarters of the tokens against the others, and a copy of it while it is sorted.
    need = 2 * batch * (3 * tokens // 4) * (tokens // 4) * size
    if need <= SHARE * free:
        return ""
    return (
        f"stops before {tokens} tokens, where its similarities of all pairs take "
        f"{need / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free."
    )
