"""What is recorded of merging, and what is drawn of it."""

from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
import tiny_transformers
import torch
from PIL import Image

import retom
from retom import ConfigError, Grid, viz
from retom.hints import Hints
from retom.viz.shapes import Box, Dot, Line


def a_look(**options):
    """A 2x4 grid: 0 and 1 and 4 are one, 2 and 3 are one, the others are alone."""
    values = {
        "call": 0,
        "layer": "layer",
        "level": 0,
        "grid": Grid(2, 4),
        "window": (2, 2),
        "joined": torch.tensor([1, 1, 2, 2, 1, 5, 6, 7]),
        "similarity": torch.tensor([0.5, 1.0, 1.0, 0.75, 0.9, 1.0, 1.0, 1.0]),
        "error": torch.tensor([0.4, 0.1, 0.0, 0.2, 0.3, 0.0, 0.0, 0.0]),
        "coherence": torch.tensor([0.6, 1.0]),
    }
    return viz.Look(**{**values, **options})


def boxes(drawing):
    return {(s.x, s.y): s.fill for s in drawing.shapes if isinstance(s, Box)}


def lines(drawing):
    return {(s.x1, s.y1, s.x2, s.y2) for s in drawing.shapes if isinstance(s, Line)}


def dots(drawing):
    return {(s.x, s.y) for s in drawing.shapes if isinstance(s, Dot)}


def picture(size=(20, 40)):
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_sizes_of_groups():
    look = a_look()
    assert look.group_size.tolist() == [3, 3, 2, 2, 3, 1, 1, 1]
    assert look.num_kept == 5


def test_groups_are_tinted_by_size_bordered_and_marked():
    drawing = viz.drawn(a_look(), "groups")
    tints = boxes(drawing)
    assert set(tints) == {(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)}
    assert tints[0, 0] == tints[0, 1] != tints[2, 0]
    assert dots(drawing) == {(1.5, 0.5), (2.5, 0.5)}
    # between the two groups, under 1, 2 and 3, and to the right of 4; not between 5, 6 and 7
    assert lines(drawing) == {
        (2, 0, 2, 1),
        (1, 1, 2, 1),
        (2, 1, 3, 1),
        (3, 1, 4, 1),
        (1, 1, 1, 2),
    }
    labels = [label for label, _ in drawing.legend]
    assert labels == ["alone, as it is", "2 became one", "3 became one", "stands for its group"]
    assert "8 tokens to 5" in drawing.title


def test_windows():
    drawing = viz.drawn(a_look(), "windows")
    rows = {(0, y, 4, y) for y in (0, 2)}
    columns = {(x, 0, x, 2) for x in (0, 2, 4)}
    assert lines(drawing) == rows | columns
    assert dots(drawing) == {(1.5, 0.5), (2.5, 0.5)}


@pytest.mark.parametrize(
    ("show", "worst", "best", "legend"),
    [
        ("similarity", (0, 0), (1, 0), ["0.5", "0.75", "1"]),
        ("error", (0, 0), (2, 0), ["0.4", "0.2", "0"]),
        ("coherence", (0, 0), (2, 0), ["0.6", "0.8", "1"]),
    ],
)
def test_maps_run_from_dark_for_the_worst_to_bright_for_the_best(show, worst, best, legend):
    drawing = viz.drawn(a_look(), show)
    colours = boxes(drawing)
    assert len(colours) == 8
    assert colours[worst] == (68, 1, 84, 255)
    assert colours[best] == (253, 231, 37, 255)
    assert [label for label, _ in drawing.legend] == legend


def test_a_perfect_layer_is_bright_everywhere():
    look = a_look(error=torch.zeros(8))
    assert set(boxes(viz.drawn(look, "error")).values()) == {(253, 231, 37, 255)}


def test_what_cannot_be_shown_is_said():
    with pytest.raises(ConfigError, match="show"):
        viz.drawn(a_look(), "nothing")
    plain = a_look(window=None, coherence=None)
    for show in ("windows", "coherence"):
        with pytest.raises(ConfigError, match="no windows"):
            viz.drawn(plain, show)


def test_pixels_stand_where_the_tokens_do():
    drawing = viz.drawn(a_look(), "similarity")
    drawn = viz.to_picture(drawing, picture())
    assert drawn.size == (48, 24)  # twelve pixels a token, more than the picture has
    for (x, y), fill in boxes(drawing).items():
        assert drawn.getpixel((x * 12 + 6, y * 12 + 6)) == fill[:3]
    large = viz.to_picture(drawing, picture((40, 80)))
    assert large.size == (80, 40)


def test_the_svg_holds_every_shape_and_the_picture():
    drawing = viz.drawn(a_look(layer='a<b>"c'), "groups")
    root = ElementTree.fromstring(viz.to_svg(drawing, picture()))
    names = [element.tag.rsplit("}", 1)[-1] for element in root.iter()]
    assert names.count("circle") == 2
    assert names.count("line") == len(lines(drawing))
    assert names.count("rect") == 1 + len(boxes(drawing)) + len(drawing.legend)
    assert names.count("image") == 1
    assert 'a<b>"c' in root.find("{*}title").text
    bare = ElementTree.fromstring(viz.to_svg(drawing))
    assert bare.find("{*}image") is None


