"""retom.bench: the oracle, peaks of memory, single places, and who is timed."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")

import tiny
import tiny_transformers
from torch.utils.flop_counter import FlopCounterMode

import retom
from retom.benchmarking.bench import bench
from retom.benchmarking.case import _ready
from retom.benchmarking.chart import speed_chart
from retom.benchmarking.files import check_folder, write_files
from retom.benchmarking.lineup import lineup, oracle_of
from retom.benchmarking.memory import available_bytes, peak_bytes
from retom.benchmarking.oracle import Oracle
from retom.benchmarking.places import places
from retom.benchmarking.ready import ready_denoiser, ready_place
from retom.benchmarking.settings import Settings
from retom.benchmarking.spots import Spot
from retom.benchmarking.subject import ROOM, Subject, given, part_for, subject_named
from retom.evaluation.tokens import in_all, tokens_in_layers
from retom.explanation.known import load_known
from retom.explanation.one_call import one_call
from retom.explanation.subject import Subject as About
from retom.explanation.subject import build, meta_copy

CPU = torch.device("cpu")


def hollow(denoiser, *, size, stride=8, name="tiny"):
    """A subject with random weights, as a shipped configuration is one."""
    about = About(name, meta_copy(denoiser), "a test", size, stride, 5, "a test")
    return Subject(name, about, None, CPU, torch.float32)


def named(name, **small):
    """A subject as its name makes it, but smaller."""
    known = load_known(name)
    config = {**known.config, **small}
    known = replace(known, config=config, height=128, width=96, text_tokens=5)
    about = About(name, build(known), "a test", (128, 96), 8, 5, "a test")
    return Subject(name, about, None, CPU, torch.float32)


def inputs_of(subject, batch=2):
    return given(one_call(subject.about, batch=batch)[2], subject, 0)


def by_name(settings, auto="attention"):
    return {contender.name: contender for contender in lineup(settings, auto)[0]}


# ---- the oracle


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
def test_oracle_slices_and_repeats(ratio):
    x = torch.arange(20.0).reshape(1, 20, 1)
    plan = Oracle(ratio=ratio).plan(x, retom.Grid(4, 5))
    kept = 20 - int(20 * ratio)
    assert plan.merge(x).flatten().tolist() == list(range(kept))
    assert plan.unmerge(plan.merge(x)).flatten().tolist() == [i % kept for i in range(20)]
    assert plan.pick(torch.arange(20)[None], dim=1).tolist() == [list(range(kept))]
    assert plan.repeated(3).kept.shape == (3, kept)
    with pytest.raises(retom.ConfigError, match="can protect none"):
        Oracle(ratio=ratio).check_protected(torch.ones(20, dtype=torch.bool), retom.Grid(4, 5))


def test_oracle_has_no_more_flops_than_a_method_on_the_same_tokens():
    pytest.importorskip("tomesd")
    unet = tiny.sd15_unet()
    subject = hollow(unet, size=(128, 128))
    inputs = inputs_of(subject)
    chosen = by_name(Settings(methods=["retom", "toma", "tomesd"], scopes=["attention"]))
    flops, tokens = {}, {}
    for name, contender in {"un-merged": None, **chosen}.items():
        ready = ready_denoiser(unet, inputs, contender)
        tokens[name] = tokens_in_layers(ready.model, ready.run)
        with FlopCounterMode(display=False) as counter:
            ready.run()
        flops[name] = counter.get_total_flops()
    for name, contender in chosen.items():
        oracle = oracle_of(contender).name
        assert flops[oracle] <= flops[name]
        assert flops[oracle] < flops["un-merged"]
        assert tokens[oracle] == tokens[name] != tokens["un-merged"]
    # what leans towards keys has an oracle that does the same
    alike, leaning = "oracle · 0.5 · attention", "oracle:kv_lean=0.6 · 0.5 · attention"
    assert oracle_of(chosen["retom · 0.5 · attention"]).name == leaning
    assert tokens[leaning] != tokens[alike]
    assert in_all(tokens[leaning]) == in_all(tokens[alike])


def test_options_and_peers_merge_as_many_tokens_as_the_oracle():
    unet = tiny.sd15_unet()
    inputs = inputs_of(hollow(unet, size=(64, 64)))
    specs = ["retom:rematch=true", "retom:unmerge=similarity", "retom:score=block/keys", "tome"]
    specs += ["sito", "toma", "sdtm", "importance", "random_representative", "window_corner"]
    chosen = by_name(Settings(methods=specs))
    counts = {}
    for name, contender in chosen.items():
        ready = ready_denoiser(unet, inputs, contender)
        found = tokens_in_layers(ready.model, ready.run)
        counts[name] = {layer: tokens[-1:] for layer, tokens in found.items()}
    assert len(counts) == 13
    for name, contender in chosen.items():
        assert counts[name] == counts[oracle_of(contender).name]
        assert in_all(counts[name]) == in_all(counts["oracle · 0.5 · attention"])


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "block", "kv"])
def test_oracle_runs_in_every_scope(scope):
    unet = tiny.sdxl_unet()
    inputs = inputs_of(hollow(unet, size=(128, 128)))
    oracle = by_name(Settings(methods=["oracle"], scopes=[scope]))[f"oracle · 0.5 · {scope}"]
    ready = ready_denoiser(unet, inputs, oracle)
    assert ready.run()[0].shape == inputs["sample"].shape


# ---- memory


def test_peak_is_what_is_held_at_once():
    """Of (x + 1) * 2 both factors' results stand side by side; then one is let go."""
    x = torch.zeros(2**18)  # 1 MiB, there before

    def call():
        y = (x + 1) * 2  # 2 MiB at once, then 1
        return (y + y).sum()  # 2 MiB at once

    found = peak_bytes(call, CPU)
    assert 2 * 2**20 <= found < 2 * 2**20 + 1024  # numbers such as 1 and 2 become tensors too
    assert peak_bytes(lambda: x[3:7], CPU) == 0


