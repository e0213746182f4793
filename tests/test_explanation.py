"""FLOPs of layers against formulas by hand and the summary's; ceilings against real calls."""

import functools
import json

import pytest
import tiny
import torch
from diffusers import FluxTransformer2DModel, PriorTransformer
from tiny_transformers import FAMILIES, Family, sana, sana_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import retom
from retom import tables
from retom.errors import BudgetError, ConfigError, UnsupportedModelError
from retom.explanation import families
from retom.explanation.inputs import make_inputs, on_meta
from retom.explanation.one_call import family_of
from retom.explanation.result import readable
from retom.explanation.subject import meta_copy
from retom.explanation.traffic import Watched
from retom.models import layout_of

SCOPES = ("attention", "attention+mlp", "block", "kv")
TEXT = 5


@pytest.fixture(autouse=True)
def plans_without_products_of_matrices(monkeypatch):
    """Explained FLOPs are those of the model, and torch would count a CPU's plans among them."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)


def two_levels():
    """One block down and two up of 16x16 tokens of 8 channels, one of 8x8 of 16 in the middle."""
    return tiny.unet(attention=(True, False))


@functools.cache
def explained(**options):
    """A 128x128 picture of :func:`two_levels`: a latent of 16x16, and 5 text tokens."""
    return asked(two_levels(), **options)


def asked(model, **options):
    options = {"height": 128, "width": 128, "text_tokens": TEXT, **options}
    return retom.explain(model, **options)


def counted(model, arguments, grid=None, **options):
    """FLOPs of a real merged call on the meta device, but for those of un-merging by slopes."""
    twin = meta_copy(model)
    with retom.applied(twin, unmerge="copy", **options) as handle:
        if grid:
            handle.set_grid(*grid)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            twin(**on_meta(arguments))
    return counter.get_total_flops()


def test_every_part_of_a_layer_by_hand():
    """Level 0: 256 tokens of 8 channels, two FLOPs a multiply-add, a GEGLU of 12 x 8²."""
    answer = explained(ratio=0.5)
    layer = next(x for x in answer.layers if x.level == 0)
    tokens, queries, keys, channels = 256, 166, 90, 8
    assert (layer.tokens, layer.kept, str(layer.grid), layer.merges) == (256, 128, "16x16", True)
    assert layer.flops.attention == 4 * tokens**2 * channels
    assert layer.flops.projections == 2 * 4 * tokens * channels**2
    assert layer.flops.mlp == 2 * tokens * 12 * channels**2
    keys_and_values = 2 * 2 * TEXT * tiny.TEXT_WIDTH * channels
    text = 2 * 2 * tokens * channels**2 + 4 * tokens * TEXT * channels
    assert layer.flops.text == text + keys_and_values
    assert layer.flops_kept.attention == 4 * queries * keys * channels
    assert layer.flops_kept.projections == 2 * 2 * (queries + keys) * channels**2
    assert layer.flops_kept.mlp == layer.flops.mlp
    assert layer.flops_kept.text == layer.flops.text
    assert [(x.merges, x.kept) for x in answer.layers if x.level == 1] == [(False, 64)]


def test_keys_and_values_alone_save_linearly():
    layer = next(x for x in explained(scope="kv").layers if x.level == 0)
    assert layer.flops_kept.attention == 4 * 256 * 128 * 8
    assert layer.flops_kept.projections == 2 * (2 * 256 + 2 * 128) * 8**2


@pytest.mark.parametrize("scope", SCOPES)
def test_layers_agree_with_the_closed_form_of_the_summary(scope):
    answer = explained(scope=scope, levels="all")
    summary = retom.apply(two_levels(), scope=scope, levels="all").summary()
    for row in summary.levels:
        layers = [x for x in answer.layers if x.level == row.level]
        assert len(layers) == row.layers
        assert {(x.tokens, x.kept) for x in layers} == {(row.tokens, row.kept)}
        saved = sum(x.flops.total - x.flops_kept.total for x in layers)
        closed = row.flops - row.flops_kept
        if scope == "block":  # the summary leaves out what depends on the text's length
            channels = {0: 8, 1: 16}[row.level]
            closed += row.layers * 4 * (row.tokens - row.kept) * TEXT * channels
        assert saved == closed


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("levels", [(0,), "all"])
def test_a_ceiling_is_that_of_a_real_call(scope, levels):
    answer = explained(ratio=0.5)
    merged = counted(two_levels(), tiny.inputs(batch=1), scope=scope, levels=levels)
    entry = answer.ceiling(scope, "all" if levels == "all" else "configured")
    assert entry.flops == merged
    assert entry.speedup == answer.flops / merged > 1


def test_the_whole_is_that_of_an_unmerged_call():
    assert explained().flops == counted(two_levels(), tiny.inputs(batch=1), ratio=0)


def test_noise_counts_in_every_ceiling_and_no_level_is_spoken_of_twice():
    always, late = (retom.explain(tiny.sd_pipeline(), noise=noise) for noise in ((0, 1), (0.2, 1)))
    for ceiling in always.ceilings:
        of_late = late.ceiling(ceiling.scope, ceiling.levels)
        if ceiling.flops is None:
            assert of_late.flops is None
            continue
        expected = 0.2 * always.flops + 0.8 * ceiling.flops
        assert of_late.flops == pytest.approx(expected), ceiling
    levels = [words.split(" (")[0] for words in late.advice if words.startswith("Level")]
    assert len(levels) == len(set(levels))
    assert "noise 0.2 to 1, 256 tokens to 128" in str(late)


def test_rules_by_noise_are_averaged():
    """Half of the noise levels run un-merged."""
    rule = retom.Rule(method=None, noise=(0.0, 0.5))
    always, half = explained(), explained(rules=(rule,))
    merged = always.ceiling("attention").flops
    assert half.ceiling("attention").flops == (merged + always.flops) / 2
    assert {(x.noise, x.merges) for x in half.layers if x.level == 0} == {
        ((0.5, 1.0), True),
        ((0.0, 0.5), False),
    }


@pytest.mark.parametrize("options", [{"refresh": 2}, {"alternate": True}, {"share": "layer"}])
def test_what_changes_places_alone_changes_no_flops(options):
    assert explained(**options).ceilings == explained().ceilings


def test_parts_add_up():
    assert sum(explained().parts.values()) == pytest.approx(1)


def test_inputs_can_be_given_for_any_size():
    inputs = tiny.inputs(batch=1, size=(17, 13))
    answer = retom.explain(two_levels(), inputs=inputs)
    assert str(answer.layers[0].grid) == "17x13"
    assert (answer.height, answer.text_tokens) == (None, None)
    json.dumps(answer.to_dict(), allow_nan=False)


def test_a_model_stays_as_it_is_and_its_own_merging_is_explained():
    model = two_levels()
    handle = retom.apply(model, ratio=0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    output = tiny.call(model, tiny.inputs())
    answer = asked(model)
    assert answer.config == handle.config
    assert next(x for x in answer.layers if x.level == 0).kept == 192
    assert retom.handle_of(model) is handle
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(tiny.call(model, tiny.inputs()), output)


def test_traffic_of_a_gather_by_hand():
    """Rows that are picked, read and written in two bytes a number, and their indices in eight."""
    tokens, kept, channels = 64, 32, 16
    grid = retom.Grid(8, 8)
    watched = Watched(retom.ReToM(ratio=0.5, merge="representative", unmerge="copy"))
    watched.plan(torch.empty(1, tokens, channels, device="meta"), grid)
    merge = 2 * channels * (kept + kept) + 8 * kept
    unmerge = 2 * channels * (kept + tokens) + 8 * tokens
    assert watched.moved(grid, "kv") == merge
    assert watched.moved(grid, "attention") == merge + unmerge
    assert watched.moved(grid, "attention+mlp") == 2 * (merge + unmerge)
    difference, sum_of_both = 2 * channels * 3 * kept, 2 * channels * 3 * tokens
    assert watched.moved(grid, "block") == merge + unmerge + difference + sum_of_both
    assert watched.planning(grid, "kv") > merge + unmerge
    by_slopes = Watched(retom.ReToM(ratio=0.5, merge="representative"))
    by_slopes.plan(torch.empty(1, tokens, channels, device="meta"), grid)
    assert by_slopes.moved(grid, "kv") == merge
    assert by_slopes.planning(grid, "kv") == watched.planning(grid, "kv")
    assert by_slopes.planning(grid, "attention") > watched.planning(grid, "attention")
    # At least the tokens themselves, what they joined, and both outputs once more.
    assert by_slopes.moved(grid, "attention") > merge + unmerge + 4 * 2 * channels * tokens


def test_whether_a_layer_pays_depends_on_the_hardware():
    free, dear = explained(balance=1e-6), explained(balance=1e9)
    assert {x.pays for x in free.layers} == {True}
    assert {x.pays for x in dear.layers} == {False}
    assert not any("cannot win" in sentence for sentence in free.advice)
    named = [s for s in dear.advice if "cannot win on hardware of 1e+09 FLOPs a byte" in s]
    assert [s.split(" tokens")[0] for s in named] == ["Level 0 (16x16", "Level 1 (8x8"]


def test_the_size_from_which_a_layer_pays_is_where_both_sides_are_equal():
    """Hardware on which the top level would need four times what it saves, to save as much."""
    first = explained().layers[0]
    saved = first.flops.total - first.flops_merged.total
    balance = 4 * saved / first.moved_bytes
    answer = explained(balance=balance)
    advised = next(s for s in answer.advice if s.startswith("Level 0"))
    size = int(advised.split("from about ")[1].split("x")[0])
    assert size > 128
    assert explained(balance=balance, height=size, width=size).layers[0].pays
    assert not explained(balance=balance, height=size - 64, width=size - 64).layers[0].pays


def test_a_layer_that_does_not_pay_names_the_scope_that_would():
    """Hardware between what a scope for attention alone needs and what whole blocks need."""
    ratios = {}
    for scope in ("kv", "block"):
        first = explained(scope=scope).layers[0]
        ratios[scope] = (first.flops.total - first.flops_merged.total) / first.moved_bytes
    assert ratios["kv"] < ratios["block"]
    balance = (ratios["kv"] + ratios["block"]) / 2
    answer = explained(scope="kv", balance=balance)
    first = answer.layers[0]
    assert first.pays is False
    assert "block" in first.pays_in
    assert "kv" not in first.pays_in
    advised = next(s for s in answer.advice if s.startswith("Level 0"))
    assert f"It would pay in scope {' or '.join(first.pays_in)}." in advised
    assert f"Hardware of {int(ratios['kv'])} FLOPs a byte or fewer gains as it is." in advised
    assert explained(scope="block", balance=balance).layers[0].pays


def test_where_nothing_else_merges_pictures_are_better_un_merged():
    model = tiny_flux()
    answer = retom.explain(model, height=256, width=256, text_tokens=TEXT, balance=1e9)
    (advised,) = (s for s in answer.advice if s.startswith("Level 0"))
    assert "draw pictures of this size un-merged on such hardware" in advised
    assert "levels=" not in advised
    assert "No other scope" not in advised
    both = explained(balance=1e9, levels="all").advice
    assert sum("Leave it out with levels=." in sentence for sentence in both) == 2
    assert sum("No other scope would pay." in sentence for sentence in both) == 2


def test_a_low_ceiling_names_what_reaches_more():
    answer = explained(scope="kv", ratio=0.1)
    assert answer.ceiling("kv").speedup < 1.1
    assert "Scope kv on the configured levels cannot make the denoiser more than" in str(answer)


def test_a_level_that_cannot_reach_the_ratio_is_named():
    """Windows of 2x2 can give up 56 of 9x9 tokens, but 16 of 5x5, where 0.69 are 17."""
    inputs = tiny.inputs(batch=1, size=(9, 9))
    answer = retom.explain(two_levels(), inputs=inputs, ratio=0.69, window=(2, 2))
    named = [s for s in answer.advice if "cannot merge at ratio 0.69" in s]
    assert [s.split(" tokens")[0] for s in named] == ["Level 1 (5x5"]
    same = [answer.ceiling("attention", levels).flops for levels in ("configured", "all")]
    assert same[0] == same[1] < answer.flops


def test_the_configured_levels_must_reach_the_ratio():
    with pytest.raises(BudgetError, match=r"ratio 0\.9 asks to remove"):
        explained(ratio=0.9, window=(2, 2))


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"levels 0, 1, largest grid first; level 7"):
        explained(levels=(7,))


def test_a_scope_that_is_refused_says_why():
    answer = explained(size_weighted=True)
    refused = answer.ceiling("block")
    assert refused.speedup is None
    assert "size_weighted" in refused.refusal
    assert answer.ceiling("attention").speedup > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 130}, r"multiples of 8 pixels.*130x128 was given"),
        ({"height": 0}, r"multiples of 8 pixels.*0x128 was given"),
        ({"height": 12.5}, r"whole numbers of pixels; 12\.5 and 128"),
        ({"text_tokens": 0}, r"text_tokens is a whole number of at least 1; 0 was given"),
        ({"balance": 0}, r"FLOPs a byte above 0; 0 was given"),
        ({"speed": 2}, r"Unknown option speed"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        explained(**options)


def test_a_model_without_a_default_size_wants_one():
    with pytest.raises(ConfigError, match="names no size of its own; give height and width"):
        retom.explain(tiny.sd15_unet(sample_size=None))


def test_a_class_that_is_not_known_wants_inputs():
    with pytest.raises(UnsupportedModelError, match=r"how Linear is called.*inputs=\{"):
        retom.explain(torch.nn.Linear(2, 2))


def test_a_configuration_that_does_not_give_a_size_wants_inputs():
    import diffusers

    model = diffusers.PixArtTransformer2DModel(
        num_layers=1, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        caption_channels=None, sample_size=16,
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match=r"caption_channels=None.*inputs="):
        retom.explain(model, height=128, width=128)


def test_a_unet_with_inputs_of_its_own_wants_them():
    model = tiny.unet(attention=(True, False), class_embed_type="timestep")
    with pytest.raises(UnsupportedModelError, match=r"class_embed_type='timestep'.*inputs=\{"):
        asked(model)
    inputs = {**tiny.inputs(batch=1), "class_labels": torch.tensor([1])}
    assert retom.explain(model, inputs=inputs).ceiling("attention").speedup > 1


def tiny_flux():
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=6,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=True,
    )


def test_a_transformer_is_counted_by_hand_and_merged_as_in_a_real_call():
    """16x16 tokens and 5 of text attend together, in 3 blocks of width 16."""
    model = tiny_flux()
    answer = retom.explain(model, height=256, width=256, text_tokens=TEXT)
    assert [x.flops.attention for x in answer.layers] == [4 * (256 + TEXT) ** 2 * 16] * 3
    joint = 2 * 4 * (256 + TEXT) * 16**2
    assert answer.layers[0].flops.projections == joint
    assert answer.layers[0].flops.mlp == 2 * 8 * (256 + TEXT) * 16**2
    # a single block has no output projection of attention alone: it is one with the MLP's
    assert answer.layers[1].flops.projections == joint * 3 // 4
    assert answer.layers[1].flops.mlp == 2 * (4 + 5) * (256 + TEXT) * 16**2
    assert (answer.unsupported, answer.scope) == ("", "block")
    assert [(x.tokens, x.kept, str(x.grid)) for x in answer.layers] == [(256, 128, "16x16")] * 3
    assert [x.flops_kept.attention for x in answer.layers] == [4 * (128 + TEXT) ** 2 * 16] * 3
    inputs = make_inputs(model, family_of(model), (32, 32), TEXT)
    merged = counted(model, inputs, grid=(16, 16))
    assert answer.ceiling("block").flops == merged
    assert answer.ceiling("block").speedup == answer.flops / merged > 1
    assert "merges in scope block" in answer.ceiling("attention").refusal


def test_a_transformer_is_explained_with_inputs_of_a_real_call():
    """Positions are read before they lose their values."""
    model = tiny_flux()
    inputs = make_inputs(model, family_of(model), (32, 32), TEXT)
    given = {k: torch.zeros_like(v, device="cpu") if v.is_meta else v for k, v in inputs.items()}
    answer = retom.explain(model, inputs=given)
    by_size = retom.explain(model, height=256, width=256, text_tokens=TEXT)
    assert answer.ceilings == by_size.ceilings
    assert answer.layers == by_size.layers


def test_what_is_said_does_not_depend_on_what_was_asked_before():
    tables._KEPT.clear()
    first, again = (retom.explain(tiny_flux(), height=256, width=256) for _ in range(2))
    assert first.layers == again.layers


def test_watching_a_method_counts_its_plan_once():
    tokens, grid = torch.empty(1, 64, 8, device="meta"), retom.Grid(8, 8)
    counts = []
    for method in (retom.methods.ToMe(), Watched(retom.methods.ToMe())):
        with FlopCounterMode(display=False) as counter:
            method.plan(tokens, grid)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def really(model, arguments):
    """FLOPs of a real call on the CPU, by torch's counter."""
    model.requires_grad_(False)  # the counter trips over learned tokens that want gradients
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**arguments)
    return counter.get_total_flops()


