"""However the denoiser is called, it merges the same."""

import pytest
import tiny
import torch
from diffusers import ControlNetModel

import retom


@pytest.fixture
def merging():
    model = tiny.sd15_unet()
    retom.apply(model, levels="all")
    return model


@torch.no_grad()
def test_positional_and_keyword_arguments(merging):
    arguments = tiny.inputs()
    by_keyword = merging(**arguments).sample
    sample, timestep, text = arguments.values()
    assert torch.equal(merging(sample, timestep, text).sample, by_keyword)
    assert torch.equal(merging(sample, timestep, encoder_hidden_states=text).sample, by_keyword)


@torch.no_grad()
def test_output_as_a_tuple_or_an_object(merging):
    arguments = tiny.inputs()
    as_object = merging(**arguments).sample
    as_tuple = merging(**arguments, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], as_object)


def test_residuals_of_a_controlnet_come_through(merging):
    arguments = tiny.inputs()
    torch.manual_seed(0)
    controlnet = ControlNetModel.from_unet(merging).eval()
    condition = torch.ones(2, 3, 128, 128)

    def steered():
        with torch.no_grad():
            down, middle = controlnet(**arguments, controlnet_cond=condition, return_dict=False)
        return tiny.call(
            merging,
            arguments,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )

    plain = tiny.call(merging, arguments)
    assert torch.equal(steered(), plain)  # its last convolutions are zero before training
    for layer in controlnet.controlnet_down_blocks:
        torch.nn.init.ones_(layer.bias)
    assert not torch.equal(steered(), plain)


def test_calls_under_inference_mode_and_with_gradients_agree(merging):
    arguments = tiny.inputs()
    with torch.inference_mode():
        quick = merging(**arguments).sample
    recorded = merging(**arguments).sample
    assert recorded.requires_grad
    assert torch.equal(recorded, quick)


def test_train_mode_merges(merging):
    merging.train()
    with tiny.tokens_seen(merging) as seen:
        tiny.call(merging, tiny.inputs())
    assert seen["mid_block.attentions.0.transformer_blocks.0.attn1"] == [8]