def test_peak_does_not_depend_on_what_ran_before():
    x = torch.zeros(1000)
    assert [peak_bytes(lambda: x.clone(), CPU) for _ in range(3)] == [4000] * 3


def test_something_is_available():
    free = available_bytes(CPU)
    assert free is None or 2**20 < free < 2**50


# ---- what is timed


def test_a_model_too_large_is_timed_by_its_blocks_and_says_so(monkeypatch):
    subject = hollow(tiny.sd15_unet(), size=(128, 128), name="huge")
    need = 4 * subject.parameters
    for free, part in ((ROOM * need, "denoiser"), (ROOM * need - 1, "block")):
        monkeypatch.setattr("retom.benchmarking.subject.available_bytes", lambda _, f=free: f)
        found, why = part_for(subject, "auto")
        assert found == part
        assert "huge has" in why
        assert "available" in why
    assert "does not fit" in why
    assert part_for(subject, "denoiser") == ("denoiser", "Timed: denoiser, as asked.")
    with pytest.raises(retom.ConfigError, match="huge is a configuration without a pipeline"):
        part_for(subject, "picture")


def test_random_weights_are_finite_and_seeded():
    subject = hollow(tiny.sdxl_unet(), size=(128, 128))
    outputs = [ready_denoiser(subject.denoiser(3), inputs_of(subject), None).run() for _ in "ab"]
    assert bool(outputs[0][0].isfinite().all())
    assert torch.equal(outputs[0][0], outputs[1][0])
    other = ready_denoiser(subject.denoiser(4), inputs_of(subject), None).run()
    assert not torch.equal(outputs[0][0], other[0])


