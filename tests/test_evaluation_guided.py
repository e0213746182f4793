"""``retom eval`` with methods that compare the halves of guidance, and on a transformer."""

import diffusers
import pytest
import tiny
import tiny_transformers
import torch
from test_evaluation_study import SMALL, Brightness
from transformers import CLIPTextModelWithProjection

import retom
from retom.drawing.loading import as_model
from retom.errors import ConfigError
from retom.evaluation.contenders import Lineup, contenders
from retom.evaluation.results import UNMERGED
from retom.evaluation.screening import Calls
from retom.evaluation.settings import Settings
from retom.evaluation.store import Store
from retom.evaluation.study import Instruments, evaluate
from retom.evaluation.subject import Subject
from retom.methods import ImportanceToMe

GUIDED = {**SMALL, "guidance": 4.0, "steps": 2}


def sd3_pipeline():
    """Stable Diffusion 3 with two text encoders of one layer, and none of the third kind."""
    clip = tiny.text_encoder(CLIPTextModelWithProjection)
    model = tiny_transformers.sd3(
        joint_attention_dim=2 * tiny.TEXT_WIDTH, pooled_projection_dim=2 * tiny.TEXT_WIDTH
    )
    vae = tiny.vae()
    vae.register_to_config(shift_factor=0.0)
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=model,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=clip,
        text_encoder_2=clip,
        text_encoder_3=None,
        tokenizer=tiny.tokenizer(),
        tokenizer_2=tiny.tokenizer(),
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPELINES = {"unet": tiny.sd_pipeline, "transformer": sd3_pipeline}


@pytest.fixture
def subject(tmp_path):
    """The tiny UNet pipeline with guidance, and its first two samples."""
    settings = Settings(**GUIDED)
    with Store(tmp_path) as store:
        yield Subject(as_model(tiny.sd_pipeline()), settings, store), settings.chunks()[0]


def of_method(name, subject):
    return contenders([name], subject.settings)[0]


@pytest.mark.parametrize("kind", PIPELINES)
def test_every_stage_runs_with_and_without_guided_methods(kind, tmp_path):
    results = evaluate(
        PIPELINES[kind](),
        Settings(**{**GUIDED, "best": 3}),
        tmp_path,
        lineup=Lineup(methods=["retom", "importance"]),
        instruments=Instruments(extractor=Brightness()),
    )
    assert [row.method for row in results.merged] == ["retom", "importance"]
    for row in results.merged:
        assert row.scope == {"unet": "attention", "transformer": "block"}[kind]
        assert 0 < row.values["error"].value < 1
        assert row.values["speedup"].value > 0
        assert 0 < row.values["psnr"].value < 100  # equal pictures would have 100
        assert len(row.pictures) == 2
    errors = [row.values["error"].value for row in results.merged]
    assert errors[0] != errors[1]
    assert len(results.row(UNMERGED).pictures) == 2


def test_the_half_that_counts_is_that_of_the_prompts(subject):
    """Of a method that does not ask for guidance it gives what the call without guidance gives."""
    study, samples = subject
    calls = Calls(study, samples)
    guided = calls.of(of_method("importance", study))
    alone = calls.of(of_method("retom", study))
    contender = of_method("retom", study)
    outputs = [study.outputs(samples, contender, call) for call in (guided, alone)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)
    other = type(guided)(guided.both, 1 - guided.half)
    against = study.outputs(samples, contender, other)
    assert float((against - outputs[1]).abs().max()) > 1e-3


def test_what_counts_is_the_call_that_knows_what_matters(subject, monkeypatch):
    study, samples = subject
    contender = of_method("importance", study)
    call = Calls(study, samples).of(contender)
    known = []
    original = ImportanceToMe.match

    def note(self, x, grid, budget, hints):
        known.append(hints.importance is not None)
        return original(self, x, grid, budget, hints)

    monkeypatch.setattr(ImportanceToMe, "match", note)
    study.outputs(samples, contender, call)
    layers = len(known) // 4  # two noise levels, two calls each
    assert known == ([False] * layers + [True] * layers) * 2


def test_guided_methods_without_guidance_are_refused(tmp_path):
    settings = Settings(**{**GUIDED, "guidance": 1.0})
    with pytest.raises(ConfigError, match=r"need a guidance above 1; it is 1\. Give another"):
        evaluate(tiny.sd_pipeline(), settings, tmp_path, lineup=Lineup(methods=["importance"]))


def test_halves_that_do_not_differ_are_refused(tmp_path):
    settings = Settings(**{**GUIDED, "prompts": ["", " "]})
    with pytest.raises(ConfigError, match="With and without the prompt this model gets the same"):
        evaluate(tiny.sd_pipeline(), settings, tmp_path, lineup=Lineup(methods=["importance"]))


def test_a_pipeline_that_calls_one_half_after_the_other_is_refused(tmp_path):
    class Twice(diffusers.StableDiffusionPipeline):
        """Takes a guidance scale and draws without."""

        do_classifier_free_guidance = False

    settings = Settings(**GUIDED)
    with pytest.raises(ConfigError, match="Twice does not run so at guidance 4"):
        evaluate(tiny.sd_pipeline(Twice), settings, tmp_path, lineup=Lineup(methods=["importance"]))


def test_only_guided_configurations_need_guidance():
    assert retom.Config(method=ImportanceToMe()).needs_guidance
    found = contenders(["retom", "importance"], Settings(**GUIDED))
    assert [one.is_guided for one in found] == [False, True]
