"""The handle: what it changes, what it refuses, what it tells."""

import pytest
import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import retom

LEVEL_0 = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
LEVEL_1 = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


def kept(model):
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs())
    return seen[LEVEL_0][0], seen[LEVEL_1][0]


def test_update_changes_what_merges():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    assert kept(model) == (128, 64)
    handle.update(ratio=0.25)
    assert kept(model) == (192, 64)
    handle.update(levels="all")
    assert kept(model) == (192, 48)
    handle.update(levels=(1,), ratio=0.5)
    assert kept(model) == (256, 32)
    assert retom.handle_of(model) is handle


def test_update_gives_what_a_fresh_application_gives():
    arguments = tiny.inputs()
    model, fresh = tiny.sd15_unet(), tiny.sd15_unet()
    handle = retom.apply(model)
    tiny.call(model, arguments)
    handle.update(ratio=0.4, merge="representative", levels="all")
    retom.apply(fresh, ratio=0.4, merge="representative", levels="all")
    assert torch.equal(tiny.call(model, arguments), tiny.call(fresh, arguments))


def test_update_takes_another_method():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    merged = tiny.call(model, tiny.inputs())
    handle.update(method=retom.methods.WindowCorner(ratio=0.5))
    assert not torch.equal(tiny.call(model, tiny.inputs()), merged)


def test_update_keeps_merging_switched_off():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    handle.enabled = False
    handle.update(ratio=0.25)
    assert kept(model) == (256, 64)


BAD_UPDATES = {
    "unknown option": ({"rato": 0.5}, retom.ConfigError, "Unknown option rato"),
    "out of range": ({"ratio": 1.0}, retom.ConfigError, "less than 1"),
    "out of reach": (
        {"ratio": 0.8, "window": (2, 2)},
        retom.BudgetError,
        "can give up 192 at most",
    ),
    "no such level": ({"levels": (0, 3)}, retom.ConfigError, "levels 0, 1, 2.*level 3 was given"),
    "half good": ({"ratio": 0.25, "levels": (9,)}, retom.ConfigError, "level 9 was given"),
}


@pytest.mark.parametrize(("options", "error", "message"), BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_bad_update_leaves_everything_as_it_was(options, error, message):
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    merged = tiny.call(model, tiny.inputs())
    config, summary = handle.config, handle.summary()

    with pytest.raises(error, match=message):
        handle.update(**options)

    assert handle.config is config
    assert handle.summary() == summary
    assert torch.equal(tiny.call(model, tiny.inputs()), merged)


def test_removed_handle_refuses_updates():
    handle = retom.apply(tiny.sd15_unet())
    handle.remove()
    with pytest.raises(retom.AlreadyAppliedError, match=r"removed.*retom\.apply"):
        handle.update(ratio=0.3)


def test_summary_before_a_call_speaks_of_the_default_size():
    summary = retom.apply(tiny.sd15_unet(), ratio=0.25).summary()
    assert not summary.seen
    rows = [(row.level, str(row.grid), row.layers, row.tokens, row.kept) for row in summary.levels]
    assert rows == [(0, "16x16", 3, 256, 192), (1, "8x8", 3, 64, 64), (2, "4x4", 1, 16, 16)]
    assert "at the model's default size" in str(summary)


def test_summary_after_a_call_speaks_of_its_grids():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    tiny.call(model, tiny.inputs(size=(17, 13)))
    summary = handle.summary()
    assert summary.seen
    assert [(str(row.grid), row.tokens, row.kept) for row in summary.levels] == [
        ("17x13", 221, 111),
        ("9x7", 63, 63),
        ("5x4", 20, 20),
    ]


def test_summary_counts_flops():
    """4 projections and 2 products, 2 FLOPs a multiply-add, heads as wide as the tokens."""
    summary = retom.apply(tiny.sd15_unet(), kv_lean=0).summary()
    level = summary.levels[0]
    channels = 8
    assert level.flops == 3 * (4 * 2 * 256 * channels**2 + 2 * 2 * 256**2 * channels)
    assert level.flops == 6_684_672
    assert level.flops_kept == 3 * (4 * 2 * 128 * channels**2 + 2 * 2 * 128**2 * channels)
    assert level.flops_saved == 1 - 1_769_472 / 6_684_672
    # Level 1: 3 layers of 64 tokens, 8 channels; level 2: 1 layer of 16 tokens, 16 channels.
    others = 3 * (4 * 2 * 64 * 64 + 4 * 64**2 * 8) + (4 * 2 * 16 * 256 + 4 * 16**2 * 16)
    assert summary.flops_saved == pytest.approx(1 - (1_769_472 + others) / (6_684_672 + others))


def test_summary_counts_the_flops_that_torch_counts(monkeypatch):
    # without the products of matrices by which a CPU makes plans, which are no part of the layer
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    model = tiny.sdxl_unet()
    handle = retom.apply(model, levels="all")
    # torch counts no fused attention on a CPU; as plain products it counts it.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tiny.call(model, tiny.inputs("sdxl", batch=1))
    counts = counter.get_flop_counts()
    counted = sum(sum(ops.values()) for name, ops in counts.items() if name.endswith(".attn1"))
    assert counted == sum(row.flops_kept for row in handle.summary().levels)


def test_summary_of_a_model_without_a_default_size_waits_for_a_call():
    model = tiny.sd15_unet(sample_size=None)
    handle = retom.apply(model)
    assert handle.summary().levels == ()
    assert "run it once" in str(handle.summary())
    tiny.call(model, tiny.inputs())
    assert [row.tokens for row in handle.summary().levels] == [256, 64, 16]


def test_summary_reads_a_default_size_that_is_not_square():
    summary = retom.apply(tiny.sd15_unet(sample_size=(24, 8))).summary()
    assert [str(row.grid) for row in summary.levels] == ["24x8", "12x4", "6x2"]


def test_reset_forgets_the_grids_seen():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    before = handle.summary()
    tiny.call(model, tiny.inputs(size=(8, 8)))
    assert handle.summary() != before
    handle.reset()
    assert handle.summary() == before


def test_repr_tells_the_state():
    handle = retom.apply(tiny.sd15_unet())
    assert repr(handle).startswith("<retom.Handle on on UNet2DConditionModel: Config(")
    handle.enabled = False
    assert "Handle off" in repr(handle)
    handle.remove()
    assert "Handle removed" in repr(handle)


@pytest.mark.parametrize("value", ["False", None, 0, torch.tensor(0)])
def test_the_switch_takes_true_and_false_alone(value):
    handle = retom.apply(tiny.sd15_unet())
    with pytest.raises(retom.ConfigError, match="enabled is True or False"):
        handle.enabled = value
    assert handle.enabled is True


def test_a_misspelt_attribute_is_an_error():
    handle = retom.apply(tiny.sd15_unet())
    for name in ("enable", "ratio"):
        with pytest.raises(AttributeError, match=name):
            setattr(handle, name, False)


def test_a_removed_handle_is_not_switched_and_its_receipt_says_so():
    handle = retom.apply(tiny.sd15_unet())
    handle.remove()
    with pytest.raises(retom.AlreadyAppliedError, match="removed"):
        handle.enabled = False
    assert not handle.summary().enabled
    assert "switched off" in str(handle.summary())