@pytest.mark.parametrize(
    ("name", "small"),
    [
        (
            "lumina-image-2",
            {
                "num_layers": 1,
                "num_refiner_layers": 1,
                "hidden_size": 288,
                "num_attention_heads": 3,
                "num_kv_heads": 1,
                "cap_feat_dim": 16,
            },
        ),
        ("qwen-image", {"num_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 16}),
    ],
)
def test_rotary_tables_outside_of_parameters_get_numbers(name, small):
    subject = named(name, **small)
    output = ready_denoiser(subject.denoiser(0), inputs_of(subject), None).run()
    assert bool(output[0].isfinite().all())


def test_pictures_in_a_list_are_twice_the_same():
    subject = hollow(tiny_transformers.FAMILIES["z-image"].build(), size=(128, 96))
    inputs = inputs_of(subject)
    assert torch.equal(inputs["x"][0], inputs["x"][1])
    assert len(ready_denoiser(subject.denoiser(0), inputs, None).run()[0]) == 2


def test_a_place_is_called_with_what_the_whole_denoiser_gives_it():
    """Only the place has numbers; its tokens are those of the level."""
    subject = hollow(tiny.sdxl_unet(), size=(128, 128))
    inputs = inputs_of(subject)
    found = places(subject, inputs, "layer", "all", 0)
    assert [place.site.level for place in found] == [0, 1]
    assert [str(place.grid) for place in found] == ["8x8", "4x4"]
    assert [place.alike for place in found] == [3, 8]
    for place in found:
        module = place.denoiser.get_submodule(place.module)
        assert all(p.device == CPU for p in module.parameters())
        assert place.call[0][0].shape[:2] == (2, place.grid.num_tokens)
    assert found[0].denoiser.conv_in.weight.device.type == "meta"
    with pytest.raises(retom.ConfigError, match="level 5 was given"):
        places(subject, inputs, "layer", (5,), 0)


@pytest.mark.parametrize("name", ["flux", "lumina2", "sd3", "z-image"])
def test_blocks_of_transformers_merge_as_in_the_whole(name):
    family = tiny_transformers.FAMILIES[name]
    model = family.build()
    subject = hollow(model, size=(128, 128))
    inputs = inputs_of(subject, batch=1)
    found = places(subject, inputs, "block", (0,), 0)
    assert found
    contenders = by_name(Settings(methods=["retom"]), "block")
    for place in found:
        tokens = []
        for contender in (None, *contenders.values()):
            ready = ready_place(place, contender)
            tokens.append(tokens_in_layers(ready.model, ready.run))
            for piece in ready.pieces.values():
                piece()
        assert tokens[0] != tokens[1] == tokens[2]
    with pytest.raises(retom.ConfigError, match="use part block"):
        places(subject, inputs, "layer", (0,), 0)


def test_a_place_merges_the_same_numbers_as_in_the_whole_denoiser():
    """With the same weights, input and plan, the block alone gives what it gives in the model."""
    pipe = tiny.sd_pipeline()
    subject = subject_named(pipe)
    inputs = inputs_of(subject)
    (place,) = places(subject, inputs, "block", (0,), 0)
    merged = by_name(Settings(methods=["retom"]))["retom · 0.5 · attention"]
    calls = {}
    block = pipe.unet.get_submodule(place.block)
    hook = block.register_forward_pre_hook(
        lambda _, args, kwargs: calls.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    with torch.no_grad(), retom.applied(pipe, merged.merging):
        outputs = []
        after = block.register_forward_hook(lambda _, __, out: outputs.append(out))
        pipe.unet(**inputs)
        after.remove()
    hook.remove()
    object.__setattr__(place, "call", (calls["args"], calls["kwargs"]))
    assert torch.equal(ready_place(place, merged).run(), outputs[0])


# ---- a whole run


SMALL = "retom:window=2x2"


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("tomesd")
    told = []
    result = bench(
        tiny.sd_pipeline(),
        rounds=2,
        methods=[
            "unmerged",
            "oracle",
            SMALL,
            "todo",
            "tomesd",
            "retom:refresh=2",
            "retom:noise=0.2+1",
        ],
        ratios=[0.5, 0.8],
        scopes=["attention", "kv"],
        on_progress=lambda *words: told.append(words),
    )
    return result, told


def test_every_contender_has_a_row_with_its_numbers(found):
    result, told = found
    (case,) = result.cases
    labels = [row.label for row in case.rows]
    assert labels[0] == "un-merged"
    assert len(set(labels)) == len(labels)
    for ratio in (0.5, 0.75, 0.8):  # todo's window fixes its ratio at 0.75
        assert f"oracle · {ratio} · attention" in labels
    timed = [row for row in case.rows if row.seconds]
    assert {row.method for row in timed} >= {"un-merged", "oracle", SMALL, "todo", "tomesd"}
    for row in timed:
        assert len(row.seconds) == 2
        assert row.peak > 0
        assert row.milliseconds == pytest.approx(500 * sum(row.seconds))
    assert case.row(SMALL).kept == 128
    assert case.row("todo").kept == 64
    # 128 numbers of the kept tokens are all that the oracle holds beyond un-merged
    assert case.row("oracle").peak <= case.row("un-merged").peak + 128 * 8
    assert told[-1][2:] == (2, 2)


def test_who_cannot_merge_has_a_sentence_instead_of_a_time(found):
    rows = {row.label: row for row in found[0].cases[0].rows}
    assert "0.8" in rows[f"{SMALL} · 0.8 · attention"].note  # they give up 0.75 at most
    assert "other numbers of tokens than the oracle" in rows["tomesd · 0.8 · attention"].note
    assert not rows[f"{SMALL} · 0.8 · attention"].seconds
    assert "use part picture" in rows["retom:refresh=2 · 0.5 · attention"].note
    assert "with retom eval" in rows["retom:noise=0.2+1 · 0.5 · attention"].note
    notes = "\n".join(found[0].notes())
    assert "tomesd · kv: not timed. It merges around the self-attention of UNets" in notes


def test_files_hold_the_same_numbers(found, tmp_path):
    result, _ = found
    check_folder(tmp_path / "deep" / "er")
    paths = write_files(result, tmp_path / "deep" / "er")
    assert [path.name for path in paths] == ["bench.json", "bench.csv", "bench.md", "bench.svg"]
    data = json.loads(paths[0].read_text("utf-8"))
    assert data["format"] == 1
    assert data["seed"] == 0
    assert data["source"]["versions"]["torch"] == torch.__version__
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text("utf-8"))))
    assert len(rows) == len(result.cases[0].rows)
    own = next(row for row in rows if row["method"] == SMALL and row["ratio"] == "0.5")
    kept = result.cases[0].row(SMALL)
    assert float(own["speedup"]) == kept.speedup.value
    assert float(own["peak_mib"]) == kept.peak / 2**20
    (stamp,) = {row["measured"] for row in rows}
    assert all(word in stamp for word in ("commit ", "torch ", "device cpu"))
    page = paths[2].read_text("utf-8")
    assert f"| {SMALL} · 0.5 · attention | 256 to 128 |" in page
    assert "Seed 0." in page
    assert "Peak memory: allocations of torch's CPU allocator" in page
    assert "| not timed |" in page
    drawn = paths[3].read_text("utf-8")
    assert re.search(r"<svg[^>]*><desc>[^<]*commit [^<]*device cpu[^<]*</desc>", drawn)
    assert drawn.startswith("<svg ")
    assert drawn.count("<circle") == sum(row.speedup is not None for row in result.cases[0].rows)


