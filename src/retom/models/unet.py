"""Facts about UNet2DConditionModel: Stable Diffusion 1.x and 2.x, SDXL, Kolors and their like.

A ControlNet for them is the same down to the middle, and has no way up.

Classes are recognised by name, so that importing this loads no diffusers and absent versions do no
harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from retom.grid import Grid
from retom.models.basic import BASIC_BLOCK, attention_site
from retom.models.layout import Bound, Layout, Site
from retom.models.names import class_names, forward_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

DENOISERS = {"UNet2DConditionModel", "ControlNetModel"}
GRID_SOURCE = "Transformer2DModel"
BLOCK = "BasicTransformerBlock"


def is_unet(module: nn.Module) -> bool:
    """Whether this file speaks of ``module``."""
    return not DENOISERS.isdisjoint(class_names(module))


def unet_layout(unet: nn.Module) -> Layout:
    """Find the self-attention layers of a UNet, with the level and the grid source of each.

    A block with ``only_cross_attention`` has no self-attention in ``attn1`` and gives no site.
    """
    found = list(_blocks(unet))
    depths = sorted({block.depth for block in found})
    level_of = {depth: level for level, depth in enumerate(depths)}
    sites = tuple(_site(block, level_of[block.depth]) for block in found)
    predict = partial(_grids, depths=tuple(depths))
    size = getattr(getattr(unet, "config", None), "sample_size", None)
    default = None
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        default = _grids_of_size(int(height), int(width), tuple(depths))
    return Layout(
        sites=sites,
        parameters=forward_parameters(unet),
        picture="sample",
        grids=predict,
        default_grids=default,
        scopes=("attention", "attention+mlp", "block", "kv"),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    module: nn.Module
    grid_source: nn.Module
    depth: int


def _site(block: _Block, level: int) -> Site:
    return Site(
        name=f"{block.name}.attn1",
        block=block.module,
        spec=BASIC_BLOCK,
        parameters=forward_parameters(block.module),
        grid_source=block.grid_source,
        level=level,
        inside=attention_site(block.module),
    )


def _blocks(unet: nn.Module) -> Iterator[_Block]:
    """Transformer blocks with self-attention; depth counts the halvings before them."""
    down = list(cast("Iterable[nn.Module]", unet.down_blocks))
    up = list(cast("Iterable[nn.Module]", getattr(unet, "up_blocks", ())))
    mid = cast("nn.Module | None", unet.mid_block)
    stages = [(f"down_blocks.{i}", stage, i) for i, stage in enumerate(down)]
    stages += [("mid_block", mid, len(down) - 1)] if mid is not None else []
    stages += [(f"up_blocks.{i}", stage, len(up) - 1 - i) for i, stage in enumerate(up)]
    for stage_name, stage, depth in stages:
        for source_name, source in _named(stage, stage_name, GRID_SOURCE):
            for name, module in _named(source, source_name, BLOCK):
                if not module.only_cross_attention:
                    yield _Block(name, module, source, depth)


def _named(root: nn.Module, prefix: str, class_name: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules under ``root`` of a class, by name."""
    modules = cast("Iterable[tuple[str, nn.Module]]", root.named_modules(prefix=prefix))
    return ((name, module) for name, module in modules if class_name in class_names(module))


def _grids(bound: Bound, *, depths: tuple[int, ...]) -> dict[int, Grid]:
    height, width = bound["sample"].shape[-2:]
    return _grids_of_size(height, width, depths)


def _grids_of_size(height: int, width: int, depths: tuple[int, ...]) -> dict[int, Grid]:
    """Grid of each level of a latent of height x width: each stage halves, rounding up."""
    return {
        level: Grid(-(-height // 2**depth), -(-width // 2**depth))
        for level, depth in enumerate(depths)
    }
