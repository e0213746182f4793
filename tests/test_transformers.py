"""What holds for transformers beyond their rows: scopes, grids, sharing, refusals, own blocks."""

import copy

import pytest
import tiny_transformers as tiny
import torch
from tiny_transformers import FAMILIES
from torch import nn

import retom
from retom.models import layout_of
from retom.testing import check_block_spec


def run(model, arguments):
    with torch.no_grad():
        return model(**arguments, return_dict=False)[0]


@pytest.mark.parametrize("name", ["flux", "sd3", "z-image"])
@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "kv"])
def test_scopes_inside_joint_blocks_are_refused(name, scope):
    model = FAMILIES[name].build()
    with pytest.raises(retom.ConfigError, match=r"merges in scope block; scope='(attention|kv)"):
        retom.apply(model, scope=scope)
    handle = retom.apply(model)
    with pytest.raises(retom.ConfigError, match="Leave scope at 'auto'"):
        handle.update(scope=scope)
    assert handle.config.scope == "block"


@pytest.mark.parametrize("name", ["pixart", "pixart masked", "dit"])
@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "kv", "block"])
def test_blocks_of_pixart_and_dit_merge_in_every_scope(name, scope):
    family = FAMILIES[name]
    model, arguments = family.build(), family.call(8, 6, 2)
    seen = {}

    def record(name):
        return lambda _, args: seen.update({name: args[0].shape[1]})

    for name, module in model.named_modules():
        if name.endswith(("attn1.to_q", "attn1.to_k", "ff.net.0")):
            module.register_forward_pre_hook(record(name.split(".", 2)[2]))
    plain = run(model, arguments)
    full = dict(seen)
    handle = retom.apply(model, scope=scope, ratio=0.5, kv_lean=0)
    assert not torch.equal(run(model, arguments), plain)
    merged = {
        "attention": {"attn1.to_q", "attn1.to_k"},
        "attention+mlp": {"attn1.to_q", "attn1.to_k", "ff.net.0"},
        "kv": {"attn1.to_k"},
        "block": {"attn1.to_q", "attn1.to_k", "ff.net.0"},
    }[scope]
    for layer, tokens in full.items():
        assert seen[layer] == (tokens // 2 if layer in merged else tokens), layer
    handle.remove()
    assert torch.equal(run(model, arguments), plain)


def test_sana_merges_around_its_linear_attention_alone():
    model, arguments = tiny.sana(), tiny.sana_call(8, 6, 2)
    plain = run(model, arguments)
    with pytest.raises(retom.ConfigError, match="merges in scope attention; scope='block'"):
        retom.apply(model, scope="block")
    handle = retom.apply(model, ratio=0.5)
    merged = run(model, arguments)
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)
    summary = handle.summary()
    assert (handle.config.scope, summary.levels[0].kept) == ("attention", 24)
    assert 0.3 < summary.flops_saved <= 0.5


def test_a_batch_shares_one_plan_where_it_shares_rotary_tables():
    """The plan of two equal pictures is each one's own; of two different ones, neither's."""
    family = FAMILIES["flux"]
    model = family.build()
    one, two = family.call(8, 6, 1), family.call(8, 6, 2)
    both = {
        k: v[:1].repeat(2, *[1] * (v.ndim - 1)) if v.shape[0] == 2 else v for k, v in two.items()
    }
    one = {k: v[:1] if v.shape[0] == 2 else one[k] for k, v in two.items()}
    with retom.applied(model) as handle:
        alone = run(model, one)
        torch.testing.assert_close(run(model, both), alone.expand(2, -1, -1), rtol=1e-4, atol=1e-5)
        assert (run(model, two)[:1] - alone).abs().max() > 1e-4
        assert "share one plan" in str(handle.summary())


def test_pictures_of_a_batch_are_planned_apart_where_they_can_be():
    family = FAMILIES["sd3"]
    model = family.build()
    two = family.call(8, 6, 2)
    one = {k: v[:1] for k, v in two.items()}
    with retom.applied(model):
        torch.testing.assert_close(run(model, two)[:1], run(model, one), rtol=1e-4, atol=1e-5)


def test_ids_are_read_once_for_each_tensor(monkeypatch):
    from retom.models.grids import Ids

    reads = []
    original = Ids.__call__
    monkeypatch.setattr(Ids, "__call__", lambda *a: reads.append(1) or original(*a))
    family = FAMILIES["flux"]
    model, arguments = family.build(), family.call(8, 6, 1)
    with retom.applied(model) as handle:
        for _ in range(3):
            run(model, arguments)
        assert len(reads) == 1
        run(model, {**arguments, "img_ids": tiny.ids(6, 8)})
        assert len(reads) == 2
        assert str(handle.summary().levels[0].grid) == "6x8"


