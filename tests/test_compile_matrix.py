"""What torch.compile and torch.export make of a merging denoiser, family by family.

``GRAPHS`` is the support matrix: the tests hold it to the graphs counted, and docs/compatibility.md
prints it. Sizes are static (``dynamic=False``).
"""

import pytest
import tiny
import tiny_transformers
import torch
from compiled import GRAPHS, MODES, NO_REPEATED_BLOCKS, NOISE, QUICK, deep, schedule_of
from torch._dynamo.testing import CompileCounterWithBackend

import retom

pytestmark = pytest.mark.usefixtures("fresh_compiler")


def build(name):
    if name == "unet":  # attention in every stage, no middle: quick to trace
        return tiny.unet(attention=(True,), mid_block_type=None)
    return tiny_transformers.FAMILIES[name].build()


def inputs(name, noise=0.5):
    """Arguments of a call at a noise level."""
    if name == "unet":
        return {**tiny.inputs(), "timestep": torch.tensor(1000 * noise)}
    arguments = tiny_transformers.FAMILIES[name].call(8, 6, 2)
    scale = 1000 if name == "sd3" else 1
    return {**arguments, "timestep": torch.full((2,), scale * noise)}


def compiled(model, backend="eager"):
    """The compiled model, and what counts its graphs; a graph break is an error."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, backend=counter, fullgraph=True, dynamic=False), counter


def cases(*modes):
    """The denoisers that have graphs to count, as (name, mode) where there are several modes."""
    found = []
    for mode in modes:
        for name, graphs in GRAPHS[mode].items():
            if isinstance(graphs, int) or mode == "export":
                values = (name,) if len(modes) == 1 else (name, mode)
                marks = () if (mode, name) in QUICK else (pytest.mark.slow,)
                found.append(pytest.param(*values, marks=marks, id="-".join(values)))
    return found


def test_every_mode_has_a_number_or_a_reason_for_every_denoiser():
    assert GRAPHS.keys() == MODES.keys()
    for mode, row in GRAPHS.items():
        assert row.keys() == {"unet", "sd3", "flux", "qwen"}, mode


@pytest.mark.parametrize("name", cases("whole"))
def test_the_whole_denoiser_has_no_graph_break_and_the_eager_result(name):
    plain, arguments = build(name), inputs(name)
    unmerged = tiny.call(plain, arguments)
    retom.apply(plain)
    fast, graphs = compiled(build(name))
    retom.apply(fast)
    merged = tiny.call(fast, arguments)
    assert torch.equal(tiny.call(fast, arguments), merged)
    assert graphs.frame_count == GRAPHS["whole"][name]
    assert torch.equal(tiny.call(plain, arguments), merged)
    assert not torch.equal(merged, unmerged)


@pytest.mark.slow
# What Inductor says of Qwen-Image's own rotary tables, which are complex, with merging or without.
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["sd3", "flux", "qwen"])
def test_other_backends_give_the_eager_result(name, backend):
    plain, arguments = build(name), inputs(name)
    retom.apply(plain)
    fast, graphs = compiled(build(name), backend)
    retom.apply(fast)
    # Inductor fuses and adds up in another order: float32 rounding of outputs of about 1.
    torch.testing.assert_close(
        tiny.call(fast, arguments), tiny.call(plain, arguments), rtol=1e-4, atol=1e-5
    )
    assert graphs.frame_count == 1


@pytest.mark.parametrize("name", cases("repeated"))
def test_graphs_of_repeated_blocks_do_not_grow_with_the_blocks(name):
    """More merging blocks than the recompile limit allows graphs: one each would be an error."""
    model, arguments = deep(name), inputs(name)
    handle = retom.apply(model)
    assert len(handle._layout.sites) == 12 > torch._dynamo.config.recompile_limit
    merged = tiny.call(model, arguments)
    counter = CompileCounterWithBackend("eager")
    model.compile_repeated_blocks(backend=counter, fullgraph=True, dynamic=False)
    for _ in range(2):
        assert torch.equal(tiny.call(model, arguments), merged)
    assert counter.frame_count == GRAPHS["repeated"][name]


@pytest.mark.parametrize("name", cases("one by one"))
def test_blocks_are_compiled_one_by_one_where_diffusers_names_none_to_repeat(name):
    model, arguments = deep(name), inputs(name)
    with pytest.raises(ValueError, match=NO_REPEATED_BLOCKS):
        model.compile_repeated_blocks()
    handle = retom.apply(model)
    merged = tiny.call(model, arguments)
    counter = CompileCounterWithBackend("eager")
    for site in handle._layout.sites:
        site.block.compile(backend=counter, fullgraph=True, dynamic=False)
    for _ in range(2):
        assert torch.equal(tiny.call(model, arguments), merged)
    assert counter.frame_count == GRAPHS["one by one"][name]


@pytest.mark.parametrize(("name", "mode"), cases("refresh", "alternate", "rules"))
def test_a_schedule_has_a_graph_for_each_mode_and_a_second_generation_none(name, mode):
    model, plain = build(name), build(name)
    fast, graphs = compiled(model)
    retom.apply(fast, **schedule_of(mode))
    retom.apply(plain, **schedule_of(mode))
    counts = []
    for noise in (*NOISE, *NOISE):
        arguments = inputs(name, noise)
        assert torch.equal(tiny.call(fast, arguments), tiny.call(plain, arguments))
        counts.append(graphs.frame_count)
    assert counts[len(NOISE) - 1] == counts[-1] == GRAPHS[mode][name]


@pytest.mark.parametrize(
    ("name", "mode"), cases("refresh by blocks", "alternate by blocks", "rules by blocks")
)
def test_blocks_under_a_schedule_stay_within_the_limit_and_get_none_in_a_second_generation(
    name, mode
):
    model, plain = deep(name), deep(name)
    handle = retom.apply(model, **schedule_of(mode))
    retom.apply(plain, **schedule_of(mode))
    counter = CompileCounterWithBackend("eager")
    options = {"backend": counter, "fullgraph": True, "dynamic": False}  # at its limit torch raises
    if name == "sd3":
        for site in handle._layout.sites:
            site.block.compile(**options)
    else:
        model.compile_repeated_blocks(**options)
    counts = []
    for noise in (*NOISE, *NOISE):
        arguments = inputs(name, noise)
        assert torch.equal(tiny.call(model, arguments), tiny.call(plain, arguments))
        counts.append(counter.frame_count)
    assert counts[len(NOISE) - 1] == counts[-1] == GRAPHS[mode][name]


@pytest.mark.parametrize("name", cases("export"))
def test_an_exported_denoiser_merges(name):
    """Without retom: what merges is in the exported program."""
    model, arguments = build(name), {**inputs(name), "return_dict": False}
    plain = tiny.call(model, inputs(name))
    handle = retom.apply(model)
    if name == "flux":
        handle.set_grid(8, 6)  # its ids cannot be read in a graph
    merged = tiny.call(model, inputs(name))
    program = torch.export.export(model, (), arguments)
    handle.remove()
    with torch.no_grad():
        exported = program.module()(**arguments)[0]
    assert torch.equal(exported, merged)
    assert not torch.equal(exported, plain)


@pytest.mark.parametrize("name", ["flux"])
def test_ids_in_a_graph_are_refused_with_what_to_do(name):
    model = build(name)
    retom.apply(model)
    with pytest.raises(Exception, match=r"handle\.set_grid\(height, width\)"):
        torch.export.export(model, (), {**inputs(name), "return_dict": False})
