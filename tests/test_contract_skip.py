"""``skip="unprofitable"``: merging is left off where it was timed and does not pay.

Most tests replace the clock by one that counts work, so that they decide alike on any machine: a
self-attention takes a second for each key, and a plan takes ``PLAN.seconds``. Un-merged that is 256
on level 0 of the tiny UNet, merged 77.
"""

import copy
import pickle
import time

import pytest
import tiny
import tiny_transformers
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

import retom
from retom import Config, ConfigError, ReToM, Rule, viz

LAYERS = 3
"""On level 0 of the tiny UNet, all of one kind."""


class Work:
    """Seconds of work done."""

    now = 0.0
    of_a_plan = 0.0


def clock():
    return Work.now


class Working(AttnProcessor2_0):
    """Self-attention whose work is its number of keys."""

    of_a_key = 1.0

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        Work.now += self.of_a_key * keys.shape[1]
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


class Light(Working):
    """So little work that planning alone is more."""

    of_a_key = 0.001


class Lazy(AttnProcessor2_0):
    """Self-attention that takes long, in real time, unless half of its tokens are gone."""

    def __call__(self, attn, hidden_states, *args, **kwargs):
        if hidden_states.shape[1] == 256:
            time.sleep(0.2)
        return super().__call__(attn, hidden_states, *args, **kwargs)


@pytest.fixture(autouse=True)
def _plans_take_work(monkeypatch):
    original = retom.ReToM.plan

    def plan(self, x, grid, hints):
        Work.now += Work.of_a_plan
        return original(self, x, grid, hints)

    monkeypatch.setattr(retom.ReToM, "plan", plan)
    monkeypatch.setattr(Work, "of_a_plan", 1.0)


def selves(model):
    """The self-attention layers by name."""
    return {name: m for name, m in model.named_modules() if name.endswith("attn1")}


def working(processor=Working, **options):
    model = tiny.sd15_unet(**options)
    for layer in selves(model).values():
        layer.set_processor(processor())
    return model


def skipping(model, **options):
    handle = retom.apply(model, skip="unprofitable", **options)
    handle._state.profit.clock = clock
    return handle


def never_pays(monkeypatch):
    monkeypatch.setattr(Work, "of_a_plan", 1000.0)


def calls_of(model, arguments=None):
    """How often the first self-attention runs in one call of the denoiser."""
    seen = []
    layer = selves(model)[f"{tiny.FIRST}.attn1"]
    hook = layer.to_q.register_forward_pre_hook(lambda *_: seen.append(1))
    tiny.call(model, arguments or tiny.inputs())
    hook.remove()
    return len(seen)


# ---- what is decided


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_where_merging_costs_more_the_output_is_bit_exact_un_merged(scope, monkeypatch):
    never_pays(monkeypatch)
    model, arguments = working(), tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = skipping(model, scope=scope, levels="all")
    for _ in range(2):
        assert torch.equal(tiny.call(model, arguments), unmerged)
        assert tiny.is_idle(handle)
    summary = handle.summary()
    assert len(summary.skipped) == len(selves(model))
    assert summary.skipped_sites == tuple(d.site for d in summary.skipped)
    assert [row.kept == row.tokens for row in summary.levels] == [True] * 3
    assert summary.flops_saved == 0
    assert "not merged" in str(summary)
    handle.remove()
    assert torch.equal(tiny.call(model, arguments), unmerged)


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
@pytest.mark.parametrize("options", [{}, {"share": "level"}, {"score": "block"}, {"refresh": 2}])
def test_where_merging_pays_the_output_is_that_of_merging(scope, options):
    if scope == "block":
        options = {key: value for key, value in options.items() if key != "score"}
    model, plain, arguments = working(), working(), tiny.inputs()
    handle = skipping(model, scope=scope, **options)
    expected = retom.apply(plain, scope=scope, **options)
    for timestep in (900, 800, 700):
        now = {**arguments, "timestep": torch.tensor(timestep)}
        assert torch.equal(tiny.call(model, now), tiny.call(plain, now))
    summary = handle.summary()
    assert summary.skipped == ()
    assert len(summary.decisions) == LAYERS
    assert summary.flops_saved == expected.summary().flops_saved > 0
    assert f"{LAYERS} layers merge: timed, " in str(summary)


