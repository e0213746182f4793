"""The layout of a transformer, from the rows of its class and of its blocks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from retom.errors import UnsupportedModelError
from retom.models.basic import BASIC_BLOCK, attention_site
from retom.models.grids import FeatureMap
from retom.models.layout import Layout, Site
from retom.models.names import class_names, forward_parameters
from retom.models.registry import BLOCKS, DENOISERS
from retom.models.rows import LINEAR_ATTENTION
from retom.models.rows.unsupported import UNSUPPORTED_BLOCKS, UNSUPPORTED_DENOISERS
from retom.models.sizes import default_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn

    from retom.grid import Grid
    from retom.models.denoiser import DenoiserSpec
    from retom.models.grids import GridRule
    from retom.models.layout import Bound, GridsOfSize
    from retom.models.spec import BlockSpec


def denoiser_spec(module: nn.Module) -> DenoiserSpec | None:
    """The row of a denoiser's class, or of one of its bases."""
    return next((DENOISERS[name] for name in class_names(module) if name in DENOISERS), None)


def block_spec(module: nn.Module) -> BlockSpec | None:
    """The row of a block's class, or of one of its bases."""
    return next((BLOCKS[name] for name in class_names(module) if name in BLOCKS), None)


def why_not(module: nn.Module) -> str | None:
    """Why a denoiser is known not to merge; None where nothing is known about it."""
    for name in class_names(module):
        if name in UNSUPPORTED_DENOISERS:
            return UNSUPPORTED_DENOISERS[name]
    seen = dict.fromkeys(name for part in module.modules() for name in class_names(part))
    return next((UNSUPPORTED_BLOCKS[name] for name in seen if name in UNSUPPORTED_BLOCKS), None)


def transformer_layout(denoiser: nn.Module, spec: DenoiserSpec) -> Layout:
    """Find the blocks of a transformer that can merge.

    Raises:
        UnsupportedModelError: The sequence is split over several devices, or the configuration has
            a switch with which nothing may merge.
    """
    _refuse_context_parallel(denoiser)
    if spec.unless and getattr(getattr(denoiser, "config", None), spec.unless[0], False):
        raise UnsupportedModelError(f"{type(denoiser).__name__} cannot merge: {spec.unless[1]}")
    sites: list[Site] = []
    unmerged: dict[str, str] = {}
    modules = cast("Iterable[tuple[str, nn.Module]]", denoiser.named_modules())
    for name, module in modules:
        if any(name == part or name.startswith(f"{part}.") for part in spec.without):
            continue
        if not LINEAR_ATTENTION.isdisjoint(class_names(module)):
            inside = attention_site(module, linear=True)
            sites.append(Site(name, module, None, forward_parameters(module), None, 0, inside))
            continue
        row = block_spec(module)
        if row is None:
            continue
        if row.unmerged_if is not None and getattr(module, row.unmerged_if[0], None) is not None:
            unmerged[name] = row.unmerged_if[1]
            continue
        inside = attention_site(module) if row is BASIC_BLOCK else None
        sites.append(Site(name, module, row, forward_parameters(module), None, 0, inside))
    config = getattr(denoiser, "config", None)
    timestep = spec.timestep
    if spec.distilled_timestep is not None and getattr(config, "guidance_embeds", False):
        timestep = spec.distilled_timestep
    of_size = None
    if isinstance(spec.grid, FeatureMap):
        of_size = partial(_grids_of_size, rule=spec.grid, config=config)
    return Layout(
        sites=tuple(sites),
        parameters=forward_parameters(denoiser),
        picture=spec.picture or spec.packed or spec.grid.argument,
        grids=partial(_grids, rule=spec.grid, config=config),
        grids_of_size=of_size,
        default_grids=_default_grids(of_size, config),
        scopes=_scopes(sites),
        timestep=timestep,
        reads_values=spec.grid.argument if spec.grid.reads_values else None,
        packed=spec.packed,
        packed_last=spec.packed_last,
        context=_context(spec, config),
        unmerged=unmerged,
    )


def _scopes(sites: list[Site]) -> tuple[str, ...]:
    """The scopes that all blocks can merge in, the default first."""
    if any(site.inside is None for site in sites):
        return ("block",)
    if any(site.spec is None for site in sites):
        return ("attention",)
    return ("block", "attention", "attention+mlp", "kv")


def _context(spec: DenoiserSpec, config: object) -> Callable[[Bound], int] | None:
    """How many tokens of reference pictures follow, where they come as feature maps."""
    if spec.context is None or not isinstance(spec.grid, FeatureMap):
        return None
    return partial(_context_tokens, name=spec.context, rule=spec.grid, config=config)


def _context_tokens(bound: Bound, *, name: str, rule: FeatureMap, config: object) -> int:
    maps = cast("Sequence[Tensor]", bound.get(name) or ())
    grids = [rule.of_size(item.shape[-2], item.shape[-1], config) for item in maps]
    return sum(grid.num_tokens for grid in grids)


def _grids(bound: Bound, *, rule: GridRule, config: object) -> dict[int, Grid]:
    return {0: rule(bound, config)}


def _grids_of_size(height: int, width: int, *, rule: FeatureMap, config: object) -> dict[int, Grid]:
    return {0: rule.of_size(height, width, config)}


def _default_grids(of_size: GridsOfSize | None, config: object) -> dict[int, Grid] | None:
    """The grids at the model's default size, None where the configuration names none."""
    size = default_size(config)
    return None if of_size is None or size is None else of_size(*size)


def _refuse_context_parallel(denoiser: nn.Module) -> None:
    parallel = cast("object", getattr(denoiser, "_parallel_config", None))
    if getattr(parallel, "context_parallel_config", None) is not None:
        raise UnsupportedModelError(
            "Context parallelism splits the tokens over several devices, and retom's windows would "
            "straddle them. Merge without it, or use tensor or pipeline parallelism."
        )
