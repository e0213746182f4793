"""Give a trained UNet a level for pictures of twice the size, without losing what it knows.

The inner levels go on seeing pictures of the old size, at the noise they know (see
:mod:`.noise`): the new level starts as one that halves what comes in and doubles what goes out.
Trained on larger pictures as it is, a UNet would have to learn its shapes again, one level deeper.
The idea of growing is Karras and others' (2017, progressive growing of GANs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn


def grow(
    unet: UNet2DConditionModel, width: int, build: Callable[[], UNet2DConditionModel]
) -> UNet2DConditionModel:
    """Return a UNet with one more level outside.

    Args:
        unet: A trained UNet of one residual block a level.
        width: Channels of the new level, which are those of the outermost level so far.
        build: Makes an untrained UNet of the new form.

    Raises:
        ValueError: The widths differ, or are too small for the halving of the latents.
    """
    config: Any = unet.config
    channels, outermost = config.in_channels, config.block_out_channels[0]
    if width != outermost or width < 4 * channels:
        msg = (
            f"the new level has {width} channels, the outermost so far {outermost}: give both the"
            f" same number, at least {4 * channels}"
        )
        raise ValueError(msg)
    grown = build()
    depth = len(config.block_out_channels)
    inner = unet.state_dict()
    own = {_place(name): weight for name, weight in inner.items()}
    del own["conv_in.weight"], own["conv_in.bias"]
    shapes = {n: w.shape for n, w in grown.state_dict().items() if _inside(n, depth)}
    other = sorted(dict({n: w.shape for n, w in own.items()}.items() ^ shapes.items()))
    if other:
        msg = f"the UNets differ by more than a level, for example in {other[0]}"
        raise ValueError(msg)
    grown.load_state_dict(own, strict=False)
    with torch.no_grad():
        _halve(grown, inner["conv_in.weight"], inner["conv_in.bias"])
        _double(grown, depth)
        blocks: Any = (grown.down_blocks[0], grown.up_blocks[depth])
        known: Any = (unet.down_blocks[0], unet.up_blocks[depth - 1])
        for block, old in zip(blocks, known, strict=True):
            for part in block.resnets:
                _zero(part.conv2)
            # attention starts with the weights of the level inside, and with an output of zero
            block.attentions.load_state_dict(old.attentions.state_dict())
            for part in block.attentions:
                _zero(part.proj_out)
    return grown


def outermost(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """Return the weights of the outermost level, which is the one that was added last."""
    blocks: Any = (unet.down_blocks[0], unet.up_blocks[-1])
    return [weight for block in blocks for weight in block.parameters()]


def _place(name: str) -> str:
    """Where a weight of the old UNet stands in the new one."""
    if not name.startswith("down_blocks."):
        return name
    _, level, rest = name.split(".", 2)
    return f"down_blocks.{int(level) + 1}.{rest}"


def _inside(name: str, depth: int) -> bool:
    """Whether a weight belongs to what the old UNet has too."""
    own = ("conv_in.", "down_blocks.0.", f"up_blocks.{depth}.")
    return not name.startswith((*own, f"up_blocks.{depth - 1}.upsamplers."))


def _halve(grown: UNet2DConditionModel, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    """Let the way in compute what the old first convolution saw, from latents of twice the size.

    The first convolution sums 2 x 2 boxes around each place, up or down and left or right of it; at
    every second place, the strided one then finds all boxes that the old kernel covered, those to
    the right and below one place too near. Each box is a sum of four over two, so that noise of
    variance 1 comes out as noise of variance 1.
    """
    channels = kernel.shape[1]
    parts: Any = grown
    conv, strided = parts.conv_in, parts.down_blocks[0].downsamplers[0].conv
    nn.init.zeros_(conv.bias)
    strided.weight.zero_()
    strided.bias.copy_(bias)
    for channel in range(channels):
        for row in (0, 1):
            for column in (0, 1):
                box = 4 * channel + 2 * row + column
                conv.weight[box] = 0
                conv.weight[box, channel, row : row + 2, column : column + 2] = 0.5
        for y in range(3):
            for x in range(3):
                box = 4 * channel + 2 * min(y, 1) + min(x, 1)
                strided.weight[:, box, y, x] = kernel[:, channel, y, x]


def _double(grown: UNet2DConditionModel, depth: int) -> None:
    """Let the way out repeat each place four times."""
    blocks: Any = grown.up_blocks
    nn.init.dirac_(blocks[depth - 1].upsamplers[0].conv.weight)
    nn.init.zeros_(blocks[depth - 1].upsamplers[0].conv.bias)
    for part in blocks[depth].resnets:
        # of its inputs side by side, what comes from inside stands first
        nn.init.dirac_(part.conv_shortcut.weight)
        nn.init.zeros_(part.conv_shortcut.bias)


def _zero(conv: nn.Module) -> None:
    for weight in conv.parameters():
        nn.init.zeros_(weight)