def test_the_chart_is_well_formed(found):
    from xml.etree import ElementTree

    ElementTree.fromstring(speed_chart(found[0]))


def test_tomesd_merges_nothing_on_sdxl_at_its_defaults_and_the_table_says_so():
    pytest.importorskip("tomesd")
    result = bench(tiny.sdxl_pipeline(), rounds=2, methods=["tomesd", "tomesd:max_downsample=1"])
    first, second = (row for row in result.cases[0].rows if row.method.startswith("tomesd"))
    assert first.seconds
    assert second.note.startswith("It merges nothing here: no layer")
    assert not second.seconds


def test_tomesd_is_left_out_where_it_cannot_merge_these_levels_alone():
    pytest.importorskip("tomesd")
    found, left_out = lineup(Settings(methods=["retom", "tomesd"], levels=(1,)), "attention")
    assert [contender.method for contender in found] == ["oracle", "oracle:kv_lean=0.6", "retom"]
    assert "without a gap" in left_out["tomesd · attention"]


def test_layers_have_plan_merge_and_unmerge():
    pytest.importorskip("tomesd")
    result = bench(
        tiny.sd_pipeline(),
        rounds=2,
        part="layer",
        methods=[
            "retom",
            "retom:share=level",
            "tomesd",
            "retom:refresh=2",
            "retom:noise=0.2+1",
            "importance",
        ],
        scopes=["attention"],
    )
    (case,) = result.cases
    assert case.name.startswith("layer down_blocks.0.attentions.0.transformer_blocks.0.attn1")
    rows = {row.method: row for row in case.rows}
    for name in ("oracle", "retom", "retom:share=level", "tomesd"):
        assert rows[name].pieces.keys() == {"plan", "merge", "unmerge"}
        assert rows[name].overhead.value > 0
    assert rows["un-merged"].overhead is None
    for name in ("retom:refresh=2", "importance"):
        assert "use part denoiser or picture" in rows[name].note
    assert "with retom eval" in rows["retom:noise=0.2+1"].note
    assert "plan ms" in str(result)


