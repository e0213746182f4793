"""The short form on a user's own pipeline, and what its verdict says."""

import math

import pytest
import torch

pytest.importorskip("diffusers")

from tiny import sd_pipeline

import retom
from retom.errors import BudgetError, ConfigError
from retom.evaluation.checking import Check
from retom.metrics import psnr

CALL = {"num_inference_steps": 1, "guidance_scale": 1.0}


def made(*, psnr=(28.0, 29.0), speed=(1.3, 1.2), artefacts=(), floor=(13.0,)):
    """A check with these numbers."""
    return Check(
        config=retom.Config(),
        pairs=len(psnr),
        psnr=psnr,
        ssim=tuple(0.9 for _ in psnr),
        artefacts=artefacts,
        floor=floor,
        seconds=tuple((s, 1.0) for s in speed),
        denoiser_seconds=tuple((s, 0.9) for s in speed),
        kept=0.5,
    )


@pytest.fixture(scope="module")
def found():
    """A check of a tiny pipeline: the pipeline, what was told, and the result."""
    pipe, told = sd_pipeline(), []
    result = retom.check(
        pipe,
        ratio=0.4,
        prompts=["red", "blue"],
        seeds=(0, 1),
        call=CALL,
        on_picture=lambda label, done, total: told.append((label, done, total)),
    )
    return pipe, told, result


def test_draws_each_prompt_at_each_seed_both_ways_in_turns(found):
    _, told, result = found
    assert result.pairs == 4
    assert len(result.psnr) == len(result.ssim) == len(result.seconds) == 4
    assert len(result.floor) == 2
    assert told[-1][1:] == (10, 10)
    order = [told[i][0] for i in range(0, len(told), 2)]
    assert order == [
        "warming up", "warming up",
        "un-merged", "merged", "merged", "un-merged",
        "un-merged", "merged", "merged", "un-merged",
    ]  # fmt: skip


def test_measures_the_pictures_of_the_library(found):
    pipe, _, result = found

    def draw():
        generator = torch.Generator().manual_seed(0)
        picture = pipe(prompt="red", generator=generator, output_type="pt", **CALL).images[0]
        return (255 * picture.clamp(0, 1)).round() / 255

    whole = draw()
    with retom.applied(pipe, ratio=0.4):
        merged = draw()
    assert result.psnr[0] == pytest.approx(psnr(merged, whole).item(), abs=1e-3)
    assert result.config.method.ratio == 0.4
    # 256 tokens, 102 of them removed
    assert result.kept == pytest.approx(154 / 256)


def test_leaves_the_pipeline_as_it_was(found):
    pipe, _, _ = found
    assert retom.handle_of(pipe) is None
    assert not pipe.unet._forward_pre_hooks
    assert not pipe.unet._forward_hooks


def test_prints_numbers_and_verdict_and_is_plain_data(found):
    _, _, result = found
    text = str(result)
    for words in ("PSNR", "SSIM", "another seed", "whole picture", "4 pairs say"):
        assert words in text
    data = result.to_dict()
    assert data["verdict"] == result.verdict
    assert data["config"]["method"]["ratio"] == 0.4
    assert all(math.isfinite(value) for value in data["psnr"])


def test_ratio_zero_is_equal_and_not_faster():
    result = retom.check(sd_pipeline(), ratio=0, prompts=["red"], seeds=[0], call=CALL)
    assert result.psnr == (100.0,)
    assert result.floor == ()
    assert result.kept == 1.0


def test_merging_that_is_applied_is_checked_and_stays():
    pipe = sd_pipeline()
    handle = retom.apply(pipe, ratio=0.3)
    handle.enabled = False
    result = retom.check(pipe, prompts=["red"], seeds=[0], call=CALL)
    assert result.config == handle.config
    assert result.psnr[0] < 100
    assert retom.handle_of(pipe) is handle
    assert handle.enabled is False
    with pytest.raises(ConfigError, match="Merging is applied to this pipeline already"):
        retom.check(pipe, ratio=0.5)


@pytest.mark.parametrize(
    "options", [{"prompts": []}, {"prompts": "red"}, {"seeds": []}, {"call": {"generator": None}}]
)
def test_refuses_what_it_sets_itself_and_nothing_to_draw(options):
    with pytest.raises(ConfigError, match="A check draws at least one prompt"):
        retom.check(sd_pipeline(), **options)


def test_a_ratio_out_of_reach_is_refused_before_a_picture():
    told = []
    options = {"ratio": 0.9, "window": (2, 2)}
    with pytest.raises(BudgetError):
        retom.check(sd_pipeline(), on_picture=lambda *words: told.append(words), **options)
    assert [done for _, done, _ in told if done] == []


# ---- the verdict


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, "1.25x as fast on this machine (from 1.20 to 1.30)"),
        ({"speed": (1.3, 0.9)}, "Perhaps faster, 1.10x, but pairs disagree (from 0.90 to 1.30)"),
        ({"speed": (1.0, 0.9)}, "Not faster here (0.95x, from 0.90 to 1.00)"),
        ({"speed": (1.0, 0.9)}, "Merging pays at large grids"),
        ({"psnr": (35.0, 31.0)}, "hard to tell from the un-merged ones (33.0 dB)"),
        ({"psnr": (28.0, 26.0)}, "differ in small things (27.0 dB)"),
        ({"psnr": (28.0, 26.0)}, "Worth using."),
        ({"psnr": (20.0, 22.0)}, "differ visibly from the un-merged ones (21.0 dB)"),
        ({"psnr": (20.0, 22.0)}, "use a lower ratio"),
        ({"psnr": (15.0, 14.0)}, "hardly closer to the un-merged ones (14.5 dB) than another"),
        ({"artefacts": (5.0, 4.0)}, "The windows print through (+4.5 dB)"),
        ({}, "2 pairs say what to expect, not which of two settings is better"),
        ({"psnr": (28.0,), "speed": (1.3,)}, "One pair says what to expect"),
    ],
)  # fmt: skip
def test_verdict(numbers, words):
    assert words in made(**numbers).verdict


def test_verdict_is_silent_on_a_grid_that_does_not_show():
    assert "print through" not in made(artefacts=(2.0, -1.0)).verdict


def test_speed_is_a_median_of_ratios_of_pairs():
    assert made(speed=(1.0, 5.0, 1.5), psnr=(28.0,) * 3).speedup == 1.5


def test_what_does_not_pay_is_decided_in_the_warm_up_alone():
    pipe = sd_pipeline()
    layer = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    seen = []
    hook = layer.register_forward_pre_hook(lambda *_: seen.append(1))
    pictures = []

    def begin(label, *_):
        pictures.append((label, len(seen)))

    options = {"prompts": ["red"], "seeds": [0], "call": CALL, "on_picture": begin}
    result = retom.check(pipe, skip="unprofitable", **options)
    hook.remove()
    assert result.kept == 1
    assert result.config.skip == "unprofitable"
    assert result.psnr == (100.0,)
    assert [label for label, _ in pictures][:1] == ["warming up"]
    by_label = {}
    for (label, before), (_, after) in zip(pictures, [*pictures[1:], ("", len(seen))], strict=True):
        by_label.setdefault(label, after - before)
    assert by_label["warming up"] > 10
    assert by_label["merged"] == by_label["un-merged"]
