"""What only a CUDA device can show: the same plans as on the CPU, half precision, no waiting.

Nobody has run these on a GPU yet. ``RETOM_GPU_REHEARSAL=1 scripts/test-gpu`` takes the tests that
a CPU can take through the same code on one, so that a mistake in them does not cost a GPU's time.
"""

import os
from contextlib import contextmanager

import pytest
import tiny
import tiny_transformers
import torch
from compiled import NOISE
from tiny import call

import retom
from retom import Grid, ReToM
from retom.hints import Hints
from retom.methods import METHODS

pytestmark = pytest.mark.gpu

REHEARSAL = bool(os.environ.get("RETOM_GPU_REHEARSAL"))
DEVICE = torch.device("cpu" if REHEARSAL else "cuda")
GRID = Grid(12, 10)
FAMILIES = ("unet", "sd3", "flux", "qwen", "pixart")

PLANS = [method() for method in METHODS.values()]
PLANS += [ReToM(allocation=allocation) for allocation in ("coherence", "uniform")]
PLANS += [ReToM(allocation="multiscale", reach=0), ReToM(rematch=True), ReToM(window=(3, 4))]


@pytest.fixture(autouse=True)
def _device():
    if not REHEARSAL and not torch.cuda.is_available():
        pytest.fail("These tests need a CUDA device; RETOM_GPU_REHEARSAL=1 takes some on a CPU.")


needs_cuda = pytest.mark.skipif(REHEARSAL, reason="a CPU has nothing of the kind")


def build(name):
    model = tiny.unet() if name == "unet" else tiny_transformers.FAMILIES[name].build()
    return model.to(DEVICE).eval()


def moved(value, dtype=None):
    """Tensors of some nested arguments on the device, those of floats in ``dtype``."""
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE, dtype if value.is_floating_point() else None)
    if isinstance(value, dict):
        return {key: moved(item, dtype) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(item, dtype) for item in value)
    return value


def inputs(name, dtype=None, noise=0.5):
    """Arguments of a call at a noise level."""
    if name == "unet":
        return moved({**tiny.inputs(), "timestep": torch.tensor(1000 * noise)}, dtype)
    arguments = tiny_transformers.FAMILIES[name].call(8, 6, 2)
    scale = 1000 if name in ("sd3", "pixart") else 1
    return moved({**arguments, "timestep": torch.full((2,), scale * noise)}, dtype)


@pytest.mark.parametrize("method", PLANS, ids=repr)
def test_plans_are_those_of_the_cpu(method):
    x = torch.randn(2, GRID.num_tokens, 16, generator=torch.Generator().manual_seed(0))
    importance = torch.rand(2, GRID.num_tokens, generator=torch.Generator().manual_seed(1))
    there, here = (
        method.plan(tokens, GRID, Hints(importance=weights))
        for tokens, weights in (
            (x.to(DEVICE), importance.to(DEVICE)),
            (x, importance),
        )
    )
    assert torch.equal(there.kept.cpu(), here.kept)
    # The sums of merging may be taken in another order; what joins what is the same.
    merged, expected = there.merge(x.to(DEVICE)).cpu(), here.merge(x)
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)
    spread = there.unmerge(merged.to(DEVICE)).cpu()
    torch.testing.assert_close(spread, here.unmerge(expected), rtol=1e-5, atol=1e-5)
    answers = torch.tanh(expected)  # slopes too, where the method has them
    spread = there.unmerge(answers.to(DEVICE), x.to(DEVICE), merged.to(DEVICE)).cpu()
    torch.testing.assert_close(spread, here.unmerge(answers, x, expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_merges_and_comes_off_without_a_trace(name, dtype):
    model, arguments = build(name).to(dtype), inputs(name, dtype)
    plain = call(model, arguments)
    with retom.applied(model, ratio=0.5) as handle:
        merged = call(model, arguments)
        level = handle.summary().levels[0]
        assert level.kept < level.tokens
    assert torch.isfinite(merged).all()
    assert merged.dtype == dtype
    assert not torch.equal(merged, plain)
    assert torch.equal(call(model, arguments), plain)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_call_gives_the_same_bits(name):
    model, arguments = build(name), inputs(name)
    with retom.applied(model, ratio=0.5):
        assert torch.equal(call(model, arguments), call(model, arguments))


@contextmanager
def no_waiting():
    """Raise where the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("channels", [16, 48])  # slopes of more than 32 are along a few directions
@pytest.mark.parametrize("method", PLANS, ids=repr)
def test_planning_does_not_wait_for_the_device(method, channels):
    x = torch.randn(2, GRID.num_tokens, channels, device=DEVICE)
    hints = Hints(importance=torch.rand(2, GRID.num_tokens, device=DEVICE))
    method.plan(x, GRID, hints)  # tables are made once
    with no_waiting():
        plan = method.plan(x, GRID, hints)
        plan.unmerge(plan.merge(x), x)


@needs_cuda
@pytest.mark.parametrize("name", ["unet", "sd3"])
def test_a_merged_call_does_not_wait_for_the_device(name):
    """At the defaults; rules by noise and refresh read the timestep, see docs/method.md."""
    model, arguments = build(name), inputs(name)
    with retom.applied(model, ratio=0.5):
        call(model, arguments)
        with no_waiting():
            call(model, arguments)


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"refresh": 2}], ids=["every call", "refresh"])
@pytest.mark.parametrize("name", ["unet", "sd3", "flux", "qwen"])
def test_cuda_graphs_replay_the_eager_result(name, options):
    """``reduce-overhead`` replays graphs: a plan that outlives its call must not be overwritten."""
    torch.compiler.reset()
    plain, graphed = build(name), torch.compile(build(name), mode="reduce-overhead", dynamic=False)
    retom.apply(plain, ratio=0.5, **options)
    retom.apply(graphed, ratio=0.5, **options)
    for _ in range(2):
        for noise in NOISE:
            arguments = inputs(name, noise=noise)
            torch.compiler.cudagraph_mark_step_begin()
            found = call(graphed, arguments).clone()
            torch.testing.assert_close(found, call(plain, arguments), rtol=1e-3, atol=1e-3)


@needs_cuda
def test_merging_needs_no_more_memory_than_the_layer_itself():
    model = tiny.unet(block_out_channels=(32, 32, 32), attention_head_dim=8).to(DEVICE)
    arguments = moved(tiny.inputs(size=(64, 64)))

    def peak():
        call(model, arguments)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(model, arguments)
        return torch.cuda.max_memory_allocated() - before

    unmerged = peak()
    with retom.applied(model, ratio=0.5):
        assert peak() <= 1.05 * unmerged