def flux2_alone(h, w, b):
    """Without the reference picture whose tokens follow."""
    arguments = FAMILIES["flux2"].call(h, w, b)
    states, ids = arguments["hidden_states"], arguments["img_ids"]
    return {**arguments, "hidden_states": states[:, : h * w], "img_ids": ids[: h * w]}


CALLED = {
    **{
        name: FAMILIES[name]
        for name in (
            "auraflow",
            "bria",
            "bria fibo",
            "chroma",
            "cogview3+",
            "cogview4",
            "flux",
            "glm-image",
            "hidream",
            "hunyuan-dit",
            "hunyuan-image",
            "kandinsky5",
            "krea2",
            "longcat",
            "lumina-next",
            "lumina2",
            "nucleus",
            "ovis",
            "pixart",
            "prx",
            "qwen",
            "sd3",
            "sd3.5",
            "z-image",
        )
    },
    "flux2": Family(FAMILIES["flux2"].build, flux2_alone, 4),
    "sana": Family(sana, sana_call, 2),
}
"""Families whose arguments are known, as they are called elsewhere in these tests."""


def test_every_class_whose_arguments_are_known_is_compared_with_a_real_call():
    """UNets are above."""
    built = {type(family.build()).__name__ for family in CALLED.values()}
    assert built | {"UNet2DConditionModel"} == set(families.FAMILIES)


