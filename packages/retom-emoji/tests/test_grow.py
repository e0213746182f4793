"""A UNet that was given a level draws what it drew before, at twice the size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch

from recipe import denoiser, grow, network, noise, preset

CPU = preset.load("cpu-256")
SMALL = replace(
    CPU,
    text=replace(CPU.text, width=32),
    denoiser=replace(CPU.denoiser, widths=(32, 32, 64), head_width=16, embedding=64),
)
INNER, OUTER = (
    replace(phase, levels=n) for phase, n in zip(CPU.denoiser.phases, (2, 3), strict=True)
)
PHASES = replace(SMALL, denoiser=replace(SMALL.denoiser, phases=(INNER, OUTER)))


def untrained() -> torch.nn.Module:
    torch.manual_seed(0)
    unet = network.build(PHASES, 2).eval()
    for weight in unet.parameters():  # nothing stays at zero, where a mistake would not show
        torch.nn.init.normal_(weight, std=0.1)
    return unet


def doubled(values: torch.Tensor) -> torch.Tensor:
    return values.repeat_interleave(2, -1).repeat_interleave(2, -2)


def smooth(batch: int) -> torch.Tensor:
    """Latents of 32 x 32 that hardly change from one place to the next."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    channels = [torch.cos(x / 9 + y / 12 + i) for i in range(4 * batch)]
    return torch.stack(channels).view(batch, 4, 32, 32)


@torch.no_grad()
def test_it_answers_what_it_answered_to_pictures_of_half_the_size() -> None:
    unet = untrained()
    grown = network.fitted(unet, OUTER, PHASES).eval()
    small = smooth(2)
    # a picture of twice the size whose means are these, divided by the two that noise shrinks by
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear") / 2
    states, steps = torch.randn(2, 5, 32), torch.tensor([900, 100])
    old, new = unet(small, steps, states).sample, grown(large, steps, states).sample
    inner = (slice(None), slice(None), slice(6, -6), slice(6, -6))  # the border is padded otherwise
    error = (new - doubled(old))[inner].norm() / doubled(old)[inner].norm()
    assert error < 0.1  # what the padded border and the boxes a place too near change
    ungrown = unet(large, steps, states).sample
    assert (ungrown - doubled(old))[inner].norm() / doubled(old)[inner].norm() > 2 * error


@torch.no_grad()
def test_noise_reaches_the_inner_levels_as_strong_as_before() -> None:
    unet = untrained()
    grown = network.fitted(unet, OUTER, PHASES)
    pixels = torch.randn(8, 4, 64, 64)
    strided = grown.down_blocks[0].downsamplers[0].conv
    inside = strided(grown.conv_in(pixels))
    before = unet.conv_in(torch.nn.functional.avg_pool2d(pixels, 2) * 2)
    assert inside.std().item() == pytest.approx(before.std().item(), rel=0.05)


def test_the_new_level_attends_as_the_one_inside_and_is_not_heard() -> None:
    unet = untrained()
    grown = network.fitted(unet, OUTER, PHASES)
    pairs = [(grown.down_blocks[0], unet.down_blocks[0]), (grown.up_blocks[2], unet.up_blocks[1])]
    for new, old in pairs:
        for part, known in zip(new.attentions, old.attentions, strict=True):
            assert not part.proj_out.weight.any()
            assert not part.proj_out.bias.any()
            block, of = part.transformer_blocks[0], known.transformer_blocks[0]
            assert torch.equal(block.attn1.to_q.weight, of.attn1.to_q.weight)
            assert torch.equal(block.ff.net[2].weight, of.ff.net[2].weight)


def test_what_learns_faster_is_what_was_added() -> None:
    unet = untrained()
    inner = set(unet.state_dict())
    grown = network.fitted(unet, OUTER, PHASES)
    fast = {id(weight) for weight in grow.outermost(grown)}
    names = {name for name, weight in grown.named_parameters() if id(weight) in fast}
    places = {grow._place(name) for name in inner}
    assert names.isdisjoint(places)
    left = set(grown.state_dict()) - places - names
    assert {name.split(".")[0] for name in left} == {"up_blocks"}  # the old level's way to double
    assert all(".upsamplers." in name for name in left)


