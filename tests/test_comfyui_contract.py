"""The ComfyUI node against stand-ins that call patches as ComfyUI documents them.

These are not ComfyUI: they show that the node keeps to the signatures. test_comfyui_engine.py runs
it on the engine.
"""

import copy
import importlib.util
import json
import re

import comfy_node
import pytest
import torch
from torch import nn

import retom
from retom.testing.permutation import Permutation

NODES = comfy_node.load().NODE_CLASS_MAPPINGS
SIMPLE, ADVANCED = NODES["ReToM"], NODES["ReToMAdvanced"]
WORKFLOWS = "sd15_retom.json", "sd15_retom_api.json"
DEFAULTS = {
    name: given[1].get("default")
    for name, given in ADVANCED.INPUT_TYPES()["required"].items()
    if name != "model"
}


class StandInPatcher:
    """ModelPatcher: a clone has options of its own, and patches are entries in them."""

    def __init__(self, diffusion_model):
        self.model = nn.Module()
        self.model.diffusion_model = diffusion_model
        self.model_options = {"transformer_options": {}}
        self.wrappers = {}
        self.object_patches = {}

    def clone(self):
        other = copy.copy(self)
        other.model_options = copy.deepcopy(self.model_options)
        other.wrappers = {k: {n: w[:] for n, w in v.items()} for k, v in self.wrappers.items()}
        other.object_patches = dict(self.object_patches)
        return other

    def get_model_object(self, name):
        return self.object_patches.get(name) or self.model.get_submodule(name)

    def add_object_patch(self, name, patch):
        self.object_patches[name] = patch

    def get_wrappers(self, kind, key):
        return self.wrappers.get(kind, {}).get(key, [])

    def add_wrapper_with_key(self, kind, key, wrapper):
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def set_model_patch_replace(self, patch, name, block, number):
        to = self.model_options["transformer_options"].setdefault("patches_replace", {})
        to.setdefault(name, {})[block, number] = patch

    def _patch(self, patch, name):
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches[name] = [*patches.get(name, []), patch]

    def set_model_attn1_patch(self, patch):
        self._patch(patch, "attn1_patch")

    def set_model_attn1_output_patch(self, patch):
        self._patch(patch, "attn1_output_patch")

    def run(self, x, *args, sigma=0.5):
        """apply_model: the wrappers around the denoiser, with the options of this call."""
        options = {**self.model_options["transformer_options"]}
        self.options_after = options
        wrappers = [w for n in self.wrappers.get("apply_model", {}).values() for w in n]

        class Executor:
            class_obj = StandInSampling()

            def __call__(self, x, t, c_concat, c_crossattn, control, transformer_options):
                rest = wrappers[len(self.taken) :]
                if rest:
                    self.taken.append(rest[0])
                    return rest[0](self, x, t, c_concat, c_crossattn, control, transformer_options)
                return self.denoiser(x, *args, transformer_options)

        executor = Executor()
        executor.taken, executor.denoiser = [], self.model.diffusion_model
        with torch.no_grad():
            return executor(x, torch.full((len(x),), sigma), None, None, None, options)


class StandInSampling:
    @property
    def model_sampling(self):
        return self

    sigma_min, sigma_max = 0.001, 1.0

    def percent_to_sigma(self, percent):
        return 1 - percent

    def timestep(self, sigma):
        return 1000 * sigma


class UNetModel(nn.Module):
    """Stands in for ComfyUI's class of this name: one self-attention on each of two grids."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.to_q, self.to_k, self.to_v = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.counts = []

    def forward(self, x, options):
        for number, size in enumerate([(6, 4), (3, 2)]):
            h = nn.functional.adaptive_avg_pool2d(x, size)
            options["activations_shape"] = list(h.shape)
            options["block"], options["block_index"] = ("input", number), 0
            out = self.self_attention(h.flatten(2).transpose(1, 2), options)
            out = out.transpose(1, 2).reshape(h.shape)
            x = x + nn.functional.interpolate(out, x.shape[-2:])
        return x

    def self_attention(self, n, options):
        extra = {k: v for k, v in options.items() if k not in ("patches", "patches_replace")}
        context = value = n
        for patch in options.get("patches", {}).get("attn1_patch", []):
            n, context, value = patch(n, context, value, extra)
        self.counts.append((n.shape[1], context.shape[1]))
        replace = options.get("patches_replace", {}).get("attn1", {}).get(options["block"])
        qkv = self.to_q(n), self.to_k(context), self.to_v(value)
        if replace is not None:
            n = replace(*qkv, extra)
        elif "optimized_attention_override" in options:
            override = options["optimized_attention_override"]
            n = override(attention, *qkv, 2, transformer_options=options)
        else:
            n = attention(*qkv, 2)
        for patch in options.get("patches", {}).get("attn1_output_patch", []):
            n = patch(n, extra)
        return n


def attention(q, k, v, heads, mask=None, transformer_options=None):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    mask = None if mask is None else mask[:, None]
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.counts = []

    def forward(self, x, pe):
        self.counts.append(x.shape[1])
        keys = self.linear(x) + pe[:, 0, :, 0]
        x += torch.softmax(keys @ keys.transpose(1, 2), dim=-1) @ x
        return x


class Flux(nn.Module):
    """Stands in for ComfyUI's class of this name: two double blocks and a single one."""

    patch_size = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.double_blocks = nn.ModuleList([Block(), Block()])
        self.single_blocks = nn.ModuleList([Block()])

    def forward(self, x, txt, pe, options):
        img = nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)
        replace = options.get("patches_replace", {}).get("dit", {})
        for number, block in enumerate(self.double_blocks):

            def original(args, block=block):
                out = block(torch.cat((args["txt"], args["img"]), 1), args["pe"])
                text = args["txt"].shape[1]
                return {"txt": out[:, :text], "img": out[:, text:]}

            args = {"img": img, "txt": txt, "vec": txt[:, 0], "pe": pe}
            args |= {"attn_mask": None, "transformer_options": options}
            patch = replace.get(("double_block", number))
            out = patch(args, {"original_block": original}) if patch else original(args)
            img, txt = out["img"], out["txt"]
        both = torch.cat((txt, img), 1)
        args = {"img": both, "vec": txt[:, 0], "pe": pe, "transformer_options": options}
        patch = replace.get(("single_block", 0))
        block = self.single_blocks[0]

        def original_single(args):
            return {"img": block(args["img"], args["pe"])}

        out = patch(args, {"original_block": original_single}) if patch else original_single(args)
        return out["img"][:, txt.shape[1] :]