def test_whole_pictures_are_timed():
    result = bench(
        tiny.sd_pipeline(), rounds=2, part="picture", methods=["retom:refresh=1"], steps=1
    )
    assert result.cases[0].name == "whole picture, 128x128 px, 1 steps"
    assert result.cases[0].row("retom:refresh=1").seconds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ["magic"]}, "Unknown method 'magic'.*unmerged and oracle always take part"),
        ({"methods": ["oracle:x=1"]}, "oracle takes no options"),
        ({"methods": ["retom", "retom:reach=1"]}, "is named twice"),
        ({"methods": ["tomesd:max_downsample=x"]}, "max_downsample=1, 2, 4 or 8"),
        ({"sizes": [(100, 128)]}, "multiples of 8 pixels"),
        ({"sizes": []}, "sizes are at least one"),
        ({"ratios": [1.0]}, "ratios are above 0 and below 1"),
        ({"levels": (7,)}, "level 7 was given"),
        ({"scopes": ["mlp"]}, "scope"),
        ({"part": "half"}, "part"),
        ({"rounds": 1}, "rounds is a whole number of at least 2"),
        ({"magic": 1}, "has no option magic"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(retom.RetomError, match=words):
        bench(tiny.sd_pipeline(), **{"rounds": 2, **options})


def test_an_unknown_name_lists_what_is_shipped():
    with pytest.raises(retom.ModelError, match=r"flux-dev.*a hub id is written owner/name"):
        bench("flux-9")


def test_a_merged_pipeline_is_refused():
    pipe = tiny.sd_pipeline()
    with retom.applied(pipe), pytest.raises(retom.ConfigError, match="applied to this pipeline"):
        bench(pipe)


# ---- contenders that skip what does not pay


@pytest.mark.parametrize("part", ["denoiser", "layer", "block"])
def test_a_contender_that_skips_is_timed_and_says_what_it_skipped(part):
    """On a 16x16 grid of 8 channels planning alone takes many times the layer."""
    methods = ["retom", "retom:skip=unprofitable"]
    result = bench(tiny.sd_pipeline(), rounds=2, methods=methods, part=part)
    (case,) = result.cases
    row = case.row("retom:skip=unprofitable")
    assert len(row.seconds) == 2
    assert (row.tokens, row.kept) == (256, 256)
    assert row.pieces == {}
    assert "un-merged (level 0, grid 16x16, batch 2, ratio 0.5" in row.skipped[0]
    assert row.skipped[0] in str(result)
    assert case.row("retom").skipped == ()
    assert case.row("retom").kept == 128


def test_a_contender_that_skips_is_not_compiled():
    spot = Spot("tiny", (128, 128), retom.Grid(16, 16), lambda *_, **__: pytest.fail("made"))
    contender = by_name(Settings(methods=["retom:skip=unprofitable"]))[
        "retom:skip=unprofitable · 0.5 · attention"
    ]
    made, note = _ready(spot, contender, compiled=True)
    assert made is None
    assert "a compiled graph does not have" in note


def test_a_layer_alone_does_not_tell_what_a_block_costs():
    contender = by_name(Settings(methods=["retom:skip=unprofitable,score=block"]))
    subject = subject_named(tiny.sd_pipeline())
    (place,) = places(subject, inputs_of(subject), "layer", (0,), 0)
    with pytest.raises(retom.ConfigError, match="skip times the whole block; use part block"):
        ready_place(place, contender["retom:score=block,skip=unprofitable · 0.5 · attention"])