def test_frames_of_an_animation_have_one_size_and_differ():
    looks = [a_look(), a_look(call=1, joined=torch.tensor([0, 0, 2, 2, 4, 4, 6, 6]))]
    first, second = viz.animation(looks, picture())
    assert first.size == second.size
    assert first.tobytes() != second.tobytes()
    with pytest.raises(ConfigError, match="at least one call"):
        viz.animation([], picture())


def test_a_page_and_a_grid_of_pictures():
    plain = a_look(window=None, coherence=None)
    whole, without = (viz.page(look, picture(), title="red") for look in (a_look(), plain))
    assert whole.width > without.width > 4 * 384
    cells = [[viz.Cell(picture()), viz.Cell(picture(), "30 dB")]]
    assert viz.grid_of(cells, columns=["a", "b"], rows=["seed 1"], title="red").width > 2 * 384
    with pytest.raises(ConfigError, match="1 rows of 3 pictures were given with rows of 2"):
        viz.grid_of(cells, columns=["a", "b", "c"], rows=["seed 1"], title="red")


@pytest.mark.parametrize("scope", ["attention", "kv", "block"])
def test_every_merging_layer_is_recorded_and_nothing_changes(scope):
    model = tiny.unet()
    arguments = tiny.inputs(size=(9, 7))
    handle = retom.apply(model, ratio=0.5, scope=scope, levels=(0,))
    plain = tiny.call(model, arguments)
    hooks = sum(len(module._forward_pre_hooks) for module in model.modules())
    with viz.record(handle) as recording:
        assert torch.equal(tiny.call(model, arguments), plain)
        assert torch.equal(tiny.call(model, arguments), plain)
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == hooks
    tiny.call(model, arguments)
    assert recording.calls == 2

    sites = [site.name for site in handle._layout.sites if site.level == 0]
    assert sorted(recording.layers) == sorted(sites)
    assert len(recording.looks) == 2 * len(sites)
    queries, _ = handle.config.method.removed_apart(Grid(9, 7))
    for look in recording.looks:
        assert look.grid == Grid(9, 7)
        assert look.num_kept == 63 - (queries if scope == "attention" else 31)
        assert look.window == (2, 2)
        assert len(look.coherence) == 20
        alone = look.group_size == 1
        assert torch.allclose(look.similarity[alone], torch.ones(int(alone.sum())))
        assert look.error[alone].abs().max() < 1e-6
        assert look.error.max() > 0.01


def test_recorded_groups_are_those_of_the_plan():
    model = tiny.unet()
    handle = retom.apply(model, ratio=0.5)
    site = next(site for site in handle._layout.sites if site.level == 0)
    tokens = []
    hook = site.inside.attention.register_forward_pre_hook(
        lambda _module, args: tokens.append(args[0].clone()), prepend=True
    )
    with viz.record(handle, item=0) as recording:
        tiny.call(model, tiny.inputs())
    hook.remove()
    plan = handle.config.method.plan(tokens[0], Grid(16, 16), Hints(apart=True)).queries
    expected = plan.kept[0].gather(0, plan.slot[0])
    assert torch.equal(recording.look(site.name).joined, expected)


def test_blocks_of_a_transformer():
    family = tiny_transformers.FAMILIES["sd3"]
    model, arguments = family.build(), family.call(6, 5, 2)
    handle = retom.apply(model, ratio=0.4)
    with viz.record(handle) as recording, torch.no_grad():
        model(**arguments)
    look = recording.look()
    tokens = look.grid.num_tokens
    assert look.num_kept == tokens - int(0.4 * tokens)


def test_a_softer_unmerge_has_groups_and_a_matrix_has_none():
    model = tiny.unet()
    handle = retom.apply(model, ratio=0.5, unmerge="similarity")
    with viz.record(handle) as recording:
        tiny.call(model, tiny.inputs())
    assert recording.look().num_kept == 256 - 90
    handle.remove()
    handle = retom.apply(model, method=retom.methods.ToMA())
    with viz.record(handle), pytest.raises(ConfigError, match="by weights"):
        tiny.call(model, tiny.inputs())
    assert tiny.is_idle(handle)


def test_asking_for_what_was_not_recorded():
    model = tiny.unet()
    with pytest.raises(ConfigError, match=r"Call retom\.apply first"), viz.record(model):
        pass
    handle = retom.apply(model, ratio=0.5)
    with pytest.raises(ConfigError, match="no layer 'x'"), viz.record(handle, layers=["x"]):
        pass
    with viz.record(model) as recording:
        pass
    with pytest.raises(ConfigError, match="Nothing merged"):
        recording.look()
    with viz.record(model) as recording:
        tiny.call(model, tiny.inputs())
    with pytest.raises(ConfigError, match="no merging layer 'x'; those that merged: down_blocks"):
        recording.look("x")
    with pytest.raises(ConfigError, match="in the calls 0 of 1; call 3 was asked for"):
        recording.look(call=3)


def test_by_default_a_layer_s_last_call_that_merged():
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, noise=(0.3, 1.0))
    with viz.record(pipe) as recording:
        tiny.latents(pipe, num_inference_steps=4)  # timesteps 751, 501, 251, 1
    assert (recording.calls, recording.look().call) == (4, 1)
    with pytest.raises(ConfigError, match="in the calls 0, 1 of 4; call -1 was asked for"):
        recording.look(call=-1)