def flux_call(batch=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 2, 8, 6, generator=generator)
    txt = torch.randn(batch, 5, 8, generator=generator)
    pe = torch.randn(batch, 1, 17, 1, 8, generator=generator)
    return x, txt, pe


def unet_call(batch=2):
    return (torch.randn(batch, 8, 12, 8, generator=torch.Generator().manual_seed(1)),)


def advanced(model, **options):
    return ADVANCED().patch(model, **{**DEFAULTS, **options})[0]


def permuted(model):
    settings = comfy_node.part("running").Settings(retom.Config(method=Permutation()))
    return comfy_node.part("patching").patched(model, settings)


@pytest.mark.parametrize(("kind", "call"), [(UNetModel, unet_call), (Flux, flux_call)])
def test_a_permutation_changes_nothing_and_merging_does(kind, call):
    model = StandInPatcher(kind())
    plain = model.run(*call())
    assert torch.allclose(permuted(model).run(*call()), plain, atol=1e-5)
    (merging,) = SIMPLE().patch(model, 0.5, "custom")
    assert not torch.allclose(merging.run(*call()), plain, atol=1e-3)
    assert "retom" not in merging.options_after
    assert torch.equal(model.run(*call()), plain)
    assert model.model_options == {"transformer_options": {}}


def test_a_unet_s_largest_grid_gets_half_of_its_tokens():
    model = StandInPatcher(UNetModel())
    SIMPLE().patch(model, 0.5, "balanced")[0].run(*unet_call())
    assert model.model.diffusion_model.counts == [(12, 12), (6, 6)]


@pytest.mark.parametrize("preset", ["quality", "balanced", "fast"])
def test_a_preset_leaves_the_last_steps_whole(preset):
    model = StandInPatcher(UNetModel())
    (merging,) = SIMPLE().patch(model, 0.5, preset)
    merging.run(*unet_call(), sigma=0.9)
    merging.run(*unet_call(), sigma=0.1)
    first, _, last, _ = model.model.diffusion_model.counts
    assert first < (24, 24)
    assert last == (24, 24)
    assert torch.equal(merging.run(*unet_call(), sigma=0.1), model.run(*unet_call(), sigma=0.1))


def test_blocks_of_a_transformer_get_half_of_the_image_and_all_of_the_text():
    model = StandInPatcher(Flux())
    SIMPLE().patch(model, 0.5, "custom")[0].run(*flux_call())
    blocks = [
        *model.model.diffusion_model.double_blocks,
        *model.model.diffusion_model.single_blocks,
    ]
    assert [block.counts for block in blocks] == [[5 + 6]] * 3


def test_ratio_zero_is_the_model_itself():
    model = StandInPatcher(UNetModel())
    assert SIMPLE().patch(model, 0.0, "custom")[0] is model
    assert advanced(model, ratio=0.0) is model


def test_options_of_the_advanced_node_arrive():
    model = StandInPatcher(UNetModel())
    seen = model.model.diffusion_model.counts
    narrow = {"window_height": 2, "window_width": 1}
    advanced(model, levels="0, 1", **narrow, reach=0, ratio=0.25).run(*unet_call())
    advanced(model, scope="kv").run(*unet_call())
    advanced(model, end_percent=0.4).run(*unet_call())  # the call is at half of sampling
    assert seen == [(18, 18), (5, 5), (24, 12), (6, 6), (24, 24), (6, 6)]


