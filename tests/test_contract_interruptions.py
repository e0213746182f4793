"""After an error in the middle of a picture the next picture is as if nothing had happened."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from diffusers import StableDiffusionImg2ImgPipeline

import retom


class BrokenError(Exception):
    pass


def raise_in_attention(pipe):
    """Break inside the last merged layer: plans are made, and the layer's own is in flight."""
    layer = pipe.unet.up_blocks[-1].attentions[-1].transformer_blocks[-1].attn1.to_q
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 2:
            raise BrokenError

    hook = layer.register_forward_pre_hook(fail)
    try:
        tiny.latents(pipe, num_inference_steps=3)
    finally:
        hook.remove()
        assert len(calls) == 2


def raise_in_callback(pipe):
    def fail(*_):
        raise BrokenError

    tiny.latents(pipe, num_inference_steps=3, callback_on_step_end=fail)


@pytest.mark.parametrize("interrupt", [raise_in_attention, raise_in_callback])
def test_picture_after_an_error_is_that_of_a_fresh_handle(interrupt):
    pipe, fresh = tiny.sd_pipeline(), tiny.sd_pipeline()
    handle = retom.apply(pipe, levels="all")
    retom.apply(fresh, levels="all")

    with pytest.raises(BrokenError):
        interrupt(pipe)

    assert tiny.is_idle(handle)
    assert torch.equal(tiny.latents(pipe), tiny.latents(fresh))


def test_call_after_an_interrupt_from_the_keyboard_is_that_of_a_fresh_handle():
    """torch runs no ``always_call`` hook then; the next call starts by forgetting."""
    model, fresh = tiny.sd15_unet(), tiny.sd15_unet()
    handle = retom.apply(model, levels="all")
    retom.apply(fresh, levels="all")

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.mid_block.attentions[0].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.call(model, tiny.inputs())
    hook.remove()

    arguments = tiny.inputs(size=(9, 12))
    assert torch.equal(tiny.call(model, arguments), tiny.call(fresh, arguments))
    assert tiny.is_idle(handle)


def test_removal_after_an_interrupt_is_bit_exact():
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model, levels="all")

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.mid_block.attentions[0].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.call(model, arguments)
    hook.remove()
    handle.remove()
    assert torch.equal(tiny.call(model, arguments), unmerged)


# Every window keeps a token: 3x5 tokens lie in 2x3 windows of 2x2, so 9 of the 15 can go at most.
TOO_SMALL = {
    "first level": ((3, 5), {"levels": (0,)}, r"remove 10 of the 15 tokens of a 3x5 grid"),
    "deepest level alone": ((9, 9), {"levels": (2,)}, r"remove 6 of the 9 tokens of a 3x3 grid"),
    "some level of all": ((12, 12), {"levels": "all"}, r"remove 6 of the 9 tokens of a 3x3 grid"),
}


@pytest.mark.parametrize(("size", "options", "message"), TOO_SMALL.values(), ids=TOO_SMALL)
def test_ratio_out_of_reach_is_refused_before_the_first_layer_runs(size, options, message):
    model, fresh = tiny.sd15_unet(), tiny.sd15_unet()
    handle = retom.apply(model, ratio=0.7, window=(2, 2), **options)
    retom.apply(fresh, ratio=0.7, window=(2, 2), **options)
    layers = []
    hook = model.conv_in.register_forward_pre_hook(lambda *_: layers.append(1))

    with pytest.raises(retom.BudgetError, match=message) as caught:
        tiny.call(model, tiny.inputs(size=size))

    assert layers == []
    assert "Lower the ratio or use a larger window, for example window=(4, 4)" in str(caught.value)
    assert tiny.is_idle(handle)
    hook.remove()
    assert torch.equal(tiny.call(model, tiny.inputs()), tiny.call(fresh, tiny.inputs()))


def test_levels_that_do_not_merge_have_no_budget():
    model = tiny.sd15_unet()
    retom.apply(model, ratio=0.7, window=(2, 2))
    assert tiny.call(model, tiny.inputs(size=(12, 12))).isfinite().all()


def test_summary_after_a_refused_size_speaks_of_the_last_call_that_merged():
    model = tiny.sd15_unet()
    handle = retom.apply(model, ratio=0.7, window=(2, 2), levels=(0,))
    tiny.call(model, tiny.inputs(size=(12, 12)))
    before = handle.summary()
    with pytest.raises(retom.BudgetError):
        tiny.call(model, tiny.inputs(size=(3, 5)))
    assert handle.summary() == before


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["between steps", "in a layer"])
@pytest.mark.parametrize(
    "options",
    [
        {"refresh": (1.0,)},
        {"refresh": 3},
        {"alternate": True},
        {"method": retom.methods.ImportanceToMe(ratio=0.5)},
    ],
    ids=["one plan", "every third", "alternate", "importance"],
)
def test_a_picture_that_starts_lower_after_one_broken_off_has_nothing_of_it(options, where, error):
    """Timesteps go on falling from one picture to the next."""
    pipe = tiny.sd_pipeline(StableDiffusionImg2ImgPipeline)
    fresh = tiny.sd_pipeline(StableDiffusionImg2ImgPipeline)
    retom.apply(pipe, **options)
    retom.apply(fresh, **options)
    picture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 3:
            raise error

    broken = {"image": picture, "strength": 1.0, "num_inference_steps": 10}
    if where == "between steps":
        broken["callback_on_step_end"] = lambda _pipe, _step, _t, kwargs: fail() or kwargs
    else:
        hook = pipe.unet.mid_block.register_forward_hook(fail)
    with pytest.raises(error):
        tiny.latents(pipe, **broken)
    if where == "in a layer":
        hook.remove()
    lower = {"image": picture, "strength": 0.4, "num_inference_steps": 10, "seed": 2}
    assert torch.equal(tiny.latents(pipe, **lower), tiny.latents(fresh, **lower))


@pytest.mark.parametrize("stop", ["enabled", "reset"])
def test_after_an_interrupt_switching_off_or_a_reset_leaves_blocks_alone(stop):
    model = tiny.sd15_unet()
    block = model.get_submodule(tiny.FIRST)
    tokens, text = torch.randn(1, 256, block.norm1.normalized_shape[0]), tiny.inputs()
    text = text["encoder_hidden_states"][:1]
    unmerged = block(tokens, encoder_hidden_states=text)
    handle = retom.apply(model)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.mid_block.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.call(model, tiny.inputs())
    hook.remove()
    if stop == "enabled":
        handle.enabled = False
    else:
        handle.reset()
    assert torch.equal(block(tokens, encoder_hidden_states=text), unmerged)


def test_a_call_while_another_thread_is_in_one_is_refused_and_leaves_that_one_alone():
    model, fresh = tiny.sd15_unet(), tiny.sd15_unet()
    arguments = tiny.inputs()
    handle = retom.apply(model)
    retom.apply(fresh)
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        assert go_on.wait(timeout=60)

    hook = model.mid_block.register_forward_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(tiny.call, model, arguments)
        assert inside.wait(timeout=60)
        hook.remove()
        with pytest.raises(retom.ConfigError, match="running in another thread"):
            tiny.call(model, arguments)
        go_on.set()
        assert torch.equal(first.result(), tiny.call(fresh, arguments))
    assert torch.equal(tiny.call(model, arguments), tiny.call(fresh, arguments))
    assert tiny.is_idle(handle)
