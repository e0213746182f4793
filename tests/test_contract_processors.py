"""Attention processors, fused projections, slices and FreeU, changed after merging is applied."""

import pytest
import tiny
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import retom

OTHER_SCOPES = [scope for scope in tiny.TOLD_BY if scope != "attention"]
"""Scope ``attention`` is in test_contract_attention.py."""
# Another kernel for the same attention: float32 rounding of outputs of about 0.4.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


def pair(scope, **options):
    """Two equal merging models, and what they give."""
    model, other = tiny.sd15_unet(), tiny.sd15_unet()
    retom.apply(model, scope=scope, **options)
    retom.apply(other, scope=scope, **options)
    return model, tiny.call(other, tiny.inputs())


def check(model, expected, layer):
    with tiny.tokens_seen(model, layer) as seen:
        output = tiny.call(model, tiny.inputs())
    assert seen[f"{tiny.FIRST}.{layer}"] == [128]
    torch.testing.assert_close(output, expected, **ROUNDING)


@pytest.mark.parametrize("scope", OTHER_SCOPES)
def test_processors_come_and_go(scope):
    model, expected = pair(scope)
    model.set_attn_processor(AttnProcessor())
    check(model, expected, tiny.TOLD_BY[scope])
    model.set_attn_processor(AttnProcessor2_0())
    assert torch.equal(tiny.call(model, tiny.inputs()), expected)
    model.set_attention_slice("max")
    check(model, expected, tiny.TOLD_BY[scope])


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "kv"])
def test_processors_agree_on_sizes_as_weights(scope):
    """The weights are a mask, which processors treat each in its way."""
    model, expected = pair(scope, size_weighted=True)
    model.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(tiny.call(model, tiny.inputs()), expected, **ROUNDING)
    model.set_attention_slice("max")
    torch.testing.assert_close(tiny.call(model, tiny.inputs()), expected, **ROUNDING)


@pytest.mark.parametrize("scope", ["attention+mlp", "block"])
def test_fused_projections_come_and_go(scope):
    model, expected = pair(scope)
    model.fuse_qkv_projections()
    layer = {"attention+mlp": "attn1.to_qkv", "block": "attn2.to_kv"}[scope]
    with tiny.tokens_seen(model, layer) as seen:
        fused = tiny.call(model, tiny.inputs())
    assert seen[f"{tiny.FIRST}.{layer}"] == [128 if scope == "attention+mlp" else 5]
    torch.testing.assert_close(fused, expected, **ROUNDING)
    model.unfuse_qkv_projections()
    assert torch.equal(tiny.call(model, tiny.inputs()), expected)


def test_kv_works_again_once_projections_are_separate():
    model, expected = pair("kv")
    model.fuse_qkv_projections()
    with pytest.raises(retom.ConfigError, match="unfuse_qkv_projections"):
        tiny.call(model, tiny.inputs())
    model.unfuse_qkv_projections()
    assert torch.equal(tiny.call(model, tiny.inputs()), expected)


@pytest.mark.parametrize("scope", OTHER_SCOPES)
def test_freeu_is_switched_while_tokens_merge(scope):
    model, merged = pair(scope)
    # It finds stages by their channels, which it takes to be 1280 and 640 times a factor.
    model.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)
    with tiny.tokens_seen(model, tiny.TOLD_BY[scope]) as seen:
        free = tiny.call(model, tiny.inputs())
    assert seen[f"{tiny.FIRST}.{tiny.TOLD_BY[scope]}"] == [128]
    assert not torch.equal(free, merged)
    model.disable_freeu()
    assert torch.equal(tiny.call(model, tiny.inputs()), merged)


def test_chunks_that_do_not_divide_the_merged_tokens_are_refused_by_diffusers():
    """128 of 256 tokens divide by 16, and 205 do not: diffusers says so, nothing runs wrong."""
    model = tiny.sd15_unet()
    for block in model.modules():
        if type(block).__name__ == "BasicTransformerBlock":
            block.set_chunk_feed_forward(chunk_size=16, dim=1)
    handle = retom.apply(model, scope="block", ratio=0.2)
    with pytest.raises(ValueError, match="has to be divisible by chunk size"):
        tiny.call(model, tiny.inputs())
    assert tiny.is_idle(handle)
    handle.update(scope="attention")
    assert tiny.call(model, tiny.inputs()).isfinite().all()


@pytest.mark.parametrize("dim", [0, 1])
def test_attention_and_mlp_refuse_chunks(dim):
    """Chunks of the batch would each get the plan of the first, chunks of tokens none at all."""
    model = tiny.sd15_unet()
    for block in model.modules():
        if type(block).__name__ == "BasicTransformerBlock":
            block.set_chunk_feed_forward(chunk_size=1, dim=dim)
    handle = retom.apply(model, scope="attention+mlp")
    with pytest.raises(retom.ConfigError, match=r"disable_forward_chunking\(\) first"):
        tiny.call(model, tiny.inputs())
    handle.enabled = False
    assert tiny.call(model, tiny.inputs()).isfinite().all()
