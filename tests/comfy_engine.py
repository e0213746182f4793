"""ComfyUI's own engine, if this machine has it, and models of its classes with random weights.

The engine is not on a package index. ``RETOM_COMFYUI`` names the folder of a checkout of ComfyUI,
in an environment that has its requirements; torchvision and torchaudio are needed by it only for
video and sound, and where they are missing empty modules stand in for them.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types

import pytest
import torch

REASON = (
    "ComfyUI's engine is not here. To run these tests, check out ComfyUI, install its "
    "requirements.txt, and name the folder in the environment: RETOM_COMFYUI=../ComfyUI"
)
STAND_INS = ("torchvision", "torchaudio")


class _Missing(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in STAND_INS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Missing(spec.name)

    def exec_module(self, module):
        pass


def engine():
    """Import it, or skip with a sentence."""
    folder = os.environ.get("RETOM_COMFYUI")
    if folder is None:
        pytest.skip(REASON)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        if any(importlib.util.find_spec(name) is None for name in STAND_INS):
            sys.meta_path.append(_StandIns())
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.model_base
    import comfy.model_patcher
    import comfy.sample
    import comfy.supported_models

    return comfy


UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "context_dim": 16,
    "num_heads": 2,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "legacy": False,
    "transformer_depth_middle": 1,
}
SD15 = {"transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1]}
SDXL = {
    "transformer_depth": [0, 2],
    "transformer_depth_output": [0, 0, 2, 2],
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
MMDIT = {
    "input_size": None,
    "in_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "adm_in_channels": 32,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 24, "out_features": 128},
    },
    "pos_embed_max_size": 24,
    "num_patches": 24 * 24,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
    "x_block_self_attn_layers": [0],
}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 32,
    "context_in_dim": 24,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
FLUX2 = {
    **FLUX,
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "vec_in_dim": None,
    "axes_dim": [8, 8, 8, 8],
    "theta": 2000,
    "qkv_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
    "txt_ids_dims": [3],
}
QWEN = {
    "image_model": "qwen_image",
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (8, 12, 12),
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 64,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 1,
    "multiple_of": 32,
    "qk_norm": True,
    "cap_feat_dim": 24,
    "axes_dims": [8, 12, 12],
    "axes_lens": [300, 64, 64],
    "ffn_dim_multiplier": 1.0,
}
Z_IMAGE = {**LUMINA, "z_image_modulation": True, "pad_tokens_multiple": 32, "dim": 256}
Z_IMAGE |= {"n_heads": 8, "n_kv_heads": 8}

FAMILIES = {
    "SD15": (UNET | SD15, "SD15", "BaseModel"),
    "SDXL": (UNET | SDXL, "SDXL", "SDXL"),
    "SD3": (MMDIT, "SD3", "SD3"),
    "Flux": (FLUX, "Flux", "Flux"),
    "Flux 2": (FLUX2, "Flux2", "Flux2"),
    "Qwen-Image": (QWEN, "QwenImage", "QwenImage"),
    "Lumina 2": (LUMINA, "Lumina2", "Lumina2"),
    "Z-Image": (Z_IMAGE, "ZImage", "Lumina2"),
}
"""Family: (sizes of the denoiser, ComfyUI's configuration class, ComfyUI's model class)."""

SIZE = (12, 10)
"""Latents; a transformer's grid is half of it a side."""


def _flux_sizes():
    """The names of Flux's sizes, which grew over the versions."""
    from comfy.ldm.flux.model import FluxParams

    return FluxParams.__dataclass_fields__


def build(family, seed=0):
    """A ModelPatcher of a family, its weights random and none of them zero."""
    comfy = engine()
    sizes, config_class, model_class = FAMILIES[family]
    if not hasattr(comfy.supported_models, config_class):
        pytest.skip(f"This version of ComfyUI has no {family}.")
    if model_class in ("Flux", "Flux2") and "txt_ids_dims" not in _flux_sizes():
        sizes = {name: size for name, size in sizes.items() if name != "txt_ids_dims"}
    config = getattr(comfy.supported_models, config_class)(sizes)
    config.unet_config.update(sizes, dtype=torch.float32)
    cpu = torch.device("cpu")
    model = getattr(comfy.model_base, model_class)(config, device=cpu).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fresh = torch.randn(parameter.shape, generator=generator)
        flat = parameter.ndim < 2
        parameter.data = 1 + 0.1 * fresh if flat else fresh * parameter[0].numel() ** -0.5
        parameter.requires_grad_(False)
    for name, buffer in model.named_buffers():
        if name.endswith("pos_embed"):  # uninitialised until weights are loaded
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def arguments(family, batch=2, seed=1, size=SIZE):
    """(x, sigma, other arguments) of a call of the model."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    if family in ("SD15", "SDXL"):
        extra = {"c_crossattn": random(batch, 7, 16)}
        if family == "SDXL":
            extra["y"] = random(batch, 2816)
        return random(batch, 4, *size), torch.full((batch,), 3.0), extra
    extra = {"c_crossattn": random(batch, 7, 24)}
    if family in ("SD3", "Flux", "Flux 2"):
        extra["y"] = random(batch, 32)
    if family in ("Flux", "Flux 2"):
        extra["guidance"] = torch.full((batch,), 3.5)
    if family in ("Lumina 2", "Z-Image"):
        extra["num_tokens"] = 7
    frames = (1,) if family == "Qwen-Image" else ()
    channels = 128 if family == "Flux 2" else 16
    return random(batch, channels, *frames, *size), torch.full((batch,), 0.7), extra


def call(patcher, family, *, also=None, **options):
    """One call of the model as ComfyUI's samplers make it; ``also`` adds to its options."""
    comfy = engine()
    x, sigma, extra = arguments(family, **options)
    given = comfy.patcher_extension.copy_nested_dicts(patcher.model_options["transformer_options"])
    wrappers = {"wrappers": patcher.wrappers}
    given = comfy.patcher_extension.merge_nested_dicts(given, wrappers)
    given.update(also or {})
    patcher.patch_model()
    try:
        with torch.no_grad():
            return patcher.model.apply_model(x, sigma, transformer_options=given, **extra)
    finally:
        patcher.unpatch_model()
