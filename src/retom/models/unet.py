"""Facts about UNet2DConditionModel: Stable Diffusion 1.x and 2.x, SDXL, Kolors and their like.

A ControlNet for them is the same down to the middle, and has no way up.

Classes are recognised by name, so that importing this loads no diffusers and absent versions do no
harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from retom.errors import UnsupportedModelError
from retom.grid import Grid
from retom.models.basic import BASIC_BLOCK, attention_site
from retom.models.layout import Bound, Layout, Site
from retom.models.names import class_names, forward_parameters
from retom.models.sizes import default_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

DENOISERS = {"UNet2DConditionModel", "ControlNetModel", "ControlNetUnionModel"}
GRID_SOURCES = {"Transformer2DModel", "DreamLiteTransformer2DModel"}
BLOCKS = {"BasicTransformerBlock", "BasicTransformerBlockDreamLite"}


def is_unet(module: nn.Module) -> bool:
    """Whether this file speaks of ``module``."""
    return not DENOISERS.isdisjoint(class_names(module))


def unet_layout(unet: nn.Module) -> Layout:
    """Find the self-attention layers of a UNet, with the level and the grid source of each.

    A block with ``only_cross_attention`` has no self-attention in ``attn1``, and some of
    DreamLite's have no ``attn1``: they give no site.

    Raises:
        UnsupportedModelError: A stage above self-attention halves its feature map in an unknown
            way, or the configuration names a size that is none.
    """
    found = list(_blocks(unet))
    depths = tuple(sorted({block.depth for block in found}))
    level_of = {depth: level for level, depth in enumerate(depths)}
    halvings = tuple(_halvings(unet, max(depths, default=0)))
    of_size = partial(_grids_of_size, depths=depths, halvings=halvings)
    size = default_size(getattr(unet, "config", None))
    return Layout(
        sites=tuple(_site(block, level_of[block.depth]) for block in found),
        parameters=forward_parameters(unet),
        picture="sample",
        grids=partial(_grids, depths=depths, halvings=halvings),
        grids_of_size=of_size,
        default_grids=None if size is None else of_size(*size),
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
        for source_name, source in _named(stage, stage_name, GRID_SOURCES):
            for name, module in _named(source, source_name, BLOCKS):
                has_attention = cast("object", module.attn1) is not None
                if has_attention and not module.only_cross_attention:
                    yield _Block(name, module, source, depth)


def _named(root: nn.Module, prefix: str, classes: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Modules under ``root`` of one of the classes, by name."""
    for name, module in cast("Iterable[tuple[str, nn.Module]]", root.named_modules(prefix=prefix)):
        if not classes.isdisjoint(class_names(module)):
            yield name, module


def _halvings(unet: nn.Module, depth: int) -> Iterator[int]:
    """What each of the first ``depth`` stages adds to a side before it halves it, rounding down.

    A strided convolution of 3x3 with a padding of 1 on all sides, the usual one, makes ceil(side /
    2). With ``downsample_padding=0`` diffusers pads one side alone, which makes floor(side / 2), as
    average pooling does.
    """
    for number, stage in enumerate(list(cast("Iterable[nn.Module]", unet.down_blocks))[:depth]):
        found = list(cast("Iterable[Any]", getattr(stage, "downsamplers", None) or ()))
        names = [type(module).__name__ for module in found]
        if names == ["Downsample2D"] and type(found[0].padding) is int:
            yield max(2 * found[0].padding - 1, 0) if found[0].use_conv else 0
        elif names in (["ResnetBlock2D"], ["KDownsample2D"]):
            yield 0
        else:
            raise UnsupportedModelError(
                f"Stage {number} of this {type(unet).__name__}, {type(stage).__name__}, makes its "
                f"feature map smaller by {', '.join(names) or 'nothing'}; retom knows "
                "Downsample2D with one padding, ResnetBlock2D and KDownsample2D, and cannot tell "
                "the grids below it."
            )


def _grids(bound: Bound, *, depths: tuple[int, ...], halvings: tuple[int, ...]) -> dict[int, Grid]:
    height, width = bound["sample"].shape[-2:]
    return _grids_of_size(height, width, depths=depths, halvings=halvings)


def _grids_of_size(
    height: int, width: int, *, depths: tuple[int, ...], halvings: tuple[int, ...]
) -> dict[int, Grid]:
    """Grid of each level of a latent of height x width."""
    sizes = [(height, width)]
    for extra in halvings:
        sizes.append(((sizes[-1][0] + extra) // 2, (sizes[-1][1] + extra) // 2))
    return {level: Grid(*sizes[depth]) for level, depth in enumerate(depths)}
