"""Equal tokens give equal plans and pictures, whatever else is or was drawn."""

import pytest
import tiny
import torch

import retom
from retom.hints import Hints

# A convolution or matmul of another batch size may add up in another order: float32 rounding of
# outputs of about 0.4 through some thirty layers.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


class Spy:
    """The tokens that the first layer of level 0 got, before merging, and its plan of a call."""

    def __init__(self, model):
        layer = model.down_blocks[0].attentions[0].transformer_blocks[0].attn1
        layer.register_forward_pre_hook(lambda _module, args: setattr(self, "tokens", args[0]))
        self.handle = retom.apply(model)
        layer.to_q.register_forward_pre_hook(self._note_plan)

    def _note_plan(self, *_):
        self.plan = self.handle._state.in_flight.plan


def alike(*, batch):
    """Arguments whose items are all equal."""
    arguments = tiny.inputs(batch=1)
    for name in ("sample", "encoder_hidden_states"):
        arguments[name] = torch.cat([arguments[name]] * batch)
    return arguments


def item_of(arguments, item):
    """One item of a batch, as a batch."""
    batched = {"sample", "encoder_hidden_states"}
    return {k: v[item : item + 1] if k in batched else v for k, v in arguments.items()}


def test_same_call_twice_is_bit_equal(family):
    model = family.build()
    retom.apply(model, levels="all")
    arguments = tiny.inputs(family.name)
    assert torch.equal(tiny.call(model, arguments), tiny.call(model, arguments))


@pytest.mark.parametrize(
    "arguments", [alike(batch=4), tiny.inputs(batch=3)], ids=["alike", "mixed"]
)
def test_plan_of_an_item_depends_on_its_own_tokens_alone(arguments):
    model = tiny.sd15_unet()
    spy = Spy(model)
    outputs = tiny.call(model, arguments)
    tokens, plan = spy.tokens, spy.plan

    for item in range(len(tokens)):
        own = retom.ReToM().plan(tokens[item : item + 1], retom.Grid(16, 16), Hints(apart=True))
        for together, single in ((plan.queries, own.queries), (plan.keys, own.keys)):
            assert torch.equal(together.kept[item], single.kept[0])
            assert torch.equal(together.slot[item], single.slot[0])
        alone = tiny.call(model, item_of(arguments, item))
        torch.testing.assert_close(alone[0], outputs[item], **ROUNDING)


def test_items_that_differ_get_plans_that_differ():
    model = tiny.sd15_unet()
    spy = Spy(model)
    tiny.call(model, tiny.inputs(batch=2))
    for plan in (spy.plan.queries, spy.plan.keys):
        assert not torch.equal(plan.slot[0], plan.slot[1])


@pytest.mark.parametrize("build", [tiny.sd_pipeline, tiny.sdxl_pipeline])
def test_same_seed_gives_the_same_picture(build):
    pipe = build()
    retom.apply(pipe, levels="all")
    first = tiny.latents(pipe)
    assert torch.equal(tiny.latents(pipe), first)
    assert not torch.equal(tiny.latents(pipe, seed=1), first)


def test_picture_does_not_depend_on_those_before_it():
    pipe, fresh = tiny.sd_pipeline(), tiny.sd_pipeline()
    for each in (pipe, fresh):
        retom.apply(each, levels="all")
    tiny.latents(pipe, "something else", seed=5, height=136, width=72, num_images_per_prompt=2)
    assert torch.equal(tiny.latents(pipe), tiny.latents(fresh))


def test_picture_does_not_depend_on_the_global_random_state():
    pipe = tiny.sd_pipeline()
    retom.apply(pipe)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = tiny.latents(pipe)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(tiny.latents(pipe), first)


def test_picture_of_a_prompt_is_the_same_in_a_batch_of_prompts():
    pipe = tiny.sd_pipeline()
    retom.apply(pipe)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    both = pipe(
        ["a cat", "a dog"], num_inference_steps=2, generator=generators, output_type="latent"
    ).images
    torch.testing.assert_close(both[:1], tiny.latents(pipe, "a cat", seed=0), **ROUNDING)
    torch.testing.assert_close(both[1:], tiny.latents(pipe, "a dog", seed=1), **ROUNDING)
