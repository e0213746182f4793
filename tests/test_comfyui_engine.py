"""The ComfyUI node on ComfyUI's own engine: its model classes, patch points, samplers and nodes."""

import asyncio
import importlib

import comfy_engine
import comfy_node
import pytest
import torch
from comfy_engine import FAMILIES

import retom
from retom import Config, ReToM
from retom.testing.permutation import Permutation

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TRANSFORMERS = [family for family in FAMILIES if not family.startswith("SD1") and family != "SDXL"]
TOKENS = {"SD15": 120, "SDXL": 30, "Flux 2": 120}
"""Tokens of the first level; the other transformers have 30."""


@pytest.fixture(autouse=True)
def _engine():
    comfy_engine.engine()


def patched(model, method=None, start=0.0, end=1.0, **options):
    config = Config(method=method or ReToM(), **options)
    settings = comfy_node.part("running").Settings(config, start, end)
    return comfy_node.part("patching").patched(model, settings)


class TokensSeen:
    """How many tokens each linear layer of a denoiser gets, while it is open."""

    def __init__(self, model):
        self.counts = set()
        self.hooks = [
            module.register_forward_pre_hook(self._note)
            for module in model.model.diffusion_model.modules()
            if isinstance(module, torch.nn.Linear)
        ]

    def _note(self, module, args):
        if args[0].ndim == 3:
            self.counts.add(args[0].shape[1])

    def __enter__(self):
        return self.counts

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()


