"""Guiders of diffusers beside merging: calls with other layers than usual, and what they read."""

import pytest
import tiny
import torch
from diffusers import guiders
from diffusers.hooks import LayerSkipConfig, apply_layer_skip
from tiny_transformers import FAMILIES, needs_new, text

import retom

ORDERS = ("before", "after")


def run(model, arguments, **options):
    with torch.no_grad():
        return model(**arguments, return_dict=False, **options)[0]


def without_block(name, number):
    """A merging model that lacks a block."""
    model = FAMILIES[name].build()
    del model.transformer_blocks[number]
    retom.apply(model)
    return model


@pytest.mark.parametrize("order", ORDERS)
def test_a_skipped_block_is_a_block_that_is_not_there(order):
    model, arguments = FAMILIES["cogview4"].build(), FAMILIES["cogview4"].call(8, 6, 2)
    config = LayerSkipConfig(indices=[1], fqn="transformer_blocks")
    if order == "before":
        apply_layer_skip(model, config)
    retom.apply(model)
    if order == "after":
        apply_layer_skip(model, config)
    assert torch.equal(run(model, arguments), run(without_block("cogview4", 1), arguments))


def test_sd3_leaves_out_layers_itself():
    model, arguments = FAMILIES["sd3"].build(), FAMILIES["sd3"].call(8, 6, 2)
    retom.apply(model)
    skipped = run(model, arguments, skip_layers=[1])
    assert torch.equal(skipped, run(without_block("sd3", 1), arguments))


def guided(guider, model, arguments):
    """One step of a pipeline that is given a guider, by the guiders' own protocol."""
    needs_new("guider that prepares inputs without being told their fields")
    other = text(2, seed=11)
    guider.set_state(step=1, num_inference_steps=10, timestep=torch.tensor(500))
    given = {"encoder_hidden_states": (arguments["encoder_hidden_states"], other)}
    batches = guider.prepare_inputs(given)
    for batch in batches:
        guider.prepare_models(model)
        states = batch.encoder_hidden_states
        batch.noise_pred = run(model, {**arguments, "encoder_hidden_states": states})
        guider.cleanup_models(model)
    return guider(batches).pred, other


def test_classifier_free_guidance_is_two_calls():
    model, arguments = FAMILIES["cogview4"].build(), FAMILIES["cogview4"].call(8, 6, 2)
    retom.apply(model)
    guider = guiders.ClassifierFreeGuidance(guidance_scale=3.0)
    result, other = guided(guider, model, arguments)
    with_prompt = run(model, arguments)
    without = run(model, {**arguments, "encoder_hidden_states": other})
    torch.testing.assert_close(result, without + 3.0 * (with_prompt - without))


def test_skip_layer_guidance_takes_a_block_out_and_puts_it_back():
    model, arguments = FAMILIES["cogview4"].build(), FAMILIES["cogview4"].call(8, 6, 2)
    retom.apply(model)
    before = run(model, arguments)
    config = LayerSkipConfig(indices=[1], fqn="transformer_blocks")
    guider = guiders.SkipLayerGuidance(
        guidance_scale=3.0,
        skip_layer_guidance_scale=2.0,
        skip_layer_guidance_start=0.0,
        skip_layer_guidance_stop=1.0,
        skip_layer_config=config,
    )
    result, other = guided(guider, model, arguments)
    without = run(model, {**arguments, "encoder_hidden_states": other})
    skipped = run(without_block("cogview4", 1), arguments)
    expected = without + 3.0 * (before - without) + 2.0 * (before - skipped)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(run(model, arguments), before)


def perturbed(fqn="transformer_blocks"):
    return LayerSkipConfig(
        indices=[0], fqn=fqn, skip_attention=False, skip_attention_scores=True, skip_ff=False
    )


@pytest.mark.parametrize("name", ["cogview4", "pixart"])
def test_perturbed_attention_works_on_merged_tokens(name):
    """Each token gets its own value: the same for merged tokens as for others.

    diffusers 0.42 does it for few attention processors; those of SD3 and Flux are not among them.
    """
    outputs = []
    for order in ORDERS:
        model, arguments = FAMILIES[name].build(), FAMILIES[name].call(8, 6, 2)
        if order == "before":
            apply_layer_skip(model, perturbed())
        handle = retom.apply(model)
        merged = run(model, arguments)
        if order == "after":
            apply_layer_skip(model, perturbed())
        outputs.append(run(model, arguments))
        assert torch.equal(outputs[-1], merged) == (order == "before")
        handle.remove()
        assert not torch.equal(run(model, arguments), outputs[-1])
    assert torch.equal(*outputs)


def test_perturbed_attention_is_refused_where_it_would_do_nothing():
    fqn = "down_blocks.0.attentions.0.transformer_blocks"
    model = tiny.sd15_unet()
    handle = retom.apply(model, scope="kv")
    apply_layer_skip(model, perturbed(fqn))
    with pytest.raises(retom.ConfigError, match=r"fewer values than queries.*scope='attention'"):
        tiny.call(model, tiny.inputs())
    handle.update(scope="attention")
    assert tiny.call(model, tiny.inputs()).isfinite().all()


def test_smoothed_energy_guidance_is_refused():
    """By its hook: the guider of diffusers 0.42 never puts it on."""
    from diffusers.hooks import smoothed_energy_guidance_utils as smoothed

    model, arguments = FAMILIES["sd3"].build(), FAMILIES["sd3"].call(8, 8, 2)
    handle = retom.apply(model)
    config = smoothed.SmoothedEnergyGuidanceConfig(indices=[0], fqn="transformer_blocks")
    smoothed._apply_smoothed_energy_guidance_hook(model, config, blur_sigma=1.0)
    message = r"Smoothed energy guidance in transformer_blocks\.0 blurs the queries .*levels="
    with pytest.raises(retom.ConfigError, match=message):
        run(model, arguments)
    handle.enabled = False
    assert run(model, arguments).isfinite().all()
