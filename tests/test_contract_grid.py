"""The grid is read where tokens are made, so any latent size works, odd ones too."""

import math

import pytest
import tiny
import torch

import retom
from retom.hints import Hints

SIZES = [(65, 49), (33, 17), (17, 13), (1, 16), (7, 1), (2, 2), (24, 8)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_level_keeps_the_exact_number_of_tokens_at_any_size(size):
    model = tiny.sd15_unet()
    handle = retom.apply(model, ratio=0.25, levels="all")

    with tiny.tokens_seen(model) as seen:
        output = tiny.call(model, tiny.inputs(size=size, batch=1))

    assert output.shape[-2:] == size
    for name, counts in seen.items():
        tokens = math.prod(tiny.halved(size, tiny.depth_of(name)))
        assert counts == [tokens - math.floor(0.25 * tokens)], name
    grids = [(row.grid.height, row.grid.width) for row in handle.summary().levels]
    assert grids == [tiny.halved(size, depth) for depth in range(3)]


@pytest.mark.parametrize("size", [(33, 17), (12, 8), (8, 12)], ids=str)
def test_height_and_width_of_the_grid_are_not_swapped(size):
    model = tiny.sd15_unet()
    layer = model.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    tokens, plans = [], []
    layer.register_forward_pre_hook(lambda _module, args: tokens.append(args[0]))
    handle = retom.apply(model)
    layer.to_q.register_forward_pre_hook(lambda *_: plans.append(handle._state.in_flight.plan))

    tiny.call(model, tiny.inputs(size=size, batch=1))

    height, width = size
    apart = Hints(apart=True)
    expected = retom.ReToM().plan(tokens[0], retom.Grid(height, width), apart)
    swapped = retom.ReToM().plan(tokens[0], retom.Grid(width, height), apart)
    assert torch.equal(plans[0].keys.slot, expected.keys.slot)
    assert not torch.equal(plans[0].keys.slot, swapped.keys.slot)


def test_size_changes_between_calls():
    model = tiny.sd15_unet()
    retom.apply(model, levels="all")
    small, large = tiny.inputs(size=(8, 12)), tiny.inputs(size=(17, 13))
    first = tiny.call(model, small)
    tiny.call(model, large)
    assert torch.equal(tiny.call(model, small), first)


def test_picture_of_520_by_392_pixels():
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, levels="all")
    with tiny.tokens_seen(pipe.unet) as seen:
        result = pipe(
            "a", height=520, width=392, num_inference_steps=1, generator=torch.Generator()
        )
    assert result.images[0].size == (392, 520)
    # 65x49 tokens less half of them
    assert seen["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] == [3185 - 1592]


@pytest.mark.parametrize("size", [(17, 13), (16, 16), (9, 30)], ids=str)
def test_a_model_that_pads_one_side_rounds_down_and_so_does_the_prediction(size):
    model = tiny.sd15_unet(downsample_padding=0)
    handle = retom.apply(model, ratio=0.25, levels="all")
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs(size=size, batch=1))
    for row in handle.summary().levels:
        assert (row.grid.height, row.grid.width) == tuple(side // 2**row.level for side in size)
    for name, counts in seen.items():
        tokens = math.prod(side // 2 ** tiny.depth_of(name) for side in size)
        assert counts == [tokens - math.floor(0.25 * tokens)], name


def test_a_mask_fits_the_grids_of_a_model_that_pads_one_side():
    model = tiny.sd15_unet(downsample_padding=0)
    handle = retom.apply(model, ratio=0.25, levels="all")
    mask = torch.zeros(17, 13)
    mask[-1, -1] = 1
    handle.protect(mask)
    assert tiny.call(model, tiny.inputs(size=(17, 13), batch=1)).isfinite().all()


def test_a_stage_that_halves_by_average_pooling_rounds_down():
    model = tiny.unet(
        attention=(True, True),
        down_block_types=("ResnetDownsampleBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    handle = retom.apply(model, ratio=0.25)
    tiny.call(model, tiny.inputs(size=(18, 14), batch=1))
    assert [str(row.grid) for row in handle.summary().levels] == ["9x7"]


def test_a_stage_that_halves_in_an_unknown_way_is_refused():
    model = tiny.sd15_unet()
    model.down_blocks[0].downsamplers[0] = torch.nn.AvgPool2d(2)
    with pytest.raises(
        retom.UnsupportedModelError, match=r"Stage 0 .* smaller by AvgPool2d; retom"
    ):
        retom.apply(model)