@pytest.mark.parametrize("name", CALLED)
def test_a_family_is_counted_as_torch_counts_a_real_call(name):
    """A size in pixels alone, against arguments that were written down for other tests."""
    model = CALLED[name].build()
    row = family_of(model)
    side = row.patch * row.pixels_per_latent
    text = {} if row.text_parts else {"text_tokens": TEXT}
    answer = retom.explain(model, height=8 * side, width=6 * side, ratio=0.5, **text)
    arguments = CALLED[name].call(8, 6, 1)
    assert answer.flops == really(model, arguments)
    assert answer.unsupported == ""
    for entry in answer.ceilings:
        if entry.speedup is None:
            assert "merges in scope" in entry.refusal
            continue
        with retom.applied(model, ratio=0.5, unmerge="copy", scope=entry.scope):
            assert entry.flops == really(model, arguments)
        assert entry.speedup > 1
    assert answer.ceiling(answer.scope).speedup > 1


def test_blocks_that_run_un_merged_are_listed_as_they_are():
    """Hunyuan-DiT's with a long skip: the last two of six."""
    model = FAMILIES["hunyuan-dit"].build()
    answer = retom.explain(model, height=128, width=96)
    assert answer.text_tokens == 2 * TEXT
    merging = {x.name: x.tokens for x in answer.layers}
    assert merging == {f"blocks.{n}": 48 if n < 4 else None for n in range(6)}
    assert [x.merges for x in answer.layers] == [True] * 4 + [False] * 2
    plain, skipping = answer.layers[0], answer.layers[-1]
    assert skipping.flops == skipping.flops_kept
    assert skipping.flops.attention == plain.flops.attention > plain.flops_kept.attention
    assert sum(answer.parts.values()) == pytest.approx(1)


