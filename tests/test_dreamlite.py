"""DreamLite: a UNet whose upper stages have no self-attention, and whose queries share keys."""

import pytest
import tiny
import torch
from tiny_transformers import draw, needs_new

import retom
from retom.testing import Permutation

diffusers = pytest.importorskip("diffusers")

SITES = ["down_blocks.1", "up_blocks.0", "up_blocks.0", "mid_block"]


def unet():
    if not hasattr(diffusers, "DreamLiteUNetModel"):
        needs_new("DreamLite")
    torch.manual_seed(0)
    return diffusers.DreamLiteUNetModel(
        sample_size=16,
        block_out_channels=(16, 16),
        down_block_types=(
            "DreamLiteCrossAttnNoSelfAttnDownBlock2D",
            "DreamLiteCrossAttnDownBlock2D",
        ),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteCrossAttnNoSelfAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=tiny.TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=2,
        ff_mult=2,
        num_kv_heads=1,
    ).eval()


def arguments(batch=2, size=(16, 12)):
    return {
        "sample": draw(batch, 4, *size),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": draw(batch, 5, tiny.TEXT_WIDTH, seed=2),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * batch),
    }


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
@pytest.mark.parametrize(("batch", "size"), [(1, (16, 12)), (3, (18, 10))])
def test_it_merges_where_it_has_self_attention(scope, batch, size):
    model, given = unet(), arguments(batch, size)
    tokens = (size[0] // 2) * (size[1] // 2)
    plain = tiny.call(model, given)
    handle = retom.apply(model, scope=scope, ratio=0)
    assert sorted(site.name.split(".attentions")[0] for site in handle._layout.sites) == sorted(
        SITES
    )
    assert torch.equal(tiny.call(model, given), plain)
    handle.update(ratio=0.5)
    with tiny.tokens_seen(model, tiny.TOLD_BY[scope]) as seen:
        merged = tiny.call(model, given)
    row = handle.summary().levels[0]
    assert (row.layers, row.tokens, row.kept) == (4, tokens, tokens - tokens // 2)
    assert min(min(counts) for counts in seen.values()) == tokens - tokens // 2
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)
    handle.remove()
    assert torch.equal(tiny.call(model, given), plain)


@pytest.mark.parametrize("scope", ["attention", "block"])
def test_no_order_of_the_tokens_changes_it(scope):
    model, given = unet(), arguments()
    plain = tiny.call(model, given)
    with retom.applied(model, retom.Config(method=Permutation(), scope=scope, levels="all")):
        shuffled = tiny.call(model, given)
    assert (shuffled - plain).norm() / plain.norm() <= 1e-5


def test_keys_are_compared_though_heads_share_them():
    model = unet()
    outputs = []
    for score in ("input", "keys"):
        with retom.applied(model, score=score, scope="attention"):
            outputs.append(tiny.call(model, arguments()))
    assert not torch.equal(*outputs)
