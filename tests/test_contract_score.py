"""What plans compare: the merged layer's input, the block's, or keys; on real layers."""

import pytest
import tiny
import torch

import retom
from retom import Config, ConfigError, Grid, ReToM
from retom.hints import Hints

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
OTHER = "up_blocks.2.attentions.0.transformer_blocks.0"


class Spy:
    """What a block and its self-attention got in the last call, and the plan they used."""

    def __init__(self, model, name=BLOCK):
        self.block = model.get_submodule(name)
        self.block.register_forward_pre_hook(self._note_block, with_kwargs=True)
        self.block.attn1.register_forward_pre_hook(self._note_input)
        self.handle = None

    def watch(self, handle):
        self.handle = handle
        self.block.attn1.to_q.register_forward_pre_hook(self._note_plan)

    def _note_block(self, _module, args, kwargs):
        self.raw = args[0] if args else kwargs["hidden_states"]

    def _note_input(self, _module, args):
        self.input = args[0]

    def _note_plan(self, *_):
        self.plan = self.handle._state.in_flight.plan

    def compared(self, score):
        choices = {"input": self.input, "block": self.raw}
        with torch.no_grad():
            return self.block.attn1.to_k(self.input) if score == "keys" else choices[score]


@pytest.mark.parametrize("share", ["level", "layer"])
@pytest.mark.parametrize("score", ["input", "block", "keys"])
def test_plans_are_made_from_what_was_asked(score, share):
    model = tiny.sd15_unet()
    spies = [Spy(model, name) for name in (BLOCK, OTHER)]
    handle = retom.apply(model, score=score, share=share)
    for spy in spies:
        spy.watch(handle)
    tiny.call(model, tiny.inputs())
    expected = [ReToM().plan(spy.compared(score), Grid(16, 16), Hints(apart=True)) for spy in spies]
    assert torch.equal(spies[0].plan.keys.slot, expected[0].keys.slot)
    other = expected[1] if share == "layer" else expected[0]
    assert torch.equal(spies[1].plan.keys.slot, other.keys.slot)
    assert tiny.is_idle(handle)


def test_scores_differ_and_the_default_is_the_input():
    outputs = {}
    for score in ("input", "block", "keys"):
        model = tiny.sd15_unet()
        retom.apply(model, score=score)
        outputs[score] = tiny.call(model, tiny.inputs())
    assert not torch.equal(outputs["input"], outputs["block"])
    assert not torch.equal(outputs["input"], outputs["keys"])
    model = tiny.sd15_unet()
    retom.apply(model)
    assert torch.equal(tiny.call(model, tiny.inputs()), outputs["input"])


@pytest.mark.parametrize(
    ("scope", "score"),
    [("attention+mlp", "keys"), ("attention+mlp", "block"), ("kv", "keys"), ("kv", "block")],
)
def test_every_scope_draws_with_every_score(scope, score):
    model = tiny.sd15_unet()
    unmerged = tiny.call(model, tiny.inputs())
    retom.apply(model, scope=scope, score=score, refresh=2)
    merged = tiny.call(model, tiny.inputs())
    assert 1e-4 < (merged - unmerged).abs().mean() < 0.1


def test_scope_block_compares_the_block_input_anyway():
    outputs = []
    for score in ("input", "block"):
        model = tiny.sd15_unet()
        retom.apply(model, scope="block", score=score)
        outputs.append(tiny.call(model, tiny.inputs()))
    assert torch.equal(*outputs)


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="score is one of input, block, keys; 'query' was given"):
        Config(score="query")
    with pytest.raises(ConfigError, match="which scope='block' merges before"):
        Config(score="keys", scope="block")
