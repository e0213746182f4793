"""Other ways to run attention go on working while tokens merge."""

import pytest
import tiny
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import retom

LEVEL_0 = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
# Another kernel for the same attention: float32 rounding of outputs of about 0.4.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


def one_level_unet():
    """Self-attention on one grid, so that one mask fits every layer."""
    return tiny.unet(attention=(True, False), mid_block_type=None)


def test_mask_of_self_attention_is_picked_at_the_kept_tokens():
    """Compared with attention of the kept tokens under their entries of the mask, computed here."""
    model = one_level_unet()
    layer = model.get_submodule(LEVEL_0)
    mask = torch.ones(2, 256)
    mask[0, 100:] = 0
    mask[1, :50] = 0
    inputs, outputs, biases = [], [], []
    layer.register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
    retom.apply(model, size_weighted=False, kv_lean=0)
    layer.register_forward_hook(lambda _module, _args, out: outputs.append(out))
    layer.register_forward_pre_hook(
        lambda _module, _args, kwargs: biases.append(kwargs["attention_mask"]), with_kwargs=True
    )
    tiny.call(model, tiny.inputs(), attention_mask=mask)

    plan = retom.ReToM().plan(inputs[0], retom.Grid(16, 16))
    kept = torch.stack([mask[item, plan.kept[item]] for item in range(2)])
    assert torch.equal(biases[0], (1 - kept)[:, None] * -10000.0)
    with torch.no_grad():
        x = plan.merge(inputs[0])
        heads = [each(x).unflatten(-1, (2, 4)).transpose(1, 2) for each in (layer.to_q, layer.to_k)]
        scores = heads[0] @ heads[1].mT / 4**0.5 + biases[0][:, None]
        values = layer.to_v(x).unflatten(-1, (2, 4)).transpose(1, 2)
        attended = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
        expected = plan.unmerge(layer.to_out[0](attended), inputs[0])
    torch.testing.assert_close(outputs[0], expected, **ROUNDING)


def test_mask_changes_the_output():
    model = one_level_unet()
    retom.apply(model)
    arguments = tiny.inputs()
    mask = torch.ones(2, 256)
    whole = tiny.call(model, arguments, attention_mask=mask)
    torch.testing.assert_close(whole, tiny.call(model, arguments), **ROUNDING)
    mask[:, :100] = 0
    assert not torch.allclose(tiny.call(model, arguments, attention_mask=mask), whole, atol=1e-3)


def test_mask_of_the_text_is_left_alone():
    model = tiny.sd15_unet()
    retom.apply(model, levels="all")
    arguments = tiny.inputs()
    longer = arguments["encoder_hidden_states"].clone()
    longer[:, 3:] = 7.0
    mask = torch.tensor([[1, 1, 1, 0, 0]]).expand(2, -1)
    masked = tiny.call(model, arguments, encoder_attention_mask=mask)
    arguments["encoder_hidden_states"] = longer
    assert torch.equal(tiny.call(model, arguments, encoder_attention_mask=mask), masked)


def use_plain_processor(model):
    model.set_attn_processor(AttnProcessor())


def use_default_processor(model):
    model.set_default_attn_processor()


def swap_twice(model):
    model.set_attn_processor(AttnProcessor())
    model.set_attn_processor(AttnProcessor2_0())


def chunk_feed_forward(model):
    for block in model.modules():
        if type(block).__name__ == "BasicTransformerBlock":
            block.set_chunk_feed_forward(chunk_size=16, dim=1)


SWITCHES = {
    "plain processor": use_plain_processor,
    "default processor": use_default_processor,
    "processors swapped twice": swap_twice,
    "attention slicing": lambda model: model.set_attention_slice("max"),
    "forward chunking": chunk_feed_forward,
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("order", ["before", "after"])
def test_switch_of_how_attention_runs_keeps_merging(switch, order):
    model, switched = tiny.sd15_unet(), tiny.sd15_unet()
    retom.apply(model)
    arguments = tiny.inputs()
    merged = tiny.call(model, arguments)

    if order == "before":
        switch(switched)
    retom.apply(switched)
    if order == "after":
        switch(switched)
    with tiny.tokens_seen(switched) as seen:
        output = tiny.call(switched, arguments)

    assert seen[LEVEL_0] == [128]
    torch.testing.assert_close(output, merged, **ROUNDING)


@pytest.mark.parametrize("order", ["before", "after"])
def test_fused_projections_keep_merging(order):
    model, fused = tiny.sd15_unet(), tiny.sd15_unet()
    retom.apply(model, kv_lean=0)  # as fused projections merge
    arguments = tiny.inputs()
    if order == "before":
        fused.fuse_qkv_projections()
    handle = retom.apply(fused)
    if order == "after":
        fused.fuse_qkv_projections()

    with tiny.tokens_seen(fused, "attn1.to_qkv") as seen:
        output = tiny.call(fused, arguments)

    assert seen[f"{LEVEL_0}.to_qkv"] == [128]
    torch.testing.assert_close(output, tiny.call(model, arguments), **ROUNDING)
    fused.unfuse_qkv_projections()
    retom.handle_of(model).update(kv_lean=handle.config.method.kv_lean)
    assert torch.equal(tiny.call(fused, arguments), tiny.call(model, arguments))
    assert handle.applied


def test_freeu_and_merging_both_count():
    model = tiny.sd15_unet()
    # FreeU looks for stages of 1280 and 640 channels by their order in the up path.
    model.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)
    free = tiny.call(model, tiny.inputs())
    handle = retom.apply(model)
    both = tiny.call(model, tiny.inputs())
    model.disable_freeu()
    merged = tiny.call(model, tiny.inputs())
    assert not torch.equal(both, free)
    assert not torch.equal(both, merged)
    handle.remove()
    model.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)
    assert torch.equal(tiny.call(model, tiny.inputs()), free)


# Outputs are about 0.4. Half precision may change which tokens merge, so an output moves by about
# what another plan moves it (mean 0.01), not by mere rounding.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(family, dtype):
    arguments = tiny.inputs(family.name)
    model, half = family.build(), family.build().to(dtype)
    retom.apply(model, levels="all")
    retom.apply(half, levels="all")
    output = tiny.call(half, tiny.inputs(family.name, dtype=dtype))
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert (output.float() - tiny.call(model, arguments)).abs().mean() < 0.03


@pytest.mark.parametrize("merge", retom.plan.MERGE_MODES)
def test_autocast_keeps_merging(merge):
    model = tiny.sd15_unet()
    retom.apply(model, levels="all", merge=merge)
    expected = tiny.call(model, tiny.inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16), tiny.tokens_seen(model) as seen:
        output = tiny.call(model, tiny.inputs())
    assert seen[LEVEL_0] == [128]
    assert (output.float() - expected).abs().mean() < 0.03  # as above


def test_a_rule_is_weighted_by_size_if_its_own_method_is():
    """ToMe as published weighs nothing; ReToM, which takes its place at some noise, does."""
    model = tiny.sd15_unet()
    rules = (retom.Rule(method=retom.ReToM(ratio=0.5), noise=(0.0, 0.5)),)
    retom.apply(model, method=retom.methods.ToMe(ratio=0.5), rules=rules)
    masks = []
    attention = model.get_submodule(f"{tiny.FIRST}.attn1")
    attention.register_forward_pre_hook(
        lambda _module, _args, kwargs: masks.append(kwargs.get("attention_mask")), with_kwargs=True
    )
    for timestep in (900, 100):
        tiny.call(model, tiny.inputs(), timestep=timestep)
    assert masks[0] is None
    assert masks[1] is not None
