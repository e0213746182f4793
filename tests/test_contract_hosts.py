"""Libraries that attach to the same model: accelerate, diffusers hooks, IP-Adapter, LoRA."""

import pytest
import tiny
import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from diffusers.hooks import HookRegistry, ModelHook
from tiny_transformers import needs_new

import retom

LEVEL_0 = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def kept(model):
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs())
    return seen[LEVEL_0]


@pytest.mark.parametrize("where", ["", LEVEL_0, "down_blocks.0.attentions.0"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_accelerate_hooks_come_and_go(where, order):
    model = tiny.sd15_unet()
    module = model.get_submodule(where)
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    if order == "before":
        add_hook_to_module(module, AccelerateHook())
    handle = retom.apply(model)
    if order == "after":
        add_hook_to_module(module, AccelerateHook())

    assert kept(model) == [128]
    remove_hook_from_module(module, recurse=True)
    assert kept(model) == [128]
    handle.remove()
    assert torch.equal(tiny.call(model, arguments), unmerged)


def test_sequential_offload_hooks_keep_merging():
    from accelerate import cpu_offload

    model = tiny.sd15_unet()
    handle = retom.apply(model)
    merged = tiny.call(model, tiny.inputs())
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert torch.equal(tiny.call(model, tiny.inputs()), merged)
    assert retom.handle_of(model) is handle


class CountCalls(ModelHook):
    def __init__(self):
        super().__init__()
        self.tokens = []

    def pre_forward(self, module, *args, **kwargs):
        self.tokens.append(args[0].shape[1])
        return args, kwargs


@pytest.mark.parametrize("order", ["before", "after"])
def test_diffusers_hooks_on_attention_see_merged_tokens(order):
    """They replace ``forward``, so they run inside the torch hooks whichever came first."""
    model = tiny.sd15_unet()
    registry = HookRegistry.check_if_exists_or_initialize(model.get_submodule(LEVEL_0))
    hook = CountCalls()
    if order == "before":
        registry.register_hook(hook, "count")
    handle = retom.apply(model, kv_lean=0)
    if order == "after":
        registry.register_hook(hook, "count")

    assert kept(model) == [128]
    handle.remove()
    assert kept(model) == [256]
    assert hook.tokens == [128, 256]


def test_layerwise_casting_keeps_merging():
    model = tiny.sd15_unet()
    retom.apply(model)
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert kept(model) == [128]


def test_group_offload_keeps_merging():
    needs_new("group offload on a CPU alone")
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    merged = tiny.call(model, tiny.inputs())
    cpu = torch.device("cpu")
    model.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
    assert kept(model) == [128]
    assert torch.equal(tiny.call(model, tiny.inputs()), merged)
    handle.remove()
    assert kept(model) == [256]


def test_lora_loaded_before_or_after_counts_alike():
    peft = pytest.importorskip("peft")

    def adapted(*, first):
        model = tiny.sd15_unet()
        if first == "merging":
            retom.apply(model, kv_lean=0)
        torch.manual_seed(0)
        model.add_adapter(
            peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        )
        if first == "lora":
            retom.apply(model, kv_lean=0)
        return model

    model, other = adapted(first="merging"), adapted(first="lora")
    output = tiny.call(model, tiny.inputs())
    assert torch.equal(tiny.call(other, tiny.inputs()), output)
    model.disable_adapters()
    assert not torch.equal(tiny.call(model, tiny.inputs()), output)
    assert kept_by_lora(model) == kept_by_lora(other) == [128]


def kept_by_lora(model):
    """LoRA wraps ``to_q``; the wrapped layer is ``to_q.base_layer``."""
    with tiny.tokens_seen(model, "attn1.to_q.base_layer") as seen:
        tiny.call(model, tiny.inputs())
    return seen[f"{LEVEL_0}.to_q.base_layer"]
