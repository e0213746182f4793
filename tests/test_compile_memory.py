"""Graphs that overwrite what they returned, as CUDA graphs do: plans that are kept outlive that.

No GPU is needed for the hazard: here a backend remembers what its graphs gave, and the test spoils
all of it after each call. tests/test_gpu.py replays real CUDA graphs.
"""

from itertools import product

import pytest
import tiny
import torch
from compiled import NOISE
from test_compile_matrix import build, inputs

import retom

pytestmark = pytest.mark.usefixtures("fresh_compiler")


class Overwriting:
    """A backend of torch.compile."""

    def __init__(self):
        self._given = []

    def __call__(self, graph, _):
        held = {storage(weight) for weight in (*graph.parameters(), *graph.buffers())}

        def run(*arguments):
            taken = held | {storage(x) for x in arguments if isinstance(x, torch.Tensor)}
            given = graph(*arguments)
            tensors = [x for x in given if isinstance(x, torch.Tensor)]
            self._given += [x for x in tensors if storage(x) not in taken]
            return given

        return run

    def spoil(self):
        """What the next replay would do; says how many tensors there were."""
        for tensor in self._given:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        found, self._given = len(self._given), []
        return found


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


QUICK = ("qwen", "blocks", "level")
CASES = [
    pytest.param(*case, marks=[] if case == QUICK else [pytest.mark.slow])
    for case in product(("unet", "sd3", "flux", "qwen"), ("whole", "blocks"), ("layer", "level"))
]


@pytest.mark.parametrize(("name", "parts", "share"), CASES)
def test_kept_plans_are_not_overwritten(name, parts, share):
    backend = Overwriting()
    options = {"backend": backend, "fullgraph": True, "dynamic": False}
    plain, fast = build(name), build(name)
    if parts == "whole":
        fast = torch.compile(fast, **options)
    handle = retom.apply(fast, refresh=2, share=share)
    retom.apply(plain, refresh=2, share=share)
    if parts == "blocks":
        for site in handle._layout.sites:
            site.block.compile(**options)
    for noise in (*NOISE, *NOISE):
        arguments = inputs(name, noise)
        found = tiny.call(fast, arguments).clone()
        assert torch.equal(found, tiny.call(plain, arguments))
        assert backend.spoil()