def test_the_added_level_has_a_rate_of_its_own() -> None:
    unet = network.fitted(untrained(), OUTER, PHASES)
    matrices, _ = denoiser.split(unet)
    phase = replace(OUTER, matrix_rate=1e-3, new_rate=3e-3)
    known, new = denoiser.matrix_optimizers(unet, matrices, phase, grown=True)
    (alike,) = denoiser.matrix_optimizers(unet, matrices, phase, grown=False)
    rates = [one.param_groups[0]["peak"] for one in (known, new, alike)]
    assert rates == [1e-3, 3e-3, 1e-3]
    added = {id(weight) for weight in grow.outermost(unet)}
    count = [len(one.param_groups[0]["params"]) for one in (known, new, alike)]
    assert count[1] == sum(id(weight) in added for weight in matrices) > 0
    assert count[0] + count[1] == count[2] == len(matrices)


def test_every_new_weight_can_learn() -> None:
    torch.manual_seed(0)
    grown = network.fitted(untrained(), OUTER, PHASES)
    optimizer = torch.optim.SGD(grown.parameters(), lr=1e-2)
    for _ in range(2):  # in the first step, nothing comes through what starts at zero
        optimizer.zero_grad()
        out = grown(torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 5, 32)).sample
        out.square().mean().backward()
        optimizer.step()
    idle = [n for n, w in grown.named_parameters() if w.grad is None or not w.grad.any()]
    assert all("attn" in name and name.endswith(("to_k.weight", "to_q.weight")) for name in idle)


def test_a_phase_with_the_same_levels_leaves_the_network_alone() -> None:
    unet = untrained()
    assert network.fitted(unet, INNER, PHASES) is unet
    grown = network.fitted(unet, OUTER, PHASES)
    assert network.fitted(grown, OUTER, PHASES) is grown
    assert list(grown.config.block_out_channels) == [32, 32, 64]


@pytest.mark.parametrize(("width", "said"), [(64, "64 channels"), (8, "at least 16")])
def test_a_level_of_another_width_is_refused(width: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grow.grow(untrained(), width, partial(network.build, PHASES, 3))


def test_a_network_that_differs_by_more_than_a_level_is_refused() -> None:
    with pytest.raises(ValueError, match="more than a level"):
        grow.grow(untrained(), 32, partial(network.build, PHASES, 2))


@pytest.mark.parametrize("grown", [1, 2])
def test_a_level_quarters_the_signal_to_noise_ratio(grown: int) -> None:
    alphas = noise.scheduler().alphas_cumprod.double()
    shifted = noise.scheduler(grown).alphas_cumprod.double()
    ratio = shifted / (1 - shifted) * 4**grown
    assert torch.allclose(ratio[:-1], (alphas / (1 - alphas))[:-1], rtol=2e-3)
    assert shifted[-1] == 0, "all noise at the end"
    assert (shifted.diff() < 0).all()


def test_the_schedule_survives_a_change_of_solver() -> None:
    from diffusers import DPMSolverMultistepScheduler

    shifted = noise.scheduler(1)
    solver = DPMSolverMultistepScheduler.from_config(shifted.config)
    alphas = solver.alphas_cumprod.double()[:-1]
    assert torch.allclose(alphas, shifted.alphas_cumprod.double()[:-1], rtol=1e-3)


@pytest.mark.parametrize("name", ["cpu", "cpu-256", "cpu-full", "gpu", "dry"])
def test_presets_grow_in_steps_that_can_be_taken(name: str) -> None:
    settings = preset.load(name)
    unet = network.build(settings, settings.denoiser.phases[0].levels)
    for phase in settings.denoiser.phases:
        unet = network.fitted(unet, phase, settings)
    assert unet.config.block_out_channels == settings.denoiser.widths
