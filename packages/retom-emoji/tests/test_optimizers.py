"""Muon on the matrices, AdamW on the rest, as one optimiser."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch

from recipe.denoiser import split
from recipe.ema import Ema
from recipe.loop import Loop
from recipe.network import build
from recipe.optimizers import MatrixOptimizer, Together
from recipe.precision import mixed
from recipe.preset import load


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_all_directions_of_a_kernel_alike(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 6, 3, bias=False).to(memory_format=layout)
    before = layer.weight.detach().clone()
    # one direction of the gradient is a thousand times longer than the others
    gradient = torch.randn(6, 72)
    gradient += 1000 * torch.outer(torch.randn(6), torch.randn(72))
    # as convolutions leave them on some processors: not in the order of the weight
    layer.weight.grad = gradient.view(6, 8, 3, 3).to(memory_format=torch.channels_last)
    MatrixOptimizer([layer.weight], peak=0.1).step()
    moved = (layer.weight.detach() - before).reshape(6, -1)
    lengths = torch.linalg.svdvals(moved)
    assert lengths[0] / lengths[-1] < 6
    assert torch.linalg.svdvals(gradient)[0] / torch.linalg.svdvals(gradient)[-1] > 100
    assert (moved * gradient).sum() < 0


def test_a_weight_without_a_gradient_stays() -> None:
    layer = torch.nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    MatrixOptimizer([layer.weight], peak=0.1).step()
    assert torch.equal(layer.weight, before)


def _two(work: Path) -> tuple[Loop, torch.nn.Linear, Together]:
    torch.manual_seed(1)
    module = torch.nn.Linear(4, 4)
    adam = torch.optim.AdamW([{"params": [module.bias], "peak": 0.01}])
    both = Together(adam, MatrixOptimizer([module.weight], peak=0.01))
    loop = Loop("both", work, minutes=1.0, modules={"m": module}, optimizer=both, ema=Ema({}, 0.0))
    return loop, module, both


def _steps(module: torch.nn.Linear, both: Together, count: int) -> None:
    for k in range(count):
        module.weight.grad = torch.arange(16.0).view(4, 4).sin() * (k + 1)
        module.bias.grad = torch.ones(4)
        both.step()


def test_two_optimizers_go_on_from_a_checkpoint_as_if_nothing_had_been(tmp_path: Path) -> None:
    loop, module, both = _two(tmp_path)
    _steps(module, both, 3)
    loop.save()
    _steps(module, both, 2)
    again, other, both_again = _two(tmp_path)
    assert again.restore()
    _steps(other, both_again, 2)
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)
    assert [group["peak"] for group in both_again.param_groups] == [0.01, 0.01]


def test_what_enters_and_leaves_the_network_is_not_for_muon() -> None:
    unet = build(load("dry"))
    matrices, others = split(unet)
    assert len(matrices) + len(others) == len(list(unet.parameters()))
    assert all(weight.ndim > 1 for weight in matrices)
    left = {name for name, w in unet.named_parameters() if any(w is other for other in others)}
    assert {"conv_in.weight", "conv_out.weight", "conv_in.bias"} <= left
    assert "mid_block.resnets.0.conv1.weight" not in left


def test_half_the_precision_only_where_the_processor_multiplies_in_it(monkeypatch) -> None:
    cpu = torch.device("cpu")
    a = torch.ones(2, 2)
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        with mixed(cpu):
            assert (a @ a).dtype == dtype
