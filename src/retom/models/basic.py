"""BasicTransformerBlock, the block of UNets, PixArt and DiT: its row, and the layers inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from retom.models.layout import AttentionSite
from retom.models.spec import Along, BlockSpec, Refusal

if TYPE_CHECKING:
    from torch import nn

BASIC_BLOCK = BlockSpec(
    masks=(Along("attention_mask", axis=-1),),
    refuse=(
        Refusal(
            "cross_attention_kwargs.ip_adapter_masks",
            "it would move the tokens that the masks of an IP-Adapter speak of. Use "
            "scope='attention' or 'attention+mlp', or no ip_adapter_masks.",
        ),
    ),
)


def attention_site(block: nn.Module, *, linear: bool = False) -> AttentionSite:
    """The self-attention and the MLP of a BasicTransformerBlock.

    ``linear``: a block with linear self-attention, whose MLP is left out.
    """
    attention = cast("Any", block.attn1)
    text = cast("Any", getattr(block, "attn2", None))
    mlp = cast("nn.Module | None", None if linear else getattr(block, "ff", None))
    mlp_weights = 0
    if mlp is not None:
        mlp_weights = sum(p.numel() for n, p in mlp.named_parameters() if n.endswith("weight"))
    text_weights = 0
    if text is not None:
        text_weights = text.to_q.weight.numel() + text.to_out[0].weight.numel()
    return AttentionSite(
        attention=attention,
        mlp=mlp,
        channels=int(attention.to_q.in_features),
        inner_channels=int(attention.to_q.out_features),
        mlp_weights=mlp_weights,
        text_weights=text_weights,
        heads=int(attention.heads),
        linear=linear,
    )