def test_texts_of_one_length_alone():
    model = FAMILIES["hunyuan-dit"].build()
    assert retom.explain(model, height=128, width=96, text_tokens=2 * TEXT).text_tokens == 2 * TEXT
    with pytest.raises(ConfigError, match=r"texts of 10 tokens alone.*7 was given"):
        retom.explain(model, height=128, width=96, text_tokens=7)


@pytest.mark.parametrize("name", ["lumina2 uneven", "bria fibo 2", "hunyuan-image", "kandinsky5"])
def test_a_mask_that_is_given_tells_how_long_the_text_is(name):
    """Its sum decides over the length of the sequence, though the model runs without numbers."""
    model, arguments = FAMILIES[name].build(), FAMILIES[name].call(8, 6, 1)
    answer = retom.explain(model, inputs=arguments, ratio=0.5)
    assert answer.flops == really(model, arguments)
    with retom.applied(model, ratio=0.5, unmerge="copy"):
        assert answer.ceiling("block").flops == really(model, arguments)


def test_a_model_that_reads_numbers_is_refused_in_a_sentence():
    """OmniGen chooses between two rotary tables by the highest position."""
    model, arguments = FAMILIES["omnigen"].build(), FAMILIES["omnigen"].call(8, 6, 1)
    with pytest.raises(
        UnsupportedModelError, match=r"OmniGen\w+ does not run .* meta device.*item"
    ):
        retom.explain(model, inputs=arguments)