def error_between(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_permutation_of_the_tokens_changes_nothing(family):
    model = comfy_engine.build(family)
    plain = comfy_engine.call(model, family)
    shuffled = comfy_engine.call(patched(model, Permutation()), family)
    assert error_between(shuffled, plain) < 5e-6  # float32, other order of sums
    assert not torch.equal(shuffled, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_tokens_run(family):
    model = comfy_engine.build(family)
    tokens = TOKENS.get(family, 30)
    with TokensSeen(model) as before:
        plain = comfy_engine.call(model, family)
    with TokensSeen(model) as after:
        merged = comfy_engine.call(patched(model), family)
    text = {"Flux": 7, "Flux 2": 7, "Lumina 2": 7}.get(family, 0)
    text, filling = (32, 2) if family == "Z-Image" else (text, 0)
    fewer = tokens - tokens // 2 + text + filling
    assert fewer in after
    assert fewer not in before
    assert 1e-4 < error_between(merged, plain) < 1
    assert torch.isfinite(merged).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_that_came_in_stays_as_it_was(family):
    model = comfy_engine.build(family)
    keys = list(model.model.state_dict())
    options = repr(model.model_options)
    plain = comfy_engine.call(model, family)
    clone = patched(model)
    comfy_engine.call(clone, family)
    assert torch.equal(comfy_engine.call(model, family), plain)
    assert repr(model.model_options) == options
    assert list(model.model.state_dict()) == keys
    names = {type(module).__name__ for module in model.model.modules()}
    assert "MergedLayer" not in names
    assert not any(module.__dict__.get("forward") for module in model.model.modules())


def test_weights_have_their_names_while_layers_are_replaced():
    model = comfy_engine.build("Z-Image")
    keys = list(model.model.state_dict())
    clone = patched(model)
    clone.patch_model()
    assert list(clone.model.state_dict()) == keys
    assert type(clone.model.diffusion_model.layers[0]).__name__ == "MergedLayer"
    clone.unpatch_model()
    assert type(clone.model.diffusion_model.layers[0]).__name__ == "JointTransformerBlock"


@pytest.mark.parametrize("family", ["SD15", "Flux", "Z-Image"])
def test_ratio_zero_gives_the_very_same_model(family):
    model = comfy_engine.build(family)
    (same,) = comfy_node.load().NODE_CLASS_MAPPINGS["ReToM"]().patch(model, 0.0, "custom")
    assert same is model


@pytest.mark.parametrize("family", ["SD15", "Flux"])
def test_global_random_state_is_not_touched(family):
    model = patched(comfy_engine.build(family))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = comfy_engine.call(model, family)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(comfy_engine.call(model, family), one)


def test_a_clone_of_the_clone_merges_and_can_be_patched_on():
    model = comfy_engine.build("SD15")
    clone = patched(model)
    again = clone.clone()
    again.set_model_attn1_output_patch(lambda n, options: n * 1.5)
    merged = comfy_engine.call(clone, "SD15")
    assert not torch.equal(comfy_engine.call(again, "SD15"), merged)
    assert torch.equal(comfy_engine.call(clone, "SD15"), merged)


def test_two_models_do_not_meet():
    one, two = comfy_engine.build("SD15"), comfy_engine.build("SD15", seed=5)
    light, heavy = patched(one, ReToM(ratio=0.3)), patched(two, ReToM(ratio=0.7))
    alone = [comfy_engine.call(light, "SD15"), comfy_engine.call(heavy, "SD15")]
    also = [comfy_engine.call(heavy, "SD15"), comfy_engine.call(light, "SD15")][::-1]
    assert all(torch.equal(a, b) for a, b in zip(alone, also, strict=True))


def test_each_picture_of_a_batch_has_a_plan_of_its_own():
    # slopes of 15 random tokens amplify rounding; what is asked is whose plan merges
    clone = patched(comfy_engine.build("Flux"), ReToM(unmerge="copy"))
    both = comfy_engine.call(clone, "Flux", batch=2)
    x, sigma, extra = comfy_engine.arguments("Flux", batch=2)
    options = {**clone.model_options["transformer_options"], "wrappers": clone.wrappers}
    first = {name: value[:1] for name, value in extra.items()}
    with torch.no_grad():
        alone = clone.model.apply_model(x[:1], sigma[:1], transformer_options=options, **first)
    assert torch.allclose(alone, both[:1], atol=1e-4)


@pytest.mark.parametrize("size", [(13, 10), (11, 7)])
@pytest.mark.parametrize("family", ["SD15", "SD3", "Flux", "Qwen-Image", "Z-Image"])
def test_ragged_sizes(family, size):
    clone = patched(comfy_engine.build(family))
    if family == "SD15":  # its two levels have to come out even for the UNet itself
        size = (size[0] // 2 * 2, size[1] // 2 * 2)
    assert torch.isfinite(comfy_engine.call(clone, family, size=size)).all()


def test_sizes_weigh_in_attention():
    model = comfy_engine.build("SD15")
    weighed, plain = patched(model), patched(model, size_weighted=False)
    assert "optimized_attention_override" not in plain.model_options["transformer_options"]
    one, other = comfy_engine.call(weighed, "SD15"), comfy_engine.call(plain, "SD15")
    assert error_between(one, other) > 1e-4


def test_weighted_by_size_as_the_library_does_it():
    """A merged token counts as often in the keys as there are tokens in it."""
    model = comfy_engine.build("SD15")
    seen = []

    def look(attention, q, k, v, heads, mask=None, **kwargs):
        seen.append((q, k, v, heads, mask))
        return attention(q, k, v, heads, mask, **kwargs)

    clone = patched(model)
    clone.model_options["transformer_options"]["optimized_attention_override"] = comfy_node.part(
        "unet"
    ).WeighBySize(look)
    comfy_engine.call(clone, "SD15")
    q, k, v, heads, mask = next(call for call in seen if call[4] is not None)
    assert mask.shape == (2, 1, 60)
    sizes = mask[:, 0].exp().round().long()
    assert sizes.sum(dim=1).tolist() == [120, 120]
    from comfy.ldm.modules.attention import optimized_attention

    weighted = optimized_attention(q, k, v, heads, mask=mask)
    for item in range(2):
        often = sizes[item]
        copies = [t[item : item + 1].repeat_interleave(often, dim=1) for t in (k, v)]
        counted = optimized_attention(q[item : item + 1], *copies, heads)
        assert torch.allclose(counted, weighted[item : item + 1], atol=1e-5)


@pytest.mark.parametrize("levels", [(0,), (1,), "all"])
def test_levels_of_a_unet(levels):
    model = comfy_engine.build("SD15")
    with TokensSeen(model) as seen:
        comfy_engine.call(patched(model, levels=levels), "SD15")
    assert (60 in seen) == (levels != (1,))
    assert (15 in seen) == (levels != (0,))


def test_keys_and_values_alone():
    model = comfy_engine.build("SD15")
    clone = patched(model, scope="kv", share="level")
    merged, plain = comfy_engine.call(clone, "SD15"), comfy_engine.call(model, "SD15")
    assert 1e-4 < error_between(merged, plain) < 1


def sample(model, family="SD15", steps=3, cfg=3.0, seed=2):
    comfy = comfy_engine.engine()
    x, _, extra = comfy_engine.arguments(family, batch=1, seed=seed)
    pooled = {"pooled_output": extra["y"]} if "y" in extra else {}
    if "num_tokens" in extra:
        pooled["attention_mask"] = torch.ones(1, extra["num_tokens"], dtype=torch.int64)
    positive = [[extra["c_crossattn"], pooled]]
    negative = [[extra["c_crossattn"].flip(-1), pooled]]
    latent = torch.zeros_like(x)
    return comfy.sample.sample(
        model, x, steps, cfg, "euler", "simple", positive, negative, latent, disable_pbar=True
    )


def node(module, name):
    return getattr(importlib.import_module(f"comfy_extras.{module}"), name)


def freeu(model):
    (model,) = node("nodes_freelunch", "FreeU_V2")().patch(model, 1.3, 1.4, 0.9, 0.2)
    return model


def result(output):
    return output.result[0] if hasattr(output, "result") else output[0]


def pag(model):
    return result(node("nodes_pag", "PerturbedAttentionGuidance").execute(model, 3.0))


def sag(model):
    return result(node("nodes_sag", "SelfAttentionGuidance").execute(model, 0.5, 2.0))


@pytest.mark.parametrize("other", [freeu, pag], ids=["FreeU", "PAG"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_stacks_with_other_nodes(other, first):
    model = comfy_engine.build("SD15")
    one = patched(other(model)) if first else other(patched(model))
    with TokensSeen(model) as seen:
        both = sample(one)
    assert 60 in seen
    assert torch.isfinite(both).all()
    alone, theirs, plain = sample(patched(model)), sample(other(model)), sample(model)
    assert all(not torch.equal(both, each) for each in (alone, theirs, plain))
    assert torch.equal(sample(model), plain)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_stacks_with_a_replaced_attention(first):
    """Another node's attention, in every block, gets the merged tokens."""
    model = comfy_engine.build("SD15")
    seen = set()

    def mean_of_values(q, k, v, extra_options):
        seen.add(q.shape[1])
        return v.mean(dim=1, keepdim=True).expand_as(q)

    def replace(model):
        clone = model.clone()
        for block in (("input", 1), ("output", 3)):
            clone.set_model_attn1_replace(mean_of_values, *block)
        return clone

    clone = patched(replace(model)) if first else replace(patched(model))
    assert torch.isfinite(comfy_engine.call(clone, "SD15")).all()
    assert seen == {60}


@pytest.mark.parametrize("family", ["SD3", "Flux"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_stacks_with_skipped_layers(family, first):
    model = comfy_engine.build(family)

    def skip(model):
        clone = model.clone()
        clone.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
        return clone

    clone = patched(skip(model)) if first else skip(patched(model))
    merged, plain = comfy_engine.call(clone, family), comfy_engine.call(skip(model), family)
    assert 1e-4 < error_between(merged, plain) < 1


def test_samples_a_whole_picture_in_a_part_of_the_steps():
    model = comfy_engine.build("SD15")
    whole, none_late = sample(patched(model)), sample(patched(model, start=0.0, end=0.4))
    plain = sample(model)
    assert not torch.equal(whole, none_late)
    assert not torch.equal(none_late, plain)
    late = [
        comfy_engine.call(patched(model, start=0.0, end=end), "SD15") for end in (0.01, 0.99)
    ]  # the call's sigma is 3, in the middle
    assert torch.equal(late[0], comfy_engine.call(model, "SD15"))
    assert torch.equal(late[1], comfy_engine.call(patched(model), "SD15"))


@pytest.mark.parametrize("family", ["SD15", *TRANSFORMERS])
def test_noise_is_what_the_library_means_by_it(family):
    model = comfy_engine.build(family)
    sampling = model.get_model_object("model_sampling")
    noise = comfy_node.part("running").Settings(Config(noise=(0.2, 1.0))).noise
    assert noise(torch.as_tensor(sampling.sigma_max), sampling) == pytest.approx(1)
    small = torch.as_tensor(sampling.sigma_min)
    assert noise(small, sampling) == pytest.approx(0, abs=2e-3 if family == "SD15" else 2e-2)
    if family == "SD15":
        assert noise(sampling.sigmas[250:251], sampling) == pytest.approx(0.25, abs=1e-3)
    else:
        assert noise(torch.tensor([0.25]), sampling) == pytest.approx(0.25)


def test_logarithms_in_place_of_timesteps_are_refused():
    comfy_engine.engine()
    sampling = importlib.import_module("comfy.model_sampling").ModelSamplingContinuousEDM()
    settings = comfy_node.part("running").Settings(Config(noise=(0.2, 1.0)))
    with pytest.raises(retom.ConfigError, match="ContinuousEDM tells the model logarithms"):
        settings.noise(torch.tensor([3.0]), sampling)


def test_noise_decides_in_a_whole_picture():
    model = comfy_engine.build("SD15")
    plain, merged = sample(model), sample(patched(model))
    early = sample(patched(model, noise=(0.5, 1.0)))
    assert not torch.equal(early, plain)
    assert not torch.equal(early, merged)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_whole_picture_of_a_transformer(family):
    model = comfy_engine.build(family)
    plain, merged = sample(model, family), sample(patched(model), family)
    assert torch.isfinite(merged).all()
    assert 1e-4 < error_between(merged, plain) < 2
    assert torch.equal(sample(model, family), plain)


@pytest.mark.parametrize(
    ("family", "shape"),
    [("Flux", (2, 16, 8, 6)), ("Flux 2", (2, 128, 8, 6)), ("Qwen-Image", (2, 16, 1, 8, 6))],
)
def test_reference_pictures_stay_whole(family, shape):
    model = comfy_engine.build(family)
    references = [torch.randn(shape, generator=torch.Generator().manual_seed(4))]
    x, sigma, extra = comfy_engine.arguments(family)
    outputs = {}
    for name, clone in {"plain": model, "shuffled": patched(model, Permutation())}.items():
        options = {**clone.model_options["transformer_options"], "wrappers": clone.wrappers}
        with torch.no_grad():
            outputs[name] = clone.model.apply_model(
                x, sigma, transformer_options=options, ref_latents=references, **extra
            )
    assert error_between(outputs["shuffled"], outputs["plain"]) < 5e-6


def test_masks_follow_the_tokens():
    model = comfy_engine.build("Flux")
    x, sigma, extra = comfy_engine.arguments("Flux")
    tokens = 30 + 7
    generator = torch.Generator().manual_seed(6)
    for shape in [(tokens, tokens), (2, 1, tokens, tokens), (2, 1, 1, tokens)]:
        extra["attention_mask"] = torch.randn(shape, generator=generator)
        outputs = {}
        for name, clone in {"plain": model, "shuffled": patched(model, Permutation())}.items():
            options = {**clone.model_options["transformer_options"], "wrappers": clone.wrappers}
            with torch.no_grad():
                outputs[name] = clone.model.apply_model(
                    x, sigma, transformer_options=options, **extra
                )
        assert error_between(outputs["shuffled"], outputs["plain"]) < 5e-6


def test_nothing_is_left_in_the_options_after_a_call_or_an_error():
    clone = patched(comfy_engine.build("SD15"))
    x, sigma, extra = comfy_engine.arguments("SD15")
    options = {**clone.model_options["transformer_options"], "wrappers": clone.wrappers}
    keys = set(options)
    with torch.no_grad():
        good = clone.model.apply_model(x, sigma, transformer_options=options, **extra)
    assert not {"retom"} & set(options)
    with pytest.raises(RuntimeError):
        clone.model.apply_model(x, sigma, c_crossattn=x[:, 0], transformer_options=options)
    assert "retom" not in options
    assert keys <= set(options)
    with torch.no_grad():
        again = clone.model.apply_model(x, sigma, transformer_options=options, **extra)
    assert torch.equal(good, again)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_comfyui_s_own_token_merging_is_refused(first):
    tome = node("nodes_tomesd", "TomePatchModel")
    model = comfy_engine.build("SD15")

    def theirs(model):
        return result(tome.execute(model, 0.5))

    light = ReToM(ratio=0.3)  # with fewer tokens left, theirs finds nothing to do
    clone = patched(theirs(model), light) if first else theirs(patched(model, light))
    # After ReToM theirs merges tokens of a grid that is not there, and fails in its own words.
    expected = (retom.ShapeError, "another node") if first else (RuntimeError, "must match")
    with pytest.raises(expected[0], match=expected[1]):
        comfy_engine.call(clone, "SD15")


def test_twice_is_refused():
    with pytest.raises(retom.AlreadyAppliedError, match="already comes from a ReToM node"):
        patched(patched(comfy_engine.build("SD15")).clone())


def test_levels_that_the_model_has_not():
    clone = patched(comfy_engine.build("SD15"), levels=(4,))
    with pytest.raises(retom.ConfigError, match=r"levels 0 \(12x10\), 1 \(6x5\)"):
        comfy_engine.call(clone, "SD15")


def test_scopes_without_a_patch_point():
    with pytest.raises(retom.ConfigError, match="no patch point in a UNet"):
        patched(comfy_engine.build("SD15"), scope="block")
    with pytest.raises(retom.ConfigError, match="no patch point in a transformer"):
        patched(comfy_engine.build("Flux"), scope="attention")


def test_nodes_load_as_comfyui_loads_them():
    """By the loader of ComfyUI's server, if its requirements are here."""
    nodes = pytest.importorskip("nodes", exc_type=ImportError)
    loaded = asyncio.run(nodes.load_custom_node(str(comfy_node.FOLDER), module_parent="custom"))
    assert loaded
    assert {"ReToM", "ReToMAdvanced"} <= set(nodes.NODE_CLASS_MAPPINGS)
    assert nodes.NODE_DISPLAY_NAME_MAPPINGS["ReToMAdvanced"] == "ReToM (advanced)"
