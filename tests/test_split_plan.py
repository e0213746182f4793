"""Keys and values that merge more than queries do: the counts, the plans, and the layer."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import retom
from retom import ReToM
from retom.errors import ConfigError
from retom.grid import Grid
from retom.hints import Hints

APART = Hints(apart=True)
GRID = Grid(16, 16)


def tokens(grid=GRID, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid.num_tokens, 8, generator=generator)


@pytest.mark.parametrize(
    ("ratio", "kv_lean", "expected"),
    [
        (0.5, 0, (128, 128)),
        (0.5, 1, (64, 192)),  # windows of 2x2 give up 192 of 256: room for 64
        (0.5, 0.5, (96, 160)),
        (0.25, 1, (0, 128)),  # room for all of the 64
        (0.75, 1, (192, 192)),  # no room
        (0, 1, (0, 0)),
    ],
)
def test_the_room_is_shared_out_by_hand(ratio, kv_lean, expected):
    method = ReToM(ratio=ratio, window=(2, 2), kv_lean=kv_lean)
    assert method.removed_apart(GRID) == expected


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    share=st.floats(0, 1),
    kv_lean=st.floats(0, 1),
)
def test_as_many_tokens_go_in_all_and_keys_lose_at_least_as_many(height, width, share, kv_lean):
    grid = Grid(height, width)
    windows = -(-height // 2) * -(-width // 2)
    ratio = share * (1 - windows / grid.num_tokens)
    method = ReToM(ratio=ratio, window=(2, 2), kv_lean=kv_lean)
    removed = method.num_removed(grid)
    queries, keys = method.removed_apart(grid)
    assert queries + keys == 2 * removed
    assert 0 <= queries <= removed <= keys <= grid.num_tokens - windows


@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform", "multiscale"])
@pytest.mark.parametrize("unmerge", ["copy", "similarity"])
def test_both_plans_are_those_of_their_own_ratios(allocation, unmerge):
    reach = 0 if allocation == "multiscale" else 1
    options = {
        "window": (2, 2),
        "allocation": allocation,
        "reach": reach,
        "unmerge": unmerge,
    }
    method = ReToM(**options)
    x = tokens()
    queries, keys = method.removed_apart(GRID)
    plan = method.plan(x, GRID, APART)
    alone = {
        count: ReToM(ratio=count / 256, kv_lean=0, **options).plan(x, GRID)
        for count in (queries, keys)
    }
    assert plan.num_tokens == 256
    assert plan.num_kept == 256 - queries
    assert torch.equal(plan.kept, alone[queries].kept)
    assert torch.equal(plan.merge(x), alone[queries].merge(x))
    assert torch.equal(plan.unmerge(plan.merge(x)), alone[queries].unmerge(alone[queries].merge(x)))
    assert torch.equal(plan.log_sizes, alone[queries].log_sizes)
    assert torch.equal(plan.keys.kept, alone[keys].kept)
    assert torch.equal(plan.keys.merge(x), alone[keys].merge(x))
    assert torch.equal(plan.keys.log_sizes, alone[keys].log_sizes)


def test_a_second_look_is_for_queries():
    method = ReToM(window=(2, 2), rematch=True)
    x = tokens()
    plan = method.plan(x, GRID, APART)
    queries, keys = method.removed_apart(GRID)
    looked = ReToM(ratio=queries / 256, window=(2, 2), rematch=True).plan(x, GRID)
    plain = ReToM(ratio=keys / 256, window=(2, 2)).plan(x, GRID)
    assert torch.equal(plan.merge(x), looked.merge(x))
    assert torch.equal(plan.keys.merge(x), plain.merge(x))


def test_a_plan_for_one_item_serves_a_batch():
    x = tokens(batch=1)
    plan = ReToM().plan(x, GRID, APART).repeated(3)
    three = ReToM().plan(x.expand(3, -1, -1), GRID, APART)
    both = x.expand(3, -1, -1)
    assert torch.equal(plan.merge(both), three.merge(both))
    assert torch.equal(plan.keys.merge(both), three.keys.merge(both))


@pytest.mark.parametrize(
    ("method", "hints"),
    [
        (ReToM(kv_lean=0), APART),
        (ReToM(), Hints()),
        (ReToM(), Hints(apart=True, protected=torch.zeros(256, dtype=torch.bool))),
        (ReToM(ratio=0.75, window=(2, 2)), APART),
    ],
    ids=["no lean", "one input", "protected", "no room"],
)
def test_queries_and_keys_share_a_plan_where_they_cannot_or_shall_not_merge_apart(method, hints):
    plan = method.plan(tokens(), GRID, hints)
    assert plan.keys is plan
    assert plan.num_kept == 256 - method.num_removed(GRID)


@pytest.mark.parametrize("kv_lean", [-0.1, 1.1, "all", True, float("nan")])
def test_a_lean_out_of_range_is_a_sentence(kv_lean):
    with pytest.raises(ConfigError, match="kv_lean is a number from 0 to 1"):
        ReToM(kv_lean=kv_lean)


def test_a_layer_computes_what_its_definition_says():
    model = tiny.sd15_unet()
    attention = model.get_submodule(f"{tiny.FIRST}.attn1")
    x = tokens(batch=2)
    x = torch.randn(2, 256, attention.to_q.in_features, generator=torch.Generator().manual_seed(1))
    plan = ReToM().plan(x, GRID, APART)
    with torch.no_grad():
        expected = plan.unmerge(
            attention(
                plan.merge(x),
                encoder_hidden_states=plan.keys.merge(x),
                attention_mask=plan.keys.log_sizes[:, None],
            ),
            x,
        )
    handle = retom.apply(model)
    state = handle._state
    state.begin({0: GRID})
    state.levels[0].source_grid = GRID
    with torch.no_grad():
        assert torch.equal(attention(x), expected)


def seen(model):
    """Tokens that ask and tokens that are asked in the first layer, in one call."""
    with (
        tiny.tokens_seen(model, "attn1.to_q") as asking,
        tiny.tokens_seen(model, "attn1.to_k") as asked,
    ):
        tiny.call(model, tiny.inputs())
    return asking[f"{tiny.FIRST}.attn1.to_q"], asked[f"{tiny.FIRST}.attn1.to_k"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ([166], [90])),
        ({"kv_lean": 0}, ([128], [128])),
        ({"scope": "attention+mlp"}, ([128], [128])),
        ({"scope": "kv"}, ([256], [128])),
        ({"share": "level"}, ([166], [90])),
        ({"score": "block"}, ([166], [90])),
    ],
)
def test_what_a_unet_merges(options, expected):
    model = tiny.sd15_unet()
    handle = retom.apply(model, **options)
    assert seen(model) == expected
    row = handle.summary().levels[0]
    assert ([row.kept_queries], [row.kept_keys]) == expected
    assert row.kept == 128


def test_the_receipt_names_both_counts_and_counts_their_products():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    text = str(handle.summary())
    assert "166 as queries, 90 as keys and values" in text
    leaning = handle.summary().levels[0]
    handle.update(kv_lean=0)
    alike = handle.summary().levels[0]
    inner = model.get_submodule(f"{tiny.FIRST}.attn1").inner_dim
    saved = 3 * 2 * 2 * (128 * 128 - 166 * 90) * inner  # QK and AV of three layers
    assert alike.flops_kept - leaning.flops_kept == saved
    assert "as queries" not in str(handle.summary())


def test_protected_tokens_and_fused_projections_merge_queries_and_keys_alike():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[:16, :16] = True
    lean = handle.summary().levels[0]
    handle.protect(mask)
    assert seen(model) == ([128], [128])
    alike = handle.summary().levels[0]
    assert (alike.kept_queries, alike.kept_keys) == (128, 128)
    assert alike.flops_kept > lean.flops_kept
    assert "as queries" not in str(handle.summary())
    handle.protect(None)
    assert seen(model) == ([166], [90])
    assert handle.summary().levels[0] == lean
    model.fuse_qkv_projections()
    assert (handle.summary().levels[0].kept_queries, alike.kept_keys) == (128, 128)
    with tiny.tokens_seen(model, "attn1.to_qkv") as fused:
        tiny.call(model, tiny.inputs())
    assert fused[f"{tiny.FIRST}.attn1.to_qkv"] == [128]