@pytest.mark.parametrize("grid", [(8, 8), (8, 6)], ids=["square", "padded"])
def test_experts_are_counted_as_torch_counts_a_real_call(grid):
    """HiDream's go by data, and it reads sizes back from a tensor; it pads what is not square."""
    family = FAMILIES["hidream"]
    model, inputs = family.build(), family.call(*grid, 1)
    answer = retom.explain(model, inputs=inputs, ratio=0.5)
    assert answer.flops == really(model, inputs)
    assert all(layer.flops.mlp > layer.flops.attention for layer in answer.layers)
    with retom.applied(model, ratio=0.5, unmerge="copy") as handle:
        assert answer.ceiling("block").flops == really(model, inputs)
        saved = handle.summary().flops_saved
    kept = sum(layer.flops_kept.total for layer in answer.layers)
    whole = sum(layer.flops.total for layer in answer.layers)
    assert saved == pytest.approx(1 - kept / whole)


def test_a_family_without_rows_is_counted_un_merged():
    model = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=16,
        num_embeddings=TEXT,
    )
    with pytest.raises(UnsupportedModelError) as refusal:
        layout_of(model)
    inputs = {
        "hidden_states": torch.zeros(1, 16),
        "timestep": torch.tensor([500]),
        "proj_embedding": torch.zeros(1, 16),
        "encoder_hidden_states": torch.zeros(1, TEXT, 16),
    }
    answer = retom.explain(model, inputs=inputs)
    assert answer.unsupported == str(refusal.value)
    assert answer.ceilings == ()
    assert all(x.level is None and not x.merges for x in answer.layers)
    assert answer.layers


def test_positions_are_real_numbers_in_raster_order():
    model = tiny_flux()
    inputs = make_inputs(model, family_of(model), (4, 6), TEXT)
    assert inputs["img_ids"].tolist() == [
        [0, row, column] for row in (0, 1) for column in (0, 1, 2)
    ]
    assert inputs["hidden_states"].shape == (1, 6, 16)
    assert inputs["hidden_states"].device.type == "meta"


def test_numbers_are_readable():
    assert [readable(x) for x in (7, 1234567, 999.6, 8.03e11)] == ["7 ", "1.23 M", "1 k", "803 G"]


def test_what_apply_refuses_in_the_scope_of_the_model_is_refused_here_too():
    model = FAMILIES["flux"].build()
    arguments = FAMILIES["flux"].call(8, 6, 1)
    with pytest.raises(retom.ConfigError, match="score='keys' reads"):
        retom.apply(model, score="keys")
    with pytest.raises(retom.ConfigError, match="score='keys' reads"):
        retom.explain(model, inputs=arguments, score="keys")