def test_an_attention_that_another_node_replaced_gets_merged_tokens():
    model = StandInPatcher(UNetModel())
    model.set_model_patch_replace(lambda q, k, v, options: v, "attn1", "input", 0)
    (merging,) = SIMPLE().patch(model, 0.5, "custom")
    merging.run(*unet_call())
    assert model.model.diffusion_model.counts == [(12, 12), (6, 6)]


def test_a_block_that_another_node_replaced_gets_merged_tokens():
    model, seen = StandInPatcher(Flux()), []

    def theirs(args, extra):
        seen.append(args["img"].shape[1])
        return extra["original_block"](args)

    model.set_model_patch_replace(theirs, "dit", "double_block", 0)
    SIMPLE().patch(model, 0.5, "custom")[0].run(*flux_call())
    assert seen == [6]


def refused(model, match, call=(), **options):
    with pytest.raises(retom.RetomError, match=match):
        advanced(model, **options).run(*call)


def test_refusals_are_sentences():
    unet, flux = StandInPatcher(UNetModel()), StandInPatcher(Flux())
    refused(unet, "no patch point in a UNet", scope="block")
    refused(flux, "no patch point in a transformer", scope="kv")
    refused(flux, "not offered for scope='block'", scope="block", size_weighted="on")
    refused(unet, "levels is all, or numbers", levels="first")
    refused(unet, "start_percent and end_percent", start_percent=0.5, end_percent=0.5)
    refused(unet, r"levels 0 \(6x4\), 1 \(3x2\)", unet_call(), levels="7")
    refused(unet, "windows", unet_call(), ratio=0.9, window_height=2, window_width=2)
    refused(StandInPatcher(nn.Linear(1, 1)), "does not know the model class Linear")
    refused(advanced(unet), "already comes from a ReToM node")
    lost = advanced(unet)
    lost.model_options["transformer_options"]["optimized_attention_override"] = (
        lambda attention, *args, **kwargs: attention(*args, **kwargs)
    )
    with pytest.raises(retom.ConfigError, match="Set size_weighted to off"):
        lost.run(*unet_call())
    frames = torch.zeros(1, 8, 2, 12, 8)
    with pytest.raises(retom.ShapeError, match="2 frames or layers"):
        advanced(unet).run(frames)


def test_windows_of_zero_follow_the_ratio_and_one_zero_alone_is_refused():
    """Windows of 2x2 can give up 18 of 6x4 tokens, those of 4x2, as at this ratio, 20."""
    model = StandInPatcher(UNetModel())
    assert (DEFAULTS["window_height"], DEFAULTS["window_width"]) == (0, 0)
    for zeros in ({}, {"window_height": 0, "window_width": 0}):
        advanced(model, ratio=0.8, **zeros).run(*unet_call())
    assert model.model.diffusion_model.counts == [(5, 5), (6, 6)] * 2
    for sides in ((0, 2), (2, 0)):
        message = f"or both 0 to let the ratio decide; {sides[0]} and {sides[1]} were given"
        refused(model, message, window_height=sides[0], window_width=sides[1])


def test_modulation_that_differs_between_tokens_is_refused():
    check = comfy_node.part("blocks").check_modulation
    check(torch.zeros(2, 8), 2)
    check((torch.zeros(2, 1, 8), torch.zeros(1, 8)), 2)
    for vec in (torch.zeros(4, 8), (torch.zeros(2, 2, 8),)):
        with pytest.raises(retom.ConfigError, match="index_timestep_zero"):
            check(vec, 2)


def test_nothing_of_comfyui_is_imported():
    for path in comfy_node.FOLDER.glob("*.py"):
        assert not re.search(
            r"^\s*(?:import|from) (?:comfy|nodes|folder_paths)", path.read_text(), re.M
        )


def test_the_example_workflow_says_what_the_nodes_take():
    api = json.loads((comfy_node.FOLDER / "workflows" / "sd15_retom_api.json").read_text())
    ours = [step for step in api.values() if step["class_type"] in NODES]
    assert ours
    for step in ours:
        widgets = NODES[step["class_type"]].INPUT_TYPES()["required"]
        assert set(step["inputs"]) == set(widgets)
    editor = json.loads((comfy_node.FOLDER / "workflows" / "sd15_retom.json").read_text())
    assert sorted(node["type"] for node in editor["nodes"]) == sorted(
        step["class_type"] for step in api.values()
    )
    for node in editor["nodes"]:
        if node["type"] in NODES:
            widgets = NODES[node["type"]].INPUT_TYPES()["required"]
            assert len(node["widgets_values"]) == len(widgets) - 1
    for _, source, output, target, slot, kind in editor["links"]:
        from_node = next(node for node in editor["nodes"] if node["id"] == source)
        to_node = next(node for node in editor["nodes"] if node["id"] == target)
        assert from_node["outputs"][output]["type"] == kind == to_node["inputs"][slot]["type"]


def test_the_picture_is_drawn_from_the_workflow():
    folder = comfy_node.FOLDER / "workflows"
    spec = importlib.util.spec_from_file_location("draw_workflow", folder / "draw.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    files = [json.loads((folder / name).read_text()) for name in WORKFLOWS]
    drawn = drawing.draw(*files)
    assert (folder / "graph.svg").read_text() == drawn
