"""The shipped configurations: complete, buildable, callable, and of the published size."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import retom
from retom.errors import ModelError
from retom.explanation import known_models
from retom.explanation.families import FAMILIES
from retom.explanation.inputs import latent_size, make_inputs
from retom.explanation.known import load_known
from retom.explanation.one_call import family_of
from retom.explanation.subject import build
from retom.stand_ins import StandIns

PARAMETERS = {
    "sd-1.5": 859_520_964,
    "sd-2.1": 865_910_724,
    "sd-2.1-base": 865_910_724,
    "sdxl": 2_567_463_684,
    "flux-dev": 11_901_408_320,
    "flux-schnell": 11_891_178_560,
    "qwen-image": 20_430_401_088,
}
"""Published numbers of parameters: a wrong entry of a configuration would show."""

BILLIONS = {
    "auraflow": "6.9",
    "chroma1-hd": "8.9",
    "cogview4-6b": "6",
    "hunyuan-dit": "1.5",
    "lumina-image-2": "2.6",
    "z-image-turbo": "6",
}
"""The same as the models' authors round them. AuraFlow's 6.8 were those of v0.1, which has 25
million fewer for its positions: 1024 of them, where v0.3 has 9216."""


@pytest.mark.parametrize("name", known_models())
def test_a_configuration_says_what_it_is_and_where_it_is_from(name):
    known = load_known(name)
    assert known.name == name
    assert known.denoiser in FAMILIES
    assert known.source.endswith("config.json")
    assert known.text_tokens_from
    assert known.height % 8 == known.width % 8 == 0


def test_the_document_lists_every_configuration():
    text = (Path(__file__).parents[1] / "docs" / "explain.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]+)` \| `(\w+)` \| (\S+) \| (\d+) \| (\d+) \|$", text, re.M)
    shipped = [load_known(name) for name in known_models()]
    assert [(n, c, int(s), int(t)) for n, c, _, s, t in listed] == [
        (known.name, known.denoiser, known.height, known.text_tokens) for known in shipped
    ]
    assert all(row[2] in known.source for row, known in zip(listed, shipped, strict=True))


DEPTHS = (
    "num_layers",
    "num_single_layers",
    "num_mmdit_layers",
    "num_single_dit_layers",
    "num_refiner_layers",
    "n_layers",
    "n_refiner_layers",
)


def shallow(known):
    """The same with one layer of each kind."""
    depths = {key: 1 for key in DEPTHS if key in known.config}
    if "transformer_layers_per_block" in known.config:
        depths["transformer_layers_per_block"] = 1
    if "layers_per_block" in known.config:
        depths["layers_per_block"] = 1
    if known.config.get("dual_attention_layers"):
        depths["dual_attention_layers"] = [0]
    return replace(known, config={**known.config, **depths})


@pytest.mark.parametrize("name", known_models())
def test_a_configuration_builds_and_runs_without_weights(name):
    known = shallow(load_known(name))
    denoiser = build(known)
    family = family_of(denoiser)
    size = latent_size(family, 256, 256, known.pixels_per_latent)
    inputs = make_inputs(denoiser, family, size, 8)
    with torch.no_grad(), StandIns():
        output = denoiser(**inputs, return_dict=False)[0]
    output = output[0] if isinstance(output, list) else output
    assert output.device.type == "meta"
    assert all(p.device.type == "meta" for p in denoiser.parameters())
    tokens = 16 * 16
    expected = (1, tokens) if "img_ids" in inputs or "img_shapes" in inputs else (32, 32)
    shape = tuple(output.shape)
    assert expected in (shape[:2], shape[-2:])


@pytest.mark.slow
@pytest.mark.parametrize("name", known_models())
def test_a_full_size_model_is_explained(name):
    answer = retom.explain(name)
    assert answer.unsupported or answer.ceiling(answer.scope).speedup > 1
    assert answer.layers
    assert sum(answer.parts.values()) == pytest.approx(1)
    json.dumps(answer.to_dict(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_the_published_number_of_parameters(name):
    denoiser = build(load_known(name))
    assert sum(p.numel() for p in denoiser.parameters()) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", BILLIONS)
def test_a_model_has_as_many_parameters_as_its_authors_say(name):
    count = sum(p.numel() for p in build(load_known(name)).parameters())
    assert f"{count / 1e9:.{len(BILLIONS[name].partition('.')[2])}f}" == BILLIONS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "top", "every"),
    [
        ("sd-1.5", 512, 1.12, 1.17),
        ("sd-1.5", 1024, 1.39, 1.51),
        ("sd-1.5", 2048, 1.97, 2.31),
        ("sdxl", 1024, 1.06, 1.18),
    ],
)
def test_ceilings_of_attention_are_those_worked_out_by_hand(name, side, top, every):
    """Total / (total - saved) for half of the tokens, to the two digits of docs/explain.md."""
    answer = retom.explain(name, height=side, width=side, ratio=0.5, kv_lean=0)
    assert answer.ceiling("attention").speedup == pytest.approx(top, abs=0.006)
    assert answer.ceiling("attention", "all").speedup == pytest.approx(every, abs=0.006)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"flux-9 is neither.*flux-dev, .*sdxl.*folder"):
        retom.explain("flux-9")


def test_a_configuration_that_does_not_fit_its_class_is_refused():
    known = replace(load_known("flux-dev"), config={"wings": 2})
    with pytest.raises(ModelError, match=r"flux-dev does not fit FluxTransformer2DModel.*wings"):
        build(known)
    with pytest.raises(ModelError, match=r"is a Wing, which diffusers [\d.]+ does not have"):
        build(replace(known, denoiser="Wing"))
