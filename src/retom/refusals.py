"""What a host can do that a scope cannot work with, each refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def refuse_fused_projections(attention: nn.Module) -> None:
    """For scope ``kv``: keys and values come from other tokens than queries.

    The processor tells: diffusers leaves the layer's flag set when projections are unfused.
    """
    if "Fused" in type(getattr(attention, "processor", None)).__name__:
        raise ConfigError(
            "scope='kv' needs separate projections for keys and values, but this model's are "
            "fused. Call unfuse_qkv_projections() first, or use scope='attention'."
        )


def refuse_chunks(block: nn.Module) -> None:
    """For scope ``attention+mlp``: a plan is for all tokens that enter the MLP at once."""
    if getattr(block, "_chunk_size", None) is not None:
        raise ConfigError(
            "scope='attention+mlp' merges what enters the MLP, but forward chunking hands it over "
            "in pieces. Call disable_forward_chunking() first, or use scope='attention'."
        )