def test_a_small_grid_does_not_pay_by_the_real_clock():
    """An 8x8 grid: planning alone is many times the layer."""
    model, arguments = tiny.sd15_unet(), tiny.inputs(size=(8, 8))
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model, skip="unprofitable")
    assert torch.equal(tiny.call(model, arguments), unmerged)
    (decision, *_) = handle.summary().skipped
    assert (str(decision.grid), decision.batch, decision.ratio) == ("8x8", 2, 0.5)
    assert (decision.dtype, decision.device) == ("float32", "cpu")
    assert decision.speedup < 0.8
    assert decision.merged_ms > decision.unmerged_ms > 0
    assert "3 layers run un-merged (level 0, grid 8x8, batch 2, ratio 0.5, float32 on cpu): merged"


def test_a_slow_layer_pays_by_the_real_clock():
    model = tiny.sd15_unet(attention=(True,), mid_block_type=None)
    first, *others = selves(model).values()
    first.set_processor(Lazy())
    handle = retom.apply(model, skip="unprofitable")
    tiny.call(model, tiny.inputs())
    merging = [d for d in handle.summary().decisions if not d.skipped]
    assert [d.site for d in merging] == [f"{tiny.FIRST}.attn1"]
    assert merging[0].unmerged_ms > 200
    assert len(handle.summary().skipped) == len(others)


def some_pay():
    """Of the layers of level 0 only the first takes work enough."""
    model = working(Light)
    first, *_ = selves(model).values()
    first.set_processor(Working())
    return model


def test_layers_of_a_level_are_decided_apart():
    model, arguments = some_pay(), tiny.inputs()
    handle = skipping(model)
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, arguments)
    at_level = [counts[-1] for counts in seen.values() if counts[-1] in (128, 256)]
    assert sorted(at_level) == [128, 256, 256]
    summary = handle.summary()
    (row, *_) = summary.levels
    assert (row.layers, row.skipped, row.kept) == (3, 2, 128)
    assert "2 of the 3 layers are skipped" in str(summary)
    whole = retom.apply(tiny.sd15_unet()).summary().levels[0]
    assert row.flops_saved == pytest.approx(whole.flops_saved / 3)


def test_rules_are_decided_method_by_method():
    model = working()
    costly = Rule(method=ReToM(ratio=0.01), noise=(0.0, 0.5))
    handle = skipping(model, rules=(costly,))
    Work.of_a_plan = 20.0  # more than one key in a hundred saves
    tiny.call(model, tiny.inputs(), timestep=torch.tensor(900))
    tiny.call(model, tiny.inputs(), timestep=torch.tensor(100))
    early, late = [row for row in handle.summary().levels if row.level == 0]
    assert (early.noise, early.kept) == ((0.5, 1.0), 128)
    assert (late.noise, late.kept, late.skipped) == ((0.0, 0.5), 256, 3)


# ---- what a plan costs


@pytest.mark.parametrize(
    ("options", "pays"),
    [
        ({}, False),
        ({"share": "level"}, True),
        ({"refresh": 3}, True),
        ({"refresh": (0.9, 0.5)}, False),
        ({"share": "level", "scope": "block"}, True),
    ],
    ids=str,
)
def test_a_plan_that_serves_several_is_counted_by_its_share(options, pays):
    """300 alone is more than the 179 or 128 that a layer saves; a third of it is less."""
    Work.of_a_plan = 300.0
    model = working()
    handle = skipping(model, **options)
    tiny.call(model, tiny.inputs())
    assert {d.skipped for d in handle.summary().decisions} == {not pays}


