"""Offloading, as far as a machine without an accelerator can show it.

The libraries' hooks are all in place and move everything from the CPU to the CPU: it is shown that
merging survives them, in both orders, and their removal between pictures. That tensors of retom
follow the model to another device, and that streams of group offload do not run ahead of a merge,
needs an accelerator.
"""

import pytest
import tiny
import torch
from accelerate import cpu_offload
from tiny_transformers import needs_new

import retom

CPU = torch.device("cpu")


def group(offload_type):
    def enable(pipe):
        needs_new("group offload on a CPU alone")
        pipe.unet.enable_group_offload(CPU, CPU, offload_type=offload_type, num_blocks_per_group=1)

    return enable


def layer_by_layer(pipe):
    """What enable_sequential_cpu_offload does to the UNet.

    On the CPU alone accelerate 1.15 fails on the text encoder, with merging and without.
    """
    cpu_offload(pipe.unet, execution_device=CPU)


OFFLOADS = {
    "model by model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "layer by layer": layer_by_layer,
    "blocks in groups": group("block_level"),
    "leaves in groups": group("leaf_level"),
}


@pytest.mark.parametrize(
    ("order", "scope"),
    [("after", "attention"), ("before", "attention+mlp"), ("after", "block"), ("before", "kv")],
)
@pytest.mark.parametrize("offload", OFFLOADS.values(), ids=OFFLOADS)
def test_pictures_are_bit_equal_with_and_without(offload, order, scope):
    pipe, plain = tiny.sd_pipeline(), tiny.sd_pipeline()
    retom.apply(plain, scope=scope, refresh=2)
    expected = tiny.latents(plain)
    if order == "after":
        handle = retom.apply(pipe, scope=scope, refresh=2)
    offload(pipe)
    if order == "before":
        handle = retom.apply(pipe, scope=scope, refresh=2)

    layer = tiny.TOLD_BY[scope]
    for _ in range(2):  # accelerate takes its hooks off and puts them on again between pictures
        with tiny.tokens_seen(pipe.unet, layer) as seen:
            picture = tiny.latents(pipe)
        assert seen[f"{tiny.FIRST}.{layer}"] == [128, 128]
        assert torch.equal(picture, expected)
    assert retom.handle_of(pipe) is handle


@pytest.mark.parametrize("offload", OFFLOADS.values(), ids=OFFLOADS)
def test_merging_is_taken_off_an_offloaded_pipeline(offload):
    pipe = tiny.sd_pipeline()
    unmerged = tiny.latents(pipe)
    offload(pipe)
    handle = retom.apply(pipe)
    assert not torch.equal(tiny.latents(pipe), unmerged)
    handle.remove()
    assert torch.equal(tiny.latents(pipe), unmerged)
    assert not any(
        type(hook).__module__.startswith("retom")
        for module in pipe.unet.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks.values()
    )
