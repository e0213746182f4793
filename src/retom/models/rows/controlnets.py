"""ControlNets of transformers: the same blocks, whose outputs they hand out one by one.

In a pipeline they run un-merged beside the denoiser, and what they hand out is added to all tokens
between its blocks. They merge where :func:`retom.apply` is called on them.
"""

from __future__ import annotations

from retom.models.denoiser import DenoiserSpec
from retom.models.grids import FeatureMap, Ids, Shapes
from retom.models.layout import Timestep
from retom.models.spec import BlockSpec

BLOCKS = {
    "SD3SingleTransformerBlock": BlockSpec(),
}

DENOISERS = {
    # That of SD 3.5 8b may be given tokens; what it is to follow is a feature map in either case.
    "SD3ControlNetModel": DenoiserSpec(
        grid=FeatureMap("controlnet_cond"),
        picture="hidden_states",
        family="ControlNets of Stable Diffusion 3, 3.5",
    ),
    "FluxControlNetModel": DenoiserSpec(
        grid=Ids(),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        family="ControlNets of Flux",
    ),
    "QwenImageControlNetModel": DenoiserSpec(
        grid=Shapes(),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        family="ControlNets of Qwen-Image",
    ),
    "HunyuanDiT2DControlNetModel": DenoiserSpec(family="ControlNets of Hunyuan-DiT"),
    "SanaControlNetModel": DenoiserSpec(family="ControlNets of Sana"),
}