def test_a_grid_that_is_named_is_not_read():
    family = FAMILIES["flux"]
    model, arguments = family.build(), family.call(8, 6, 1)
    shuffled = {**arguments, "img_ids": arguments["img_ids"].flip(0)}
    handle = retom.apply(model)
    with pytest.raises(retom.ShapeError, match=r"handle.set_grid\(height, width\)"):
        run(model, shuffled)
    handle.set_grid(8, 6)
    assert run(model, shuffled).isfinite().all()
    with pytest.raises(retom.ConfigError, match="two whole numbers of at least 1"):
        handle.set_grid(8)
    handle.set_grid(80, 60)
    with pytest.raises(retom.ShapeError, match="80x60 has more tokens than the 48"):
        run(model, shuffled)
    handle.set_grid(None)
    assert run(model, arguments).isfinite().all()


def test_a_grid_cannot_be_named_where_sizes_tell_it():
    handle = retom.apply(FAMILIES["sd3"].build())
    with pytest.raises(retom.ConfigError, match="tells its grid by the sizes"):
        handle.set_grid(8, 8)


def test_protected_tokens_stay_whole():
    """With all but a corner protected, nothing outside of that corner's windows changes plan."""
    family = FAMILIES["sd3"]
    model, arguments = family.build(), family.call(8, 8, 1)
    handle = retom.apply(model, ratio=0.1)
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[:4, :4] = False
    handle.protect(mask)
    seen = []
    original = retom.Plan.merge

    def note(plan, x):
        seen.append(plan)
        return original(plan, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retom.Plan, "merge", note)
        run(model, arguments)
    gone = set(range(64)) - set(seen[0].kept[0].tolist())
    assert len(gone) == 6
    assert all(token // 8 < 4 and token % 8 < 4 for token in gone)


REFUSED = {
    "flux 2 cache": (
        "flux2",
        lambda a: {"kv_cache_mode": "extract", "num_ref_tokens": 12},
        retom.ConfigError,
        "cache of reference tokens.*without a KV cache",
    ),
    "videos": (
        "kandinsky5",
        lambda a: {
            "hidden_states": tiny.draw(2, 2, 16, 12, 4),
            "visual_rope_pos": [torch.arange(2), torch.arange(8), torch.arange(6)],
        },
        retom.ShapeError,
        "given 2 frames. retom merges in pictures",
    ),
    "sizes that differ": (
        "z-image",
        lambda a: {"x": [tiny.draw(4, 1, 16, 12), tiny.draw(4, 1, 12, 16)]},
        retom.ShapeError,
        "different sizes.*one at a time",
    ),
    "shapes that differ": (
        "qwen",
        lambda a: {"img_shapes": [[(1, 8, 6)], [(1, 6, 8)]]},
        retom.ShapeError,
        "one picture size and one frame.*one at a time",
    ),
    "frames beside references": (
        "joyimage",
        lambda a: {"hidden_states": tiny.draw(2, 2, 4, 2, 16, 12)},
        retom.ShapeError,
        "given 2 frames. retom merges in pictures",
    ),
    "prompts summed up in different numbers of tokens": (
        "bria fibo 2",
        lambda a: {
            "encoder_hidden_states": tiny.draw(2, 2, 16, tiny.WIDTH),
            "encoder_attention_mask": torch.arange(16) < torch.tensor([[16], [4]]),
        },
        retom.ConfigError,
        "different numbers of tokens.*one at a time",
    ),
    "positions that are no grid": (
        "ideogram4",
        lambda a: {"position_ids": a["position_ids"].flip(1)},
        retom.ShapeError,
        r"position_ids does not end with a whole grid.*handle.set_grid",
    ),
    "positions that differ": (
        "ideogram4",
        lambda a: {"position_ids": a["position_ids"] + torch.tensor([[[0]], [[1]]])},
        retom.ShapeError,
        "other positions in one picture of the batch than in another.*one at a time",
    ),
    "ratio out of reach": (
        "sd3",
        lambda a: {"hidden_states": tiny.draw(2, 4, 2, 24)},
        retom.BudgetError,
        "of the 12 tokens of a 1x12 grid",
    ),
}


@pytest.mark.parametrize(("name", "change", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_calls_in_which_merging_would_be_wrong_are_refused(name, change, error, message):
    family = FAMILIES[name]
    model, arguments = family.build(), family.call(8, 6, 2)
    handle = retom.apply(model, ratio=0.7, window=(2, 2))
    with pytest.raises(error, match=message):
        run(model, {**arguments, **change(arguments)})
    run(model, arguments)  # and the next call merges as ever
    assert handle.summary().levels[0].kept == 48 - 33


def test_a_cache_of_text_keys_holds_what_it_holds_un_merged():
    """Qwen-Image 2.1 keeps keys of text and references from the first step: none of them merge."""
    tiny.needs_new("Qwen-Image 2.1") if tiny.IS_OLD else None
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache

    model, arguments = tiny.qwen21(), tiny.qwen21_call(8, 6, 2)

    def steps():
        cache = QwenImage21KVCache(2)
        outputs = [
            run(model, {**arguments, "kv_cache": cache, "kv_cache_mode": mode})[:, -48:]
            for mode in ("extract", "cached")
        ]
        return outputs, [tensor for n in range(2) for tensor in cache.get_layer(n).get()]

    plain, kept = steps()
    torch.testing.assert_close(*plain, rtol=1e-4, atol=1e-5)
    with retom.applied(model, ratio=0.5) as handle:
        merged, held = steps()
        assert handle.summary().levels[0].kept == 24
    torch.testing.assert_close(*merged, rtol=1e-4, atol=1e-5)
    assert (merged[0] - plain[0]).abs().max() > 1e-4
    for tensor, before in zip(held, kept, strict=True):
        torch.testing.assert_close(tensor, before, rtol=1e-4, atol=1e-5)


def test_a_mask_of_flex_attention_is_refused():
    tiny.needs_new("Qwen-Image 2.1") if tiny.IS_OLD else None
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21FlexAttnProcessor

    model, arguments = tiny.qwen21(), tiny.qwen21_call(8, 6, 1)
    for block in model.transformer_blocks:
        block.attn.set_processor(QwenImage21FlexAttnProcessor())
    retom.apply(model)
    with pytest.raises(retom.ConfigError, match="Use QwenImage21AttnProcessor, the default"):
        run(model, arguments)


def test_a_split_sequence_is_refused():
    model = FAMILIES["flux"].build()
    model._parallel_config = type("Parallel", (), {"context_parallel_config": object()})()
    with pytest.raises(retom.UnsupportedModelError, match="Context parallelism splits the tokens"):
        retom.apply(model)


def test_a_model_that_draws_several_layers_at_once_is_refused():
    """Qwen-Image-Layered: its tokens are those of several pictures."""
    tiny.needs_new("use_layer3d_rope") if tiny.IS_OLD else None
    model = tiny.qwen(use_layer3d_rope=True)
    with pytest.raises(retom.UnsupportedModelError, match=r"Qwen-Image-Layered.*the first alone"):
        retom.apply(model)
    assert retom.handle_of(model) is None


def test_a_copy_of_the_model_merges_by_itself():
    family = FAMILIES["flux"]
    model, arguments = family.build(), family.call(8, 6, 1)
    plain = run(model, arguments)
    retom.apply(model)
    merged = run(model, arguments)
    twin = copy.deepcopy(model)
    retom.handle_of(model).remove()
    assert torch.equal(run(model, arguments), plain)
    assert torch.equal(run(twin, arguments), merged)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("sd3", "applied first"),
        ("qwen", "applied first"),
        ("flux", "compiled first"),
        ("flux", "named"),
    ],
)
def test_a_compiled_transformer_is_one_graph_with_merging_and_one_without(name, how):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    family = FAMILIES[name]
    model, arguments = family.build(), family.call(8, 6, 2)
    graphs = CompileCounterWithBackend("eager")
    with retom.applied(family.build()) as other:
        expected = run(other._denoiser, arguments)
    if how == "compiled first":
        fast = torch.compile(model, backend=graphs, fullgraph=True)
        handle = retom.apply(fast)
    else:
        handle = retom.apply(model)
        if how == "named":
            handle.set_grid(8, 6)
        fast = torch.compile(model, backend=graphs, fullgraph=True)
    for _ in range(2):
        assert torch.equal(run(fast, arguments), expected)
        handle.enabled = False
        assert not torch.equal(run(fast, arguments), expected)
        handle.enabled = True
    assert graphs.frame_count == 2


# ---- a model of one's own


class MyBlock(nn.Module):
    """Text first, then the image, with learned positions of each token added in the block."""

    def __init__(self, *, residual: bool = True):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Linear(16, 16)
        self.residual = residual

    def forward(self, states, text_and_places, scale=1.0):
        text, places = text_and_places
        tokens = torch.cat([text, states], dim=1)
        query = self.norm(tokens) + places
        tokens = tokens + self.attention(query, query, query, need_weights=False)[0] * scale
        tokens = tokens + self.mlp(tokens) if self.residual else self.mlp(tokens)
        return {"unused": None}, tokens[:, text.shape[1] :]


class MyTransformer(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.enter = nn.Linear(4, 16)
        self.blocks = nn.ModuleList(MyBlock(**options) for _ in range(2))
        self.leave = nn.Linear(16, 4)

    def forward(self, picture, text):
        batch, _, height, width = picture.shape
        tokens = self.enter(picture.flatten(2).transpose(1, 2))
        places = torch.sin(torch.arange(16) * torch.arange(5 + height * width)[:, None] / 7)[None]
        for block in self.blocks:
            _, tokens = block(tokens, (text, places), scale=0.5)
        return self.leave(tokens).transpose(1, 2).reshape(batch, 4, height, width)


ROW = retom.BlockSpec(
    tokens="states", output=1, rotary=(retom.Along("text_and_places.1", axis=1, at="last"),)
)


@pytest.fixture
def register():
    def teach(spec):
        retom.register_block(
            "MyBlock",
            spec,
            denoiser="MyTransformer",
            denoiser_spec=retom.DenoiserSpec(grid=retom.FeatureMap("picture", patch=1)),
        )

    yield teach
    retom.unregister_block("MyBlock", denoiser="MyTransformer")


def my_model(**options):
    torch.manual_seed(0)
    return MyTransformer(**options).eval()


def my_arguments():
    return {"picture": tiny.draw(2, 4, 7, 5), "text": tiny.text(2)}


def test_a_block_of_one_s_own_merges_once_it_is_registered(register):
    with pytest.raises(retom.UnsupportedModelError, match="seen: MyBlock"):
        retom.apply(my_model())
    register(ROW)
    proof = check_block_spec(my_model(), my_arguments(), ratio=0.4)
    assert (proof.blocks, proof.tokens, proof.kept) == (2, 35, 21)
    assert proof.permutation_error < 1e-5
    with retom.applied(my_model(), ratio=0.4) as handle:
        assert handle.config.scope == "block"


WRONG = {
    "forgotten": ({"rotary": ()}, {}, "(?s).*"),
    "not residual": ({}, {"residual": False}, "not residual in them.*unmerged_if"),
}


@pytest.mark.parametrize(("change", "options", "message"), WRONG.values(), ids=WRONG)
def test_the_proof_of_a_wrong_row_fails(register, change, options, message):
    import dataclasses

    register(dataclasses.replace(ROW, **change))
    with pytest.raises((retom.BlockSpecError, RuntimeError), match=message):
        check_block_spec(my_model(**options), my_arguments(), ratio=0.4)


NO_ROWS = [
    ((MyBlock, retom.BlockSpec()), {}, "name is the name of the block's class; <class"),
    (("", retom.BlockSpec()), {}, "name is the name of the block's class; '' was given"),
    (("MyBlock", {"output": 1}), {}, "spec is a retom.BlockSpec; {'output': 1} was given"),
    (("MyBlock", retom.BlockSpec()), {"denoiser": MyTransformer}, "denoiser is the name of"),
    (
        ("MyBlock", retom.BlockSpec()),
        {"denoiser": "MyTransformer", "denoiser_spec": retom.FeatureMap("picture")},
        "denoiser_spec is a retom.DenoiserSpec; FeatureMap",
    ),
    (("MyBlock", retom.BlockSpec()), {"denoiser_spec": retom.DenoiserSpec()}, "pass the name of"),
]


@pytest.mark.parametrize(("row", "options", "message"), NO_ROWS)
def test_what_is_no_row_is_refused(row, options, message):
    with pytest.raises(retom.ConfigError, match=message):
        retom.register_block(*row, **options)
    with pytest.raises(retom.UnsupportedModelError, match="seen: MyBlock"):
        retom.apply(my_model())


def test_a_row_is_not_replaced_by_accident():
    with pytest.raises(retom.ConfigError, match="a row of FluxTransformerBlock already"):
        retom.register_block("FluxTransformerBlock", retom.BlockSpec())
    with pytest.raises(retom.ConfigError, match="There is no row of Nobody"):
        retom.unregister_block("Nobody")


@pytest.mark.parametrize(("guided", "noisy"), [(False, 1000), (True, 1)])
def test_sana_sprint_is_told_the_noise_from_0_to_1(guided, noisy):
    model = tiny.sana()
    model.register_to_config(guidance_embeds=guided)
    assert layout_of(model).timestep.noisy == noisy
