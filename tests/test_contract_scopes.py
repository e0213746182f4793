"""Scopes: which layers run on fewer tokens, and what comes back to the others."""

import math

import pytest
import tiny
import torch

import retom
from retom import Config, ConfigError

LAYERS = ("attn1.to_q", "attn1.to_k", "attn2.to_q", "ff")
MERGED = {
    "attention": {"attn1.to_q", "attn1.to_k"},
    "attention+mlp": {"attn1.to_q", "attn1.to_k", "ff"},
    "block": set(LAYERS),
    "kv": {"attn1.to_k"},
}


@pytest.mark.parametrize("scope", MERGED)
def test_exactly_the_layers_of_the_scope_get_fewer_tokens(family, scope):
    model = family.build()
    retom.apply(model, ratio=0.3, levels="all", scope=scope, kv_lean=0)
    for layer in LAYERS:
        with tiny.tokens_seen(model, layer) as seen:
            tiny.call(model, tiny.inputs(family.name))
        blocks = {name: counts for name, counts in seen.items() if "fuser" not in name}
        assert len(blocks) == sum(family.layers_of_level)
        for name, counts in blocks.items():
            tokens = math.prod(tiny.halved((16, 16), tiny.depth_of(name)))
            removed = math.floor(0.3 * tokens) if layer in MERGED[scope] else 0
            assert counts == [tokens - removed], name


@pytest.mark.parametrize("scope", MERGED)
def test_ratio_0_and_removal_are_bit_exact(family, scope):
    model = family.build()
    arguments = tiny.inputs(family.name)
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model, ratio=0, scope=scope)
    assert torch.equal(tiny.call(model, arguments), unmerged)
    handle.update(ratio=0.5)
    assert not torch.equal(tiny.call(model, arguments), unmerged)
    handle.remove()
    assert torch.equal(tiny.call(model, arguments), unmerged)


def first_block(model):
    return next(m for m in model.modules() if type(m).__name__ == "BasicTransformerBlock")


def run_block(model, tokens, **overrides):
    """One transformer block by itself, as its UNet calls it."""
    text = torch.randn(len(tokens), 5, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(3))
    options = {"encoder_hidden_states": text, **overrides}
    with torch.no_grad():
        return first_block(model)(tokens, **options)


def within_a_call(model, handle, grid, run):
    """Run something as if inside a call of the denoiser whose first level has this grid."""
    state = handle._state
    state.begin(dict.fromkeys(state.levels, grid))
    state.levels[0].source_grid = grid
    try:
        return run()
    finally:
        state.end()


def test_block_adds_to_each_token_what_the_block_added_to_the_one_it_joined():
    tokens = torch.randn(2, 36, 8, generator=torch.Generator().manual_seed(1))
    grid = retom.Grid(6, 6)
    plan = retom.ReToM(ratio=0.5).plan(tokens, grid)
    model = tiny.sd15_unet()
    merged = plan.merge(tokens)
    expected = tokens + plan.unmerge(run_block(model, merged) - merged, tokens)
    handle = retom.apply(model, scope="block")
    got = within_a_call(model, handle, grid, lambda: run_block(model, tokens))
    torch.testing.assert_close(got, expected)


def test_keys_are_merged_and_every_token_still_asks():
    tokens = torch.randn(2, 36, 8, generator=torch.Generator().manual_seed(1))
    grid = retom.Grid(6, 6)
    plan = retom.ReToM(ratio=0.5).plan(tokens, grid)
    model = tiny.sd15_unet()
    attention = first_block(model).attn1
    with torch.no_grad():
        expected = attention(tokens, encoder_hidden_states=plan.merge(tokens))
    handle = retom.apply(model, scope="kv", size_weighted=False)
    with torch.no_grad():
        got = within_a_call(model, handle, grid, lambda: attention(tokens))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "kv"])
def test_a_merged_token_weighs_as_much_as_its_members_did(scope):
    """With members all equal, size-weighted attention is attention over all of them, exactly."""
    grid = retom.Grid(4, 4)
    base = torch.randn(2, 2, 2, 8, generator=torch.Generator().manual_seed(1))
    tokens = base.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(2, 16, 8)
    tokens[:, 5] += 1  # one window of four has a token of its own, so groups differ in size
    model = tiny.sd15_unet()
    attention = first_block(model).attn1
    with torch.no_grad():
        expected = attention(tokens)
    options = {"ratio": 11 / 16, "window": (2, 2), "size_weighted": True}
    handle = retom.apply(model, scope=scope, **options)
    with torch.no_grad():
        weighted = within_a_call(model, handle, grid, lambda: attention(tokens))
        handle.update(size_weighted=False)
        plain = within_a_call(model, handle, grid, lambda: attention(tokens))
    torch.testing.assert_close(weighted, expected)
    assert (plain - expected).abs().max() > 1e-4


def test_size_weighting_is_refused_where_it_means_nothing():
    with pytest.raises(ConfigError, match="size_weighted changes self-attention alone"):
        Config(scope="block", size_weighted=True)


def test_kv_refuses_fused_projections_with_what_to_do():
    model = tiny.sd15_unet()
    model.fuse_qkv_projections()
    retom.apply(model, scope="kv")
    with pytest.raises(ConfigError, match=r"unfuse_qkv_projections\(\)"):
        tiny.call(model, tiny.inputs())


def test_block_refuses_masks_of_an_ip_adapter_and_attention_does_not():
    model = tiny.sd15_unet()
    handle = retom.apply(model, scope="block")
    masks = {"cross_attention_kwargs": {"ip_adapter_masks": [torch.ones(1, 1, 8, 8)]}}
    with pytest.raises(ConfigError, match="masks of an IP-Adapter"):
        tiny.call(model, tiny.inputs(), **masks)
    assert tiny.is_idle(handle)


@pytest.mark.parametrize("share", ["level", "layer"])
def test_layers_share_a_plan_or_make_their_own(share, plans_made):
    model = tiny.sd15_unet()
    retom.apply(model, levels="all", share=share)
    tiny.call(model, tiny.inputs())
    assert len(plans_made) == (3 if share == "level" else 7)


def test_a_controlnet_merges_too():
    from diffusers import ControlNetModel

    torch.manual_seed(0)
    control = ControlNetModel.from_unet(tiny.sd15_unet(), load_weights_from_unet=False).eval()
    handle = retom.apply(control, ratio=0.5)
    arguments = tiny.inputs()
    with tiny.tokens_seen(control) as seen, torch.no_grad():
        control(
            arguments["sample"],
            arguments["timestep"],
            arguments["encoder_hidden_states"],
            controlnet_cond=torch.zeros(2, 3, 128, 128),
        )
    assert seen["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] == [128]
    assert handle.summary().levels[0].kept == 128
