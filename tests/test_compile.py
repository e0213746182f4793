"""What torch.compile makes of a merging denoiser: the support matrix.

The backends ``eager`` and ``aot_eager`` trace as Inductor does and generate no code, so they are
quick and bit-exact; Inductor itself is in the slow tests.
"""

import pytest
import tiny
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import retom

pytestmark = pytest.mark.usefixtures("fresh_compiler")


def small_unet(*, levels: int = 1, **options):
    """Attention in every stage, no middle: quick to trace."""
    return tiny.unet(attention=(True,) * levels, mid_block_type=None, **options)


def compiled(model, backend="eager", **options):
    """The compiled model, and what counts its graphs; a graph break is an error."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, backend=counter, fullgraph=True, **options), counter


def test_merging_is_one_graph_with_the_eager_result():
    model = small_unet()
    arguments = tiny.inputs(size=(17, 13))
    retom.apply(model, levels="all")
    merged = tiny.call(model, arguments)
    fast, graphs = compiled(model)

    assert torch.equal(tiny.call(fast, arguments), merged)
    assert torch.equal(tiny.call(fast, arguments), merged)
    assert graphs.frame_count == 1


def test_slopes_of_wide_tokens_are_one_graph_with_the_eager_result_and_gradients():
    model = small_unet(block_out_channels=(48,))  # more than 32: along a few directions
    arguments = tiny.inputs(size=(11, 8))
    retom.apply(model)
    results = []
    fast, graphs = compiled(model, "aot_eager")
    for run in (model, fast):
        sample = arguments["sample"].clone().requires_grad_()
        output = run(**{**arguments, "sample": sample}).sample
        output.square().sum().backward()
        results.append((output.detach(), sample.grad))
    assert graphs.frame_count == 1
    torch.testing.assert_close(*(output for output, _ in results), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(gradient for _, gradient in results), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        retom.ReToM(rematch=True, unmerge="similarity"),
        retom.ReToM(unmerge="linear"),
        retom.methods.ToMA(),
    ],
    ids=["soft", "linear", "matrix"],
)
def test_other_plans_are_one_graph_too(method):
    model = small_unet()
    arguments = tiny.inputs(size=(11, 8))
    retom.apply(model, retom.Config(method=method, score="block"))
    merged = tiny.call(model, arguments)
    fast, graphs = compiled(model)
    assert torch.equal(tiny.call(fast, arguments), merged)
    assert graphs.frame_count == 1


def test_applying_to_a_compiled_model_before_its_first_call():
    model = small_unet()
    arguments = tiny.inputs()
    fast, graphs = compiled(model)
    handle = retom.apply(fast)
    assert retom.handle_of(model) is handle
    assert retom.handle_of(fast) is handle

    output = tiny.call(fast, arguments)
    assert graphs.frame_count == 1
    assert torch.equal(output, tiny.call(model, arguments))
    handle.enabled = False
    assert not torch.equal(output, tiny.call(model, arguments))


def test_switching_compiles_once_for_on_and_once_for_off():
    model = small_unet()
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model)
    merged = tiny.call(model, arguments)
    fast, graphs = compiled(model)

    for _ in range(3):
        assert torch.equal(tiny.call(fast, arguments), merged)
        handle.enabled = False
        assert torch.equal(tiny.call(fast, arguments), unmerged)
        handle.enabled = True
    assert graphs.frame_count == 2
    handle.remove()
    assert torch.equal(tiny.call(fast, arguments), unmerged)


@pytest.mark.slow
def test_update_after_a_compiled_call_counts():
    model = small_unet(levels=2)
    arguments = tiny.inputs()
    handle = retom.apply(model)
    fast, _ = compiled(model)
    tiny.call(fast, arguments)
    handle.update(ratio=0.3, levels="all")
    assert torch.equal(tiny.call(fast, arguments), tiny.call(model, arguments))


@pytest.mark.slow
def test_removal_after_a_compiled_call_is_bit_exact():
    model = small_unet()
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model)
    fast, _ = compiled(model)
    assert not torch.equal(tiny.call(fast, arguments), unmerged)
    handle.remove()
    assert torch.equal(tiny.call(fast, arguments), unmerged)


# torch guards no hook dict that was empty when it compiled (skip_nnmodule_hook_guards), so a graph
# compiled before retom.apply would go on running un-merged: applying resets the compiler.
@pytest.mark.parametrize(
    "again",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["first", "after removal"],
)
def test_applying_after_a_compiled_call_counts(again):
    model = small_unet()
    arguments = tiny.inputs()
    fast, _ = compiled(model)
    if again:
        with retom.applied(fast):
            tiny.call(fast, arguments)
    tiny.call(fast, arguments)
    retom.apply(fast)
    assert torch.equal(tiny.call(fast, arguments), tiny.call(model, arguments))


# For the same reason the blocks of levels that do not merge have hooks too: a graph of theirs would
# otherwise serve the merging blocks, which share their code.
def test_repeated_blocks_give_the_eager_result():
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    retom.apply(model)
    merged = tiny.call(model, arguments)
    model.compile_repeated_blocks(backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.equal(tiny.call(model, arguments), merged)


def test_repeated_blocks_that_all_merge_give_the_eager_result():
    model = small_unet()
    arguments = tiny.inputs()
    retom.apply(model, levels="all")
    merged = tiny.call(model, arguments)
    model.compile_repeated_blocks(backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.equal(tiny.call(model, arguments), merged)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("size", [(16, 16), (17, 13)], ids=str)
def test_other_backends_give_the_eager_result(family, backend, size):
    model = family.build()
    arguments = tiny.inputs(family.name, size=size)
    retom.apply(model, levels="all")
    fast, graphs = compiled(model, backend)
    # Inductor fuses and adds up in another order: float32 rounding of outputs of about 0.4.
    torch.testing.assert_close(
        tiny.call(fast, arguments), tiny.call(model, arguments), rtol=1e-4, atol=1e-5
    )
    tiny.call(fast, arguments)
    assert graphs.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, True], ids=["automatic", "dynamic"])
def test_graphs_for_many_sizes_are_bounded(dynamic):
    model = small_unet()
    retom.apply(model)
    fast, graphs = compiled(model, dynamic=dynamic)
    sizes = [(16, 16), (24, 16), (16, 24), (32, 16), (20, 12)]
    for size in sizes:
        arguments = tiny.inputs(size=size)
        assert torch.equal(tiny.call(fast, arguments), tiny.call(model, arguments)), size
    # A graph a size, and those in which torch tried a symbol for a height or width and gave it up.
    assert graphs.frame_count <= len(sizes) + 4
    before = graphs.frame_count
    for size in sizes:
        tiny.call(fast, tiny.inputs(size=size))
    assert graphs.frame_count == before


@pytest.mark.slow
def test_gradients_through_a_compiled_model_are_those_of_the_eager_one():
    model = small_unet().train()
    arguments = tiny.inputs()
    retom.apply(model, levels="all")
    fast, _ = compiled(model, "aot_eager")

    def gradients(call):
        model.zero_grad(set_to_none=True)
        call(**arguments, return_dict=False)[0].square().mean().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    expected, found = gradients(model), gradients(fast)
    for name, gradient in expected.items():
        # ahead-of-time autograd may add gradients up in another order
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
