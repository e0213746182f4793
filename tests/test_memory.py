"""Merging takes no more memory at the peak than not merging, and plans live no longer than used."""

import pytest
import torch

pytest.importorskip("diffusers")

import tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import retom
from retom.benchmarking.memory import peak_bytes
from retom.methods import ToMe

CPU = torch.device("cpu")
WIDE = {"attention": (True, True), "block_out_channels": (48, 64), "attention_head_dim": 8}


def peak(model, arguments):
    def run():
        tiny.call(model, arguments)

    with torch.no_grad():
        run()
        return peak_bytes(run, CPU)


@pytest.fixture(scope="module")
def wide():
    """A UNet whose tokens are wide enough that its MLPs hold most, as in real ones."""
    model, arguments = tiny.unet(**WIDE), tiny.inputs(size=(16, 16))
    return model, arguments, peak(model, arguments)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": "all"},
        {"ratio": 0.3},
        {"reach": 0, "size_weighted": False},
        {"rematch": True, "unmerge": "similarity"},
        {"window": (4, 4), "ratio": 0.85},
        {"scope": "kv"},
        {"scope": "block"},
        {"scope": "attention+mlp"},
        {"score": "block"},
    ],
    ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()) or "defaults",
)
def test_the_peak_is_never_above_unmerged(wide, options):
    model, arguments, unmerged = wide
    with retom.applied(model, **options):
        assert peak(model, arguments) <= unmerged


def test_a_shared_plan_adds_no_more_than_itself(wide):
    model, arguments, unmerged = wide
    held = []
    with retom.applied(model, share="level", kv_lean=0, unmerge="copy") as handle:
        level = handle._state.levels[0]
        hook = model.conv_out.register_forward_pre_hook(lambda *_: held.append(level.plans))
        taken = peak(model, arguments)
        hook.remove()
    (plan,) = held[-1]
    parts = (getattr(plan, name) for name in plan.__slots__ if name != "mode")
    size = sum(part.untyped_storage().nbytes() for part in parts)  # one is a view of a larger one
    assert unmerged < taken <= unmerged + size


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "block", "kv"])
@pytest.mark.parametrize(
    ("options", "stays"),
    [({}, False), ({"refresh": 4}, True), ({"share": "level"}, True)],
    ids=["a call", "refresh", "level"],
)
def test_a_plan_is_held_until_its_last_use(scope, options, stays):
    model, arguments = tiny.unet(), tiny.inputs()
    seen = []
    with retom.applied(model, scope=scope, **options) as handle, torch.no_grad():
        level = handle._state.levels[0]
        last = model.conv_out.register_forward_pre_hook(lambda *_: seen.append(level.plans))
        tiny.call(model, arguments)
        last.remove()
    assert bool(seen[0]) is stays


def test_outputs_are_as_with_plans_held_to_the_end():
    model, arguments = tiny.unet(), tiny.inputs()
    with retom.applied(model, levels="all") as handle, torch.no_grad():
        dropped = tiny.call(model, arguments)
        handle.update(refresh=1)
        held = tiny.call(model, arguments)
    assert torch.equal(dropped, held)


class Largest(TorchDispatchMode):
    """Sees the largest tensor that any operation gives, in elements."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(given):
            if isinstance(tensor, torch.Tensor):  # a view of an expanded one counts as it is stored
                held = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, min(tensor.numel(), held))
        return given


def largest(method, side, channels=16):
    """The largest tensor of plan, merge and un-merge, in shares of the tokens' own size."""
    tokens = torch.randn(1, side * side, channels, generator=torch.Generator().manual_seed(0))
    with Largest() as seen:
        plan = method.plan(tokens, retom.Grid(side, side))
        plan.unmerge(plan.merge(tokens), tokens)
    return seen.elements / tokens.numel()


@pytest.mark.parametrize(
    "method",
    [
        retom.ReToM(),
        retom.ReToM(reach=0),
        retom.ReToM(reach=2),
        retom.ReToM(rematch=True, unmerge="similarity"),
        retom.ReToM(unmerge="linear"),
        retom.ReToM(window=(4, 4), allocation="uniform"),
        retom.ReToM(window=(4, 4), allocation="coherence"),
        retom.ReToM(allocation="multiscale", reach=0),
        retom.ReToM(merge="norm_mean"),
        retom.ReToM(merge="representative"),
    ],
    ids=str,
)
def test_no_tensor_grows_faster_than_the_tokens(method):
    assert largest(method, 96) <= max(1.0, largest(method, 24)) * 1.01


def test_the_look_at_tensors_would_notice_a_search_over_the_whole_grid():
    assert largest(ToMe(), 48) > 3 * largest(ToMe(), 24)