def test_only_layers_of_one_kind_share_in_the_count():
    """With one layer of another kind beside them, two carry the plan: 150 each, more than 128."""
    Work.of_a_plan = 300.0
    model = working()
    *_, last = [m for m in selves(model).values() if m.to_q.in_features == 8]

    class Other(Working):
        pass

    last.set_processor(Other())
    handle = skipping(model, share="level", kv_lean=0)
    tiny.call(model, tiny.inputs())
    assert all(d.skipped for d in handle.summary().decisions)


# ---- when it is decided


def test_a_shape_is_timed_once_and_layers_of_a_kind_together():
    model, small, large = working(), tiny.inputs(size=(8, 8)), tiny.inputs()
    handle = skipping(model)
    assert calls_of(model, large) == 2 * (5 + 2) + 1
    decisions = handle.summary().decisions
    assert len({d.unmerged_ms for d in decisions}) == 1
    assert calls_of(model, large) == 1
    assert calls_of(model, small) > 1
    assert calls_of(model, small) == 1
    assert calls_of(model, large) == 1
    assert calls_of(model, tiny.inputs(batch=1)) > 1
    assert {(str(d.grid), d.batch) for d in handle.summary().decisions} == {
        ("16x16", 2),
        ("8x8", 2),
        ("16x16", 1),
    }


def test_decisions_outlast_all_but_update_and_remove():
    model = working()
    handle = skipping(model)
    tiny.call(model, tiny.inputs())
    handle.reset()
    handle.enabled = False
    handle.enabled = True
    assert calls_of(model) == 1
    handle.update(ratio=0.5)
    assert "Nothing was timed yet" in str(handle.summary())
    assert calls_of(model) > 1
    handle.remove()
    assert handle._state.profit.by_kind == {}
    skipping(model)
    assert calls_of(model) > 1


def test_update_decides_anew(monkeypatch):
    model, arguments = working(), tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = skipping(model)
    merged = tiny.call(model, arguments)
    assert not torch.equal(merged, unmerged)
    never_pays(monkeypatch)
    assert torch.equal(tiny.call(model, arguments), merged)
    handle.update()
    assert torch.equal(tiny.call(model, arguments), unmerged)
    handle.update(skip=None)
    assert torch.equal(tiny.call(model, arguments), merged)
    assert handle.summary().decisions == ()


def test_the_first_picture_is_that_of_all_later_ones():
    pipe, plain = tiny.sd_pipeline(model=some_pay()), tiny.sd_pipeline(model=some_pay())
    handle = skipping(pipe)
    drawn = tiny.latents(pipe)
    assert torch.equal(tiny.latents(pipe), drawn)
    skip = handle.summary().skipped_sites
    assert len(skip) == 2
    retom.apply(plain, skip=skip)
    assert torch.equal(tiny.latents(plain), drawn)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_takes_decisions_along_and_decides_on_its_own_from_then_on(make):
    model = working()
    handle = skipping(model)
    merged = tiny.call(model, tiny.inputs())
    twin = make(model)
    assert calls_of(twin) == 1
    retom.handle_of(twin).update(ratio=0.25)
    tiny.call(twin, tiny.inputs())
    assert handle.summary().decisions[0].ratio == 0.5
    assert torch.equal(tiny.call(model, tiny.inputs()), merged)
    assert calls_of(model) == 1


def test_a_block_that_is_copied_alone_takes_no_others_along():
    model = working()
    skipping(model)
    block = model.get_submodule(tiny.FIRST)
    size = sum(parameter.numel() for parameter in block.parameters())
    assert len(pickle.dumps(block)) < 2 * 4 * size + 100_000 < len(pickle.dumps(model))


def test_a_copy_knows_who_shares_its_plans():
    """A plan for three layers pays, a plan for one would not."""
    Work.of_a_plan = 300.0
    twin = working()
    skipping(twin, share="level")
    twin = copy.deepcopy(twin)
    tiny.call(twin, tiny.inputs())
    assert len(retom.handle_of(twin).summary().decisions) == LAYERS
    assert retom.handle_of(twin).summary().skipped == ()


