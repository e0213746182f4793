"""IP-Adapter: its picture counts in every scope; its masks, where tokens keep their places."""

import pytest
import tiny
import torch

import retom

PLACES_KEPT = ("attention", "attention+mlp", "kv")
IMAGE_WIDTH = 6


def weights(unet):
    """Random weights of one adapter, named as its files name them."""
    generator = torch.Generator().manual_seed(0)
    width = unet.config.cross_attention_dim

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    layers = {}
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(names):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for key in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * number + 1}.{key}.weight"] = draw(attention.inner_dim, width)
    projection = {
        "proj.weight": draw(4 * width, IMAGE_WIDTH),
        "proj.bias": draw(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def adapted():
    model = tiny.sd15_unet()
    model._load_ip_adapter_weights(weights(model), low_cpu_mem_usage=False)
    return model


def inputs(*, seed=3, masks=None, **options):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn((2, 1, IMAGE_WIDTH), generator=generator)
    arguments = {**tiny.inputs(**options), "added_cond_kwargs": {"image_embeds": [embeds]}}
    if masks is not None:
        arguments["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
    return arguments


def half_mask(height=16, width=16):
    mask = torch.zeros(1, 1, height, width)
    mask[..., : width // 2] = 1
    return [mask]


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_the_picture_counts_and_tokens_merge(scope):
    model, late = adapted(), tiny.sd15_unet()
    retom.apply(model, scope=scope)
    retom.apply(late, scope=scope)
    late._load_ip_adapter_weights(weights(late), low_cpu_mem_usage=False)
    with tiny.tokens_seen(model, tiny.TOLD_BY[scope]) as seen:
        output = tiny.call(model, inputs())
    assert seen[f"{tiny.FIRST}.{tiny.TOLD_BY[scope]}"] == [128]
    assert not torch.equal(tiny.call(model, inputs(seed=4)), output)
    assert torch.equal(tiny.call(late, inputs()), output)


@pytest.mark.parametrize("scope", PLACES_KEPT)
def test_masks_count_where_every_token_asks_the_picture(scope):
    model = adapted()
    retom.apply(model, scope=scope)
    with tiny.tokens_seen(model, "attn2.to_q") as seen:
        masked = tiny.call(model, inputs(masks=half_mask()))
    assert seen[f"{tiny.FIRST}.attn2.to_q"] == [256]
    everywhere = tiny.call(model, inputs(masks=[torch.ones(1, 1, 16, 16)]))
    assert not torch.equal(masked, everywhere)
    # Bicubic scaling of ones leaves ones, but for rounding.
    torch.testing.assert_close(everywhere, tiny.call(model, inputs()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 32), (18, 14)], ids=str)
@pytest.mark.parametrize("scope", PLACES_KEPT)
def test_a_mask_means_the_same_places_merged_and_un_merged(scope, size):
    """At ratio 0.02 few tokens go, so what the mask does is nearly what it does un-merged."""
    model = adapted()
    whole, masked = inputs(size=size), inputs(size=size, masks=half_mask(*size))
    effect = tiny.call(model, masked) - tiny.call(model, whole)
    retom.apply(model, scope=scope, ratio=0.02)
    merged_effect = tiny.call(model, masked) - tiny.call(model, whole)
    assert (merged_effect - effect).norm() < 0.2 * effect.norm()


def test_block_refuses_masks_because_their_places_move():
    model = adapted()
    handle = retom.apply(model, scope="block", refresh=2)
    with pytest.raises(retom.ConfigError, match=r"masks of an IP-Adapter.*scope='attention'"):
        tiny.call(model, inputs(masks=half_mask()))
    assert tiny.is_idle(handle)
    handle.enabled = False
    assert tiny.call(model, inputs(masks=half_mask())).isfinite().all()
    handle.enabled = True
    handle.update(scope="attention+mlp")
    assert tiny.call(model, inputs(masks=half_mask())).isfinite().all()


def test_block_takes_masks_that_speak_of_nothing():
    model = adapted()
    retom.apply(model, scope="block")
    assert torch.equal(tiny.call(model, inputs(masks=[None])), tiny.call(model, inputs()))


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_removal_leaves_the_adapter_as_it_was(scope):
    model = adapted()
    unmerged = tiny.call(model, inputs())
    handle = retom.apply(model, scope=scope)
    assert not torch.equal(tiny.call(model, inputs()), unmerged)
    handle.remove()
    assert torch.equal(tiny.call(model, inputs()), unmerged)
