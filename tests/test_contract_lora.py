"""LoRA through peft: loaded before or after, switched, weighted, fused, in every scope."""

import pytest
import tiny
import torch

import retom

peft = pytest.importorskip("peft")

SCOPES = ("attention", "attention+mlp", "block", "kv")
# Fused weights are sums: float32 rounding of outputs of about 0.4. A plan could also change by it,
# which moves an output by 0.01 and would fail here.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
# peft warns of a second adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


def add(model, name, seed):
    torch.manual_seed(seed)
    model.add_adapter(
        peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False), adapter_name=name
    )


@pytest.mark.parametrize("scope", SCOPES)
def test_before_or_after_counts_alike_and_leaves_as_it_came(scope):
    model, other = tiny.sd15_unet(), tiny.sd15_unet()
    arguments = tiny.inputs()
    plain = tiny.call(model, arguments)
    handle = retom.apply(model, scope=scope)
    merged = tiny.call(model, arguments)
    add(model, "style", 0)
    add(other, "style", 0)
    unmerged = tiny.call(other, arguments)
    other_handle = retom.apply(other, scope=scope)

    output = tiny.call(model, arguments)
    assert torch.equal(tiny.call(other, arguments), output)
    assert not torch.equal(output, merged)
    assert not torch.equal(output, unmerged)

    other_handle.remove()
    assert torch.equal(tiny.call(other, arguments), unmerged)
    model.delete_adapters("style")
    assert torch.equal(tiny.call(model, arguments), merged)
    handle.remove()
    assert torch.equal(tiny.call(model, arguments), plain)


@pytest.mark.parametrize("scope", SCOPES)
def test_adapters_are_switched_and_weighted_while_tokens_merge(scope):
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    retom.apply(model, scope=scope)
    merged = tiny.call(model, arguments)
    add(model, "style", 0)
    add(model, "line", 1)
    outputs = [merged]
    for names, weights in ((["style"], [1.0]), (["line"], [1.0]), (["style", "line"], [0.5, 1.5])):
        model.set_adapters(names, weights)
        outputs.append(tiny.call(model, arguments))
    for number, output in enumerate(outputs):
        assert all(not torch.equal(output, other) for other in outputs[:number])
    model.disable_adapters()
    assert torch.equal(tiny.call(model, arguments), merged)


@pytest.mark.parametrize("scope", SCOPES)
def test_fusing_and_unfusing_keep_merging(scope):
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    add(model, "style", 0)
    retom.apply(model, scope=scope, kv_lean=0)
    loose = tiny.call(model, arguments)
    model.fuse_lora()
    with tiny.tokens_seen(model, "attn1.to_k.base_layer") as seen:
        fused = tiny.call(model, arguments)
    first = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.base_layer"
    assert seen[first] == [128]
    torch.testing.assert_close(fused, loose, **ROUNDING)
    model.unfuse_lora()
    torch.testing.assert_close(tiny.call(model, arguments), loose, **ROUNDING)


def test_an_adapter_that_comes_midway_counts_from_the_next_step():
    """With plans of the first step kept: reuse does not look at weights."""
    pipe = tiny.sd_pipeline()
    add(pipe.unet, "style", 0)
    pipe.unet.disable_adapters()
    retom.apply(pipe, refresh=9)
    without = tiny.latents(pipe, num_inference_steps=3)

    def switch(_pipe, step, _timestep, values):
        if step == 0:
            pipe.unet.enable_adapters()
        return values

    half = tiny.latents(pipe, num_inference_steps=3, callback_on_step_end=switch)
    assert not torch.equal(half, without)
    assert not torch.equal(tiny.latents(pipe, num_inference_steps=3), half)