def test_two_denoisers_decide_apart(monkeypatch):
    one, other = working(), working()
    first, second = skipping(one), skipping(other)
    tiny.call(one, tiny.inputs())
    never_pays(monkeypatch)
    tiny.call(other, tiny.inputs())
    assert (len(first.summary().skipped), len(second.summary().skipped)) == (0, LAYERS)


# ---- nothing is left behind


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_an_error_while_timing_leaves_nothing(error, scope):
    model, plain, arguments = working(), working(), tiny.inputs()
    handle = skipping(model, scope=scope, share="level")
    layer = selves(model)[f"{tiny.FIRST}.attn1"]
    seen = []

    def fail(*_):
        seen.append(1)
        if len(seen) == 4:
            raise error

    hook = layer.to_out[0].register_forward_hook(fail)
    with pytest.raises(error):
        tiny.call(model, arguments)
    hook.remove()
    assert not handle._state.profit.measuring
    assert handle._state.profit.by_kind == {}
    assert handle._state.in_flight is None
    retom.apply(plain, scope=scope, share="level")
    assert torch.equal(tiny.call(model, arguments), tiny.call(plain, arguments))
    assert tiny.is_idle(handle)


def test_random_numbers_of_dropout_are_those_of_un_merged(monkeypatch):
    never_pays(monkeypatch)
    model, arguments = working().train(), tiny.inputs()
    for layer in selves(model).values():
        layer.to_out[1].p = 0.5
    torch.manual_seed(3)
    unmerged = tiny.call(model, arguments)
    skipping(model)
    torch.manual_seed(3)
    assert torch.equal(tiny.call(model, arguments), unmerged)


def gradients(model, arguments):
    model.zero_grad(set_to_none=True)
    model(**arguments).sample.square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("scope", ["attention", "block"])
def test_gradients_are_those_of_what_was_decided(checkpointing, scope):
    model, plain, arguments = some_pay().train(), some_pay().train(), tiny.inputs()
    handle = skipping(model, scope=scope)
    found = gradients(model, arguments)
    if checkpointing:
        model.enable_gradient_checkpointing()
        found = gradients(model, arguments)
    skip = handle.summary().skipped_sites
    assert len(skip) == 2
    retom.apply(plain, scope=scope, skip=skip)
    for name, expected in gradients(plain, arguments).items():
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("scope", ["attention", "block"])
def test_blocks_that_run_again_merge_as_in_their_own_call(scope):
    """Between a call, where merging pays, and its backward pass comes one where it does not."""
    Work.of_a_plan = 100.0  # un-merged keys of a 16x16 grid cost 256, of an 8x8 one 64
    model, plain, arguments = working().train(), working().train(), tiny.inputs()
    handle = skipping(model, scope=scope)
    retom.apply(plain, scope=scope)
    model.enable_gradient_checkpointing()
    loss = model(**arguments).sample.square().mean()
    small = model(**tiny.inputs(size=(8, 8)))
    assert {(str(d.grid), d.skipped) for d in handle.summary().decisions} == {
        ("16x16", False),
        ("8x8", True),
    }
    loss.backward()
    del small
    for name, gradient in gradients(plain, arguments).items():
        assert torch.equal(model.get_parameter(name).grad, gradient), name


def test_a_recording_sees_each_layer_once():
    model = some_pay()
    handle = skipping(model)
    with viz.record(handle) as recording:
        tiny.call(model, tiny.inputs())
        tiny.call(model, tiny.inputs())
    assert [(look.call, look.layer) for look in recording.looks] == [
        (0, f"{tiny.FIRST}.attn1"),
        (1, f"{tiny.FIRST}.attn1"),
    ]


# ---- names instead of a stopwatch


