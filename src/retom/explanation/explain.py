"""``retom.explain``: what merging can gain on a model, before it runs and without its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retom.config import SCOPES, Config
from retom.errors import ConfigError
from retom.explanation.advice import advise
from retom.explanation.inputs import on_meta
from retom.explanation.one_call import one_call
from retom.explanation.result import Ceiling, Explanation, Flops, LayerCost, unknown_layer
from retom.explanation.runs import Merged, Runs, grid_by_values
from retom.explanation.subject import subject_of
from retom.handle import handle_of
from retom.settling import check_levels_exist

if TYPE_CHECKING:
    from collections.abc import Mapping


BALANCE = 300.0
"""FLOPs that a data-centre GPU computes while it moves a byte: an H100 SXM does 989 TFLOP/s in
bfloat16 and moves 3.35 TB/s (NVIDIA's data sheet), 295. A CPU core is nearer to 10."""


def explain(
    target: object,
    config: Config | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
    text_tokens: int | None = None,
    inputs: Mapping[str, object] | None = None,
    balance: float = BALANCE,
    **options: object,
) -> Explanation:
    """Count what every layer costs, un-merged and merged, and what that can gain at most.

    The denoiser runs on the meta device, which computes nothing and needs no memory, under torch's
    FLOP counter. One picture, one call; guidance doubles every number and changes no ratio.

    Args:
        target: The name of a shipped configuration such as ``flux-dev``
            (:func:`retom.explanation.known_models` lists them), a diffusers folder as str, whose
            weights are not read, a pipeline, or its denoiser, which stay as they are.
        config: What to merge. If not given, what is applied to ``target``, or else the defaults.
        height: Of the picture in pixels; the model's default if neither side is given.
        width: Of the picture in pixels.
        text_tokens: Length of the text; the model's own if not given.
        inputs: Arguments of one call of the denoiser for one picture, for models whose arguments
            are not known. Only shapes matter, and the values of positions. Height, width and
            text_tokens are then not used.
        balance: FLOPs that the hardware computes while it moves a byte. A layer pays if merging
            saves more FLOPs than could be computed while planning, merging and un-merging move
            their bytes.
        **options: As in :func:`retom.apply`.

    Returns:
        FLOPs by layer and the ceiling of the speed-up of each scope. A model in which retom cannot
        merge is counted un-merged, and ``unsupported`` says why.

    Raises:
        ConfigError: A size does not divide into tokens, or an option is out of its range; a ratio
            that the configured levels cannot reach (:class:`retom.BudgetError`).
        ModelError: The name is unknown.
        UnsupportedModelError: How to call the model is not known; pass ``inputs``. Or it reads
            numbers while it runs, which are not there.
        MissingExtraError: A name needs diffusers, which is not installed.

    Note:
        Where ``torch.compile`` is in use, everything compiled in the process compiles again, as
        with :func:`retom.apply`.

    Example:
        >>> retom.explain("sd-1.5", height=1024, width=1024, ratio=0.5)  # doctest: +SKIP
    """
    if type(balance) not in (int, float) or not balance > 0:
        raise ConfigError(f"balance is a number of FLOPs a byte above 0; {balance!r} was given.")
    subject = subject_of(target)
    if config is None:
        handle = None if isinstance(target, str) else handle_of(target)
        config = Config() if handle is None else handle.config
    config = config.with_options(**options)
    if inputs is None:
        size, text, arguments = one_call(subject, height, width, text_tokens)
        runs = Runs(subject.denoiser, arguments, config)
    else:
        size, text = None, (None, "")
        grid = grid_by_values(subject.denoiser, dict(inputs))
        runs = Runs(subject.denoiser, on_meta(dict(inputs)), config, grid)
    _check_levels(config, runs)
    layers = _layers(config, runs, balance)
    ceilings = () if runs.unsupported else _ceilings(config, runs)
    explanation = Explanation(
        name=subject.name,
        denoiser=type(subject.denoiser).__name__,
        source=subject.source,
        height=None if size is None else size[0],
        width=None if size is None else size[1],
        text_tokens=text[0],
        text_tokens_from=text[1],
        config=config,
        scope=runs.scope,
        flops=runs.unmerged.total,
        layers=layers,
        ceilings=ceilings,
        unsupported=runs.unsupported,
        balance=float(balance),
    )
    return advise(explanation)


def _check_levels(config: Config, runs: Runs) -> None:
    """Refuse what applying and the first call would: options, levels and ratios out of reach."""
    if not runs.unsupported:
        config.with_options(scope=runs.scope)  # some options do not go with what auto means here
        check_levels_exist(config, runs.grids)
    for level, grid in runs.grids.items():
        for method in config.methods(level):
            method.num_removed(grid)


def _layers(config: Config, runs: Runs, balance: float) -> tuple[LayerCost, ...]:
    """A row a block, or one for each stretch of noise."""
    if runs.unsupported:
        return tuple(unknown_layer(name, flops) for name, flops in runs.unmerged.blocks.items())
    return tuple(
        _layer(name, noise, config, runs, balance)
        for noise in config.plateaus()
        for name in runs.unmerged.blocks
    )


def _layer(
    name: str, noise: tuple[float, float], config: Config, runs: Runs, balance: float
) -> LayerCost:
    flops = runs.unmerged.blocks[name]
    if name not in runs.levels:
        return unknown_layer(name, flops, noise)
    level = runs.levels[name]
    grid = runs.grids[level]
    chosen = config.method_at(level, sum(noise) / 2)
    method = chosen or config.method
    kept = runs.kept(level, method)
    fewer = kept is not None and kept < grid.num_tokens
    merged = runs.merged(runs.scope, method) if fewer else None
    would, moved, pays = None, None, None
    if isinstance(merged, Merged):
        would = merged.blocks[name]
        moved = merged.moved[name]
        pays = _pays(merged, name, flops, balance)
    merges = chosen is not None and would is not None
    return LayerCost(
        name=name,
        level=level,
        grid=grid,
        noise=noise,
        tokens=grid.num_tokens,
        kept=kept if merges else grid.num_tokens,
        merges=merges,
        flops=flops,
        flops_kept=would if merges and would is not None else flops,
        flops_merged=would,
        moved_bytes=moved,
        pays=pays,
        pays_in=tuple(
            scope
            for scope in SCOPES
            if scope != "auto" and fewer and _pays(runs.merged(scope, method), name, flops, balance)
        ),
    )


def _pays(merged: Merged | str, name: str, flops: Flops, balance: float) -> bool:
    """Whether a block saves more FLOPs than are computed while its merging moves its bytes."""
    if isinstance(merged, str) or name not in merged.blocks:
        return False
    return flops.total - merged.blocks[name].total >= balance * merged.moved[name]


def _ceilings(config: Config, runs: Runs) -> tuple[Ceiling, ...]:
    found: list[Ceiling] = []
    for scope in (scope for scope in SCOPES if scope != "auto"):
        found += [_ceiling(scope, levels, config, runs) for levels in ("configured", "all")]
    return tuple(found)


def _ceiling(scope: str, levels: str, config: Config, runs: Runs) -> Ceiling:
    if levels == "all":
        config = replace(config, levels="all", rules=())
    total = 0.0
    for noise in config.plateaus():
        saved = 0
        for name, level in runs.levels.items():
            flops = runs.unmerged.blocks[name]
            method = config.method_at(level, sum(noise) / 2)
            if method is None or method.ratio == 0:
                continue
            merged = runs.merged(scope, method)
            if isinstance(merged, str):
                return Ceiling(scope, levels, None, None, merged)
            saved += flops.total - merged.blocks.get(name, flops).total
        total += (runs.unmerged.total - saved) * (noise[1] - noise[0])
    return Ceiling(scope, levels, total, runs.unmerged.total / total)
