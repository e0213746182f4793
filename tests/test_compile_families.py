"""Every family under torch.compile: the denoiser as one graph, or its blocks where it is none.

``compiled.GAPS`` is the table: docs/models.md prints it, and a gap that has closed fails here.
"""

import pytest
import torch
from compiled import GAPS, WHOLE
from models_page import ALL
from torch._dynamo.testing import CompileCounterWithBackend

import retom
from retom.testing.runs import randomise_zeros, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fresh_compiler"),
    # torch says once a process that it does so, of Nucleus's tables.
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a .functools.lru_cache"),
]
LIMIT = 8
"""Graphs of one piece of code, after which torch gives up."""


def built(name):
    """The model; parameters that start at zero would hide what merging does."""
    model = ALL[name].build()
    randomise_zeros(model, 0)
    return model


def test_the_table_has_no_family_that_is_gone():
    assert ALL.keys() >= GAPS.keys()
    assert WHOLE not in GAPS.values()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            id=name.replace(" ", "-"),
            marks=[pytest.mark.xfail(strict=True, reason=GAPS[name])] if name in GAPS else [],
        )
        for name in ALL
    ],
)
@torch.no_grad()
def test_a_merging_denoiser_is_one_graph_with_the_eager_result(name):
    plain, arguments = built(name), ALL[name].call(8, 6, 2)
    unmerged = run(plain, arguments)
    retom.apply(plain)
    merged = run(plain, arguments)
    counter = CompileCounterWithBackend("eager")
    fast = torch.compile(built(name), backend=counter, fullgraph=True, dynamic=False)
    retom.apply(fast)
    for _ in range(2):
        assert torch.equal(run(fast, arguments), merged)
    assert counter.frame_count == 1
    assert not torch.equal(merged, unmerged)


@pytest.mark.parametrize("name", GAPS, ids=lambda name: name.replace(" ", "-"))
@torch.no_grad()
def test_a_denoiser_that_is_no_graph_is_none_un_merged(name):
    """So the gap is the model's, and not of merging."""
    family = ALL[name]
    fast = torch.compile(family.build(), backend="eager", fullgraph=True, dynamic=False)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        run(fast, family.call(8, 6, 2))


@pytest.mark.parametrize(
    "name",
    [name for name, what in GAPS.items() if not what.startswith("no")],
    ids=lambda name: name.replace(" ", "-"),
)
@torch.no_grad()
def test_its_blocks_compile_instead(name):
    model, arguments = built(name), ALL[name].call(8, 6, 2)
    handle = retom.apply(model)
    merged = run(model, arguments)
    counter = CompileCounterWithBackend("eager")
    for site in handle._layout.sites:
        site.block.compile(backend=counter, fullgraph=True, dynamic=False)
    for _ in range(2):
        assert torch.equal(run(model, arguments), merged)
    assert 0 < counter.frame_count <= LIMIT