def test_names_fix_what_was_decided_in_a_file(tmp_path):
    model, arguments = some_pay(), tiny.inputs()
    handle = skipping(model)
    decided = tiny.call(model, arguments)
    handle.update(skip=handle.summary().skipped_sites)
    assert torch.equal(tiny.call(model, arguments), decided)
    assert "2 layers run un-merged (level 0): skip names them." in str(handle.summary())
    handle.config.save(tmp_path / "retom.json")
    other = some_pay()
    retom.apply(other, Config.load(tmp_path / "retom.json"))
    assert calls_of(other) == 1
    assert torch.equal(tiny.call(other, arguments), decided)


def test_names_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"skip names nowhere, and this model has no such block"):
        retom.apply(tiny.sd15_unet(), skip=("nowhere",))


# ---- where it cannot be timed

REFUSED = "times single layers, which a compiled graph does not have"


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("where", "fullgraph"),
    [
        ("whole", True),
        pytest.param("whole", False, marks=pytest.mark.slow),
        ("before", False),
        ("blocks", True),
        ("blocks", False),
    ],
)
def test_compiled_calls_are_refused(where, fullgraph):
    model = tiny.unet(attention=(True,), mid_block_type=None)
    if where == "before":
        fast = torch.compile(model, backend="eager", fullgraph=fullgraph)
        handle = retom.apply(fast, skip="unprofitable")
    else:
        handle = retom.apply(model, skip="unprofitable")
        fast = model
        if where == "whole":
            fast = torch.compile(model, backend="eager", fullgraph=fullgraph)
        else:
            model.compile_repeated_blocks(backend="eager", fullgraph=fullgraph)
    with pytest.raises(Exception, match=REFUSED):
        tiny.call(fast, tiny.inputs())
    assert handle.summary().decisions == ()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_names_are_compiled_into_one_graph():
    model, arguments = tiny.unet(attention=(True,), mid_block_type=None), tiny.inputs(size=(8, 8))
    name, *_ = selves(model)
    retom.apply(model, skip=(name,))
    expected = tiny.call(model, arguments)
    fast = torch.compile(model, backend="eager", fullgraph=True)
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, arguments)
    assert sorted(counts[0] for counts in seen.values()) == [32, 32, 64]
    assert torch.equal(tiny.call(fast, arguments), expected)


def test_export_is_refused():
    model = tiny.unet(attention=(True,), mid_block_type=None)
    retom.apply(model, skip="unprofitable")
    with pytest.raises(ConfigError, match=REFUSED):
        torch.export.export(model, (), kwargs=tiny.inputs())


def test_the_meta_device_is_refused():
    model = tiny.sd15_unet().to("meta")
    retom.apply(model, skip="unprofitable")
    arguments = {name: value.to("meta") for name, value in tiny.inputs().items()}
    with pytest.raises(ConfigError, match="on the meta device nothing runs"):
        tiny.call(model, arguments)


# ---- transformers


@pytest.mark.parametrize("name", ["sd3", "flux", "qwen"])
def test_blocks_of_transformers_are_skipped_too(name):
    """A few tokens of a few channels: planning alone takes longer than a block."""
    family = tiny_transformers.FAMILIES[name]
    model, arguments = family.build(), family.call(8, 6, 1)
    with torch.no_grad():
        unmerged = model(**arguments, return_dict=False)[0]
        handle = retom.apply(model, skip="unprofitable")
        found = model(**arguments, return_dict=False)[0]
        summary = handle.summary()
        assert torch.equal(found, unmerged)
        assert {d.site for d in summary.skipped} == {d.site for d in summary.decisions}
        assert len(summary.decisions) == summary.levels[0].layers
        assert summary.flops_saved == 0
        *skip, merges = summary.skipped_sites
        handle.update(skip=tuple(skip))
        merged = model(**arguments, return_dict=False)[0]
    assert not torch.equal(merged, unmerged)
    assert handle.summary().levels[0].skipped == len(skip)
    assert merges not in handle.summary().skipped_sites
    assert 0 < handle.summary().flops_saved < 0.5
