"""Finding the denoiser in what the user holds, and its layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from retom.errors import UnsupportedModelError
from retom.models.transformer import denoiser_spec, transformer_layout, why_not
from retom.models.unet import is_unet, unet_layout

if TYPE_CHECKING:
    from retom.models.layout import Layout

_DENOISER_NAMES = ("unet", "transformer")


def find_entry(target: object) -> nn.Module:
    """The module that is called at every step: ``target`` itself, or the pipeline's.

    Raises:
        UnsupportedModelError: ``target`` is neither a module nor a pipeline with one.
    """
    if isinstance(target, nn.Module):
        return target
    held = [getattr(target, name, None) for name in _DENOISER_NAMES]
    module = next((part for part in held if isinstance(part, nn.Module)), None)
    if module is None:
        raise UnsupportedModelError(
            f"retom applies to a diffusers pipeline or to its denoiser (a torch module); "
            f"{type(target).__name__} is neither: it has no module named "
            f"{' or '.join(_DENOISER_NAMES)}."
        )
    return module


def find_denoiser(target: object) -> nn.Module:
    """The network itself: the entry, or what ``torch.compile`` wrapped to make it.

    Raises:
        UnsupportedModelError: ``target`` is neither a module nor a pipeline with one.
    """
    entry = find_entry(target)
    return cast("nn.Module", getattr(entry, "_orig_mod", entry))


def layout_of(denoiser: nn.Module) -> Layout:
    """Where ``denoiser`` can merge.

    Raises:
        UnsupportedModelError: Nowhere; the message lists what was seen.
    """
    if not is_unet(denoiser):
        return _transformer_layout(denoiser)
    layout = unet_layout(denoiser)
    if not layout.sites:
        stages = [type(s).__name__ for s in _stages(denoiser)]
        raise UnsupportedModelError(
            f"This {type(denoiser).__name__} has no self-attention on image tokens that retom "
            "knows (BasicTransformerBlock inside Transformer2DModel), so nothing would merge. Its "
            f"stages are {', '.join(stages)}."
        )
    return layout


def _transformer_layout(denoiser: nn.Module) -> Layout:
    spec = denoiser_spec(denoiser)
    reason = why_not(denoiser)
    seen = sorted({name for m in denoiser.modules() if "Block" in (name := type(m).__name__)})
    blocks = f"Block classes seen: {', '.join(seen) or 'none'}."
    if spec is None:
        why = f" {reason}" if reason else ""
        raise UnsupportedModelError(
            f"{type(denoiser).__name__} is not supported.{why} retom merges in "
            "UNet2DConditionModel (Stable Diffusion 1.x and 2.x, SDXL, Kolors) and in the "
            "transformers of docs/models.md; retom.register_block teaches it another. "
            f"{blocks}"
        )
    layout = transformer_layout(denoiser, spec)
    if not layout.sites:
        raise UnsupportedModelError(
            f"This {type(denoiser).__name__} has no block that retom knows, so nothing would "
            f"merge. {blocks}"
        )
    return layout


def _stages(denoiser: nn.Module) -> tuple[nn.Module, ...]:
    down, up = (getattr(denoiser, name, ()) for name in ("down_blocks", "up_blocks"))
    return cast("tuple[nn.Module, ...]", (*down, *up))


__all__ = ["find_denoiser", "find_entry", "layout_of"]
