"""Every row of every family, proved: permutation, residual, and a real merging run."""

import models_page
import pytest
import torch
from models_page import ALL
from tiny_transformers import FAMILIES

import retom
from retom.models.registry import BLOCKS
from retom.testing import check_block_spec
from retom.testing.runs import run as output_of

CASES = [pytest.param(name, (8, 6), 1, id=f"{name}-8x6-batch1") for name in ALL]
CASES += [
    pytest.param(name, (7, 5) if family.odd else (8, 6), 3, id=f"{name}-odd-batch3")
    for name, family in ALL.items()
]


@pytest.mark.parametrize(("name", "grid", "batch"), CASES)
def test_a_family_is_proved(name, grid, batch):
    family = ALL[name]
    proof = models_page.proof(name, grid, batch)
    assert (proof.blocks, proof.unmerged) == (family.blocks, family.unmerged)
    assert proof.permutation_error <= 1e-5
    assert proof.residual_error <= 1e-5
    assert proof.kept == proof.tokens - proof.tokens // 2
    assert proof.changed > 1e-4


@pytest.mark.parametrize("name", ALL)
def test_ratio_0_off_and_removal_are_bit_exact(name):
    family = ALL[name]
    model, arguments = family.build(), family.call(8, 6, 1)

    @torch.no_grad()
    def run():
        return output_of(model, arguments)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    own = hooks()
    plain = run()
    handle = retom.apply(model, ratio=0)
    assert handle.config.scope == "block"
    assert torch.equal(run(), plain)
    handle.update(ratio=0.5)
    run()
    summary = handle.summary()
    assert (summary.levels[0].layers, len(summary.unmerged)) == (family.blocks, family.unmerged)
    assert summary.shares_plan == family.shares_plan
    assert 0.05 < summary.flops_saved < 0.8
    handle.enabled = False
    assert torch.equal(run(), plain)
    handle.enabled = True
    handle.remove()
    assert torch.equal(run(), plain)
    assert hooks() == own


INCOMPLETE = [
    ("flux", "FluxTransformerBlock", {"rotary": ()}),
    ("qwen", "QwenImageTransformerBlock", {"rotary": ()}),
    ("chroma", "ChromaSingleTransformerBlock", {"at": "first"}),
    ("ernie", "ErnieImageSharedAdaLNBlock", {"masks": ()}),
    ("omnigen", "OmniGenBlock", {"masks": ()}),
    ("hunyuan-dit", "HunyuanDiTBlock", {"unmerged_if": None}),
    ("lumina2 uneven", "Lumina2TransformerBlock", {"ends_with": None}),
    ("lumina2 uneven", "Lumina2TransformerBlock", {"masks": ()}),
    ("ideogram4", "Ideogram4TransformerBlock", {"rotary": ()}),
    ("bria fibo 2", "BriaFibo2TransformerBlock", {"per_token": ()}),
    ("bria fibo 2 edit", "BriaFibo2TransformerBlock", {"at": "first"}),
    ("qwen 2.1", "QwenImage21TransformerBlock", {"per_token": ()}),
    ("joyimage", "JoyImageTransformerBlock", {"rotary": ()}),
    ("joyimage plus", "JoyImageEditPlusTransformerBlock", {"masks": ()}),
]


@pytest.mark.parametrize(("name", "block", "change"), INCOMPLETE)
def test_an_incomplete_row_is_found_out(name, block, change, monkeypatch):
    """The proof can fail: each of these leaves out, or misplaces, one thing of a right row."""
    import dataclasses

    monkeypatch.setitem(BLOCKS, block, dataclasses.replace(BLOCKS[block], **change))
    family = FAMILIES[name]
    with pytest.raises((retom.BlockSpecError, retom.ShapeError, RuntimeError)):
        check_block_spec(family.build(), family.call(8, 6, 2))
