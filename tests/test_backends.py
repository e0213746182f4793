"""Operators that planning, merging and un-merging use, against torch's own tables of backends.

torch ships the table by which it dispatches (``native_functions.yaml``). It says which operators
have a kernel on MPS and on CUDA, of which ROCm builds use the entries. XPU's table is in another
package. That an operator has a kernel does not say that the kernel is right: nothing here was run
on that hardware.
"""

import itertools
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import retom
from retom import Config, Grid, ReToM, ordering
from retom.hints import Hints
from retom.hosts import size_bias
from retom.methods import METHODS
from retom.methods.local import LOCAL_ALLOCATIONS, UNMERGES
from retom.plan import MERGE_MODES

GRID = Grid(7, 6)
COMPOSITE = "CompositeImplicitAutograd", "CompositeExplicitAutograd"

PLANS = [
    ReToM(allocation=allocation, reach=0 if allocation == "multiscale" else 1, unmerge=unmerge)
    for allocation, unmerge in itertools.product(LOCAL_ALLOCATIONS, UNMERGES)
]
PLANS += [ReToM(merge=merge) for merge in MERGE_MODES]
PLANS += [ReToM(rematch=True), ReToM(alternate=True), ReToM(ratio=0.3, window=(4, 3))]
PLANS += [method() for name, method in METHODS.items() if name != "retom"]


class Recorder(TorchDispatchMode):
    """Notes every operator that reaches a backend, and every dtype that it takes or gives."""

    def __init__(self):
        super().__init__()
        self.operators, self.dtypes = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.operators.add(func)
        for value in tree_leaves((args, kwargs, output)):
            if isinstance(value, torch.Tensor):
                self.dtypes.add(value.dtype)
        return output


def recorded(method, dtype=torch.float16):
    x = torch.randn(2, GRID.num_tokens, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    hints = Hints(importance=torch.rand(2, GRID.num_tokens)) if _asks(method) else Hints()
    if isinstance(method, ReToM) and method.allocation == "similarity":
        protected = torch.arange(GRID.num_tokens) < 5
        hints = Hints(protected=protected, turn=1)
    with Recorder() as recorder, torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "_is_quicker", lambda values: False)  # as on an accelerator
        plan = method.plan(x, GRID, hints)
        plan.unmerge(plan.merge(x), x)
        size_bias(plan, dtype)
        plan.pick(torch.zeros(2, GRID.num_tokens), dim=1)
    return recorder


def _asks(method):
    return getattr(method, "uses_guidance", False)


@pytest.fixture(scope="module")
def table():
    """Operator and overload: what torch says of it."""
    folder = Path(find_spec("torchgen").submodule_search_locations[0])
    (path,) = folder.rglob("native_functions.yaml")
    entries = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {entry["func"].partition("(")[0]: entry for entry in entries}


def has_kernel(table, operator, backend):
    """Whether a backend runs an operator, by itself or in terms of others."""
    name = operator._schema.name.removeprefix("aten::")
    overload = operator._schema.overload_name
    entry = table[f"{name}.{overload}" if overload else name]
    if "structured_delegate" in entry:
        entry = table[entry["structured_delegate"]]
    keys = [key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")]
    if "ufunc_inner_loop" in entry:  # generated for these two from one formula
        keys += ["CPU", "CUDA"]
    composite = not keys or any(key.startswith(COMPOSITE) for key in keys)
    return composite or backend in keys


@pytest.mark.parametrize("backend", ["MPS", "CUDA"])
@pytest.mark.parametrize("method", PLANS, ids=str)
def test_every_operator_has_a_kernel(table, backend, method):
    used = recorded(method).operators
    assert len(used) > 10
    missing = {str(operator) for operator in used if not has_kernel(table, operator, backend)}
    assert missing == set()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("method", PLANS, ids=str)
def test_nothing_is_computed_in_float64(method, dtype):
    """Which MPS has not at all."""
    found = recorded(method, dtype).dtypes
    assert torch.float64 not in found
    assert torch.complex128 not in found


def test_the_test_would_notice(table):
    """An operator without a kernel on MPS, and one in float64."""
    x = torch.eye(3)
    with Recorder() as recorder:
        torch.linalg.eigvals(x.double())
    assert torch.float64 in recorder.dtypes
    assert not all(has_kernel(table, operator, "MPS") for operator in recorder.operators)


def test_merging_takes_whole_configurations_on_the_meta_device():
    """Shapes follow from sizes alone, so that a backend never has to be waited for."""
    for method in PLANS:
        if _asks(method):
            continue
        x = torch.empty(2, GRID.num_tokens, 8, device="meta")
        plan = Config(method=method).method.plan(x, GRID, Hints())
        merged = plan.merge(x)
        assert merged.shape == (2, GRID.num_tokens - method.num_removed(GRID), 8)
        assert plan.unmerge(merged, x).shape == x.shape
        assert retom.hosts.size_bias(plan, torch.float16).device.type == "meta"
