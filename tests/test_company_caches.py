"""Caches of diffusers beside merging, enabled before it and after it."""

import company
import pytest
import tiny
import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module
from company import CACHES, KEEPING, Time, config_of
from diffusers import hooks
from tiny_transformers import FAMILIES, draw, needs_new

import retom

ORDERS = ("before", "after")
# The cache adds up differences to what was one sum: float32 rounding of outputs of about 1.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
QUICK = ("flux", "qwen", "kandinsky5")
EVERY = [
    pytest.param(
        name, kind, id=f"{kind}-{name}", marks=() if name in QUICK else (pytest.mark.slow,)
    )
    for kind, cache in CACHES.items()
    for name in cache.denoisers
]
OF_BLOCKS = [case for case in EVERY if CACHES[case.values[1]].of_blocks]
OF_LAYERS = [case for case in EVERY if not CACHES[case.values[1]].of_blocks]

pytestmark = pytest.mark.filterwarnings("ignore:.*purely experimental")


@pytest.fixture(autouse=True)
def _time():
    Time.now = 900
    yield
    Time.now = 500


def run(model, arguments):
    """One call, at a timestep in which caches serve if they have something to serve."""
    with torch.no_grad(), model.cache_context("cond"):
        output = model(**arguments, return_dict=False)[0]
    Time.now = 500
    return output


def options_of(kind):
    return {} if CACHES[kind].of_blocks else {"refresh": KEEPING}


def cached(name, kind, order, **options):
    """A merging model with a cache on it, the handle, and a call's arguments."""
    model = FAMILIES[name].build()
    if order == "before":
        model.enable_cache(config_of(kind))
    handle = retom.apply(model, **options)
    if order == "after":
        model.enable_cache(config_of(kind))
    return model, handle, FAMILIES[name].call(8, 6, 1)


def merging(name, **options):
    model = FAMILIES[name].build()
    return model, retom.apply(model, **options)


def other(name, arguments):
    """The arguments of another step: other latents, a lower timestep."""
    latents = arguments["hidden_states"]
    return {
        **arguments,
        "hidden_states": latents + 0.3 * draw(*latents.shape, seed=9),
        "timestep": arguments["timestep"] * 0.9,
    }


def watch(handle):
    """The image tokens that enter and leave every block, all of them."""
    seen = {}

    def keep(site):
        def enters(_module, args, kwargs):
            given = {**dict(zip(site.parameters, args, strict=False)), **kwargs}
            seen[site.name] = [given[site.spec.tokens].clone()]

        def leaves(_module, _args, output):
            place = site.spec.output
            seen[site.name].append((output if place is None else output[place]).clone())

        # before all hooks of retom, and after them
        site.block.register_forward_pre_hook(enters, with_kwargs=True, prepend=True)
        site.block.register_forward_hook(leaves)

    for site in handle._layout.sites:
        keep(site)
    return seen


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_what_a_cache_keeps_is_right_for_the_step_that_it_is_from(name, kind, order):
    """Called twice for the same step, the second call is the cache's and gives the same."""
    plain, _ = merging(name, **options_of(kind))
    model, handle, arguments = cached(name, kind, order, **options_of(kind))
    expected = run(plain, arguments)
    Time.now = 900
    assert torch.equal(run(model, arguments), expected)

    layers = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: layers.append(1))
    torch.testing.assert_close(run(model, arguments), expected, **ROUNDING)
    served, _ = len(layers), layers.clear()

    model.disable_cache()
    assert torch.equal(run(model, arguments), expected)
    assert served < len(layers)
    handle.remove()
    assert torch.equal(run(model, arguments), run(FAMILIES[name].build(), arguments))


@pytest.mark.parametrize("name", ["flux", "qwen"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["FirstBlockCache", "MagCache"])
def test_a_cache_of_blocks_sees_all_tokens(kind, order, name):
    """In another step it adds what blocks gave in the first one, token by token."""
    plain, handle = merging(name)
    arguments = FAMILIES[name].call(8, 6, 1)
    later = other(name, arguments)
    first, last = handle._layout.sites[0].name, handle._layout.sites[-1].name
    seen = watch(handle)
    run(plain, arguments)
    (x_before, head_before), (_, tail_before) = seen[first], seen[last]
    run(plain, later)
    x, head = seen[first]
    start, since = (head, head_before) if kind == "FirstBlockCache" else (x, x_before)
    expected = start + tail_before - since

    model, handle, _ = cached(name, kind, order)
    seen = watch(handle)
    run(model, arguments)
    run(model, later)
    torch.testing.assert_close(seen[last][1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [case.values[1] for case in OF_LAYERS if "flux" in case.values])
@pytest.mark.parametrize("name", ["flux", "qwen"])
def test_a_cache_of_layers_serves_the_tokens_that_are_merged(name, kind):
    """Attention gives in another step what it gave in the first, and all the rest runs."""
    reference, _ = merging(name, refresh=KEEPING)
    kept = {}
    for layer, module in reference.named_modules():
        if layer.endswith(".attn"):
            serve = lambda _m, _a, output, layer=layer: kept.setdefault(layer, output)  # noqa: E731
            module.register_forward_hook(serve)
    model, _, arguments = cached(name, kind, "after", refresh=KEEPING)
    later = other(name, arguments)
    assert torch.equal(run(model, arguments), run(reference, arguments))
    torch.testing.assert_close(run(model, later), run(reference, later), **ROUNDING)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("name", "kind"), [case for case in OF_LAYERS if "qwen" in case.values])
def test_a_cache_of_layers_is_refused_where_plans_do_not_last(name, kind, order):
    model, handle, arguments = cached(name, kind, order)
    message = (
        rf"{CACHES[kind].hook} in transformer_blocks\.0 hands out what its layer gave in earlier "
        r"steps, but scope='block' merges other tokens in every step\. Keep the plans of a "
        r"picture's first step with refresh=\(1\.0,\), or call disable_cache\(\)"
    )
    with pytest.raises(retom.ConfigError, match=message):
        run(model, arguments)
    for refresh in (2, (0.9, 0.5)):
        handle.update(refresh=refresh)
        with pytest.raises(retom.ConfigError, match=message):
            run(model, arguments)
    handle.enabled = False
    plain = FAMILIES[name].build()
    assert torch.equal(run(model, arguments), run(plain, arguments))
    handle.enabled = True
    model.disable_cache()
    assert run(model, arguments).isfinite().all()


def test_faster_cache_that_leaves_out_half_of_the_batch_is_refused():
    model = FAMILIES["cogview4"].build()
    retom.apply(model, refresh=KEEPING)
    model.enable_cache(
        hooks.FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            current_timestep_callback=lambda: Time.now,
            attention_weight_callback=lambda _: 0.5,
            tensor_format="BCHW",
        )
    )
    with pytest.raises(retom.ConfigError, match="leaves out half of the batch in some steps"):
        run(model, FAMILIES["cogview4"].call(8, 6, 2))


@pytest.mark.parametrize("order", ORDERS)
def test_a_cache_outlives_merging(order):
    model, handle, arguments = cached("flux", "FirstBlockCache", order)
    alone = FAMILIES["flux"].build()
    alone.enable_cache(config_of("FirstBlockCache"))
    run(model, arguments)
    handle.remove()
    model._reset_stateful_cache()
    for step in (arguments, other("flux", arguments)):
        assert torch.equal(run(model, step), run(alone, step))
    for module in model.modules():
        assert "retom" not in getattr(module, "_diffusers_hook", hooks.HookRegistry(module)).hooks


def test_a_cache_that_never_serves_changes_nothing():
    plain, _ = merging("flux")
    model, _ = merging("flux")
    model.enable_cache(hooks.FirstBlockCacheConfig(threshold=0.0))
    arguments = FAMILIES["flux"].call(8, 6, 2)
    for step in (arguments, other("flux", arguments)):
        assert torch.equal(run(model, step), run(plain, step))


def test_offloading_under_a_cache_keeps_its_place():
    """Hooks that are further in than the cache stay where they are, and keep working."""
    needs_new("offloading on a CPU alone")
    plain, _ = merging("flux")
    model, _ = merging("flux")
    cpu = torch.device("cpu")
    model.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
    model.enable_cache(config_of("FirstBlockCache"))
    arguments = FAMILIES["flux"].call(8, 6, 1)
    expected = run(plain, arguments)
    assert torch.equal(run(model, arguments), expected)
    torch.testing.assert_close(run(model, arguments), expected, **ROUNDING)
    names = list(model.transformer_blocks[0]._diffusers_hook.hooks)
    assert names == ["group_offloading", "retom", "fbc_leader_block_hook"]


def test_a_hook_of_accelerate_around_a_cache_is_refused():
    model, _, arguments = cached("flux", "FirstBlockCache", "after")
    add_hook_to_module(model.transformer_blocks[0], AccelerateHook())
    message = r"accelerate's hook on transformer_blocks\.0 came after the cache .* enable_cache\(\)"
    with pytest.raises(retom.ConfigError, match=message):
        run(model, arguments)


def test_a_cache_in_a_unet_is_refused_where_it_would_keep_merged_tokens():
    """UNets have no enable_cache; the function takes any module."""
    model, arguments = tiny.sd15_unet(), tiny.inputs()
    handle = retom.apply(model)
    hooks.apply_pyramid_attention_broadcast(model, config_of("PyramidAttentionBroadcast"))
    with pytest.raises(retom.ConfigError, match="scope='attention' merges other tokens"):
        tiny.call(model, arguments)
    handle.update(refresh=KEEPING)
    first = tiny.call(model, arguments)
    assert torch.equal(tiny.call(model, arguments), first)
    handle.update(refresh=None, scope="kv")  # its queries, and so what attention gives, are whole
    assert torch.equal(tiny.call(model, arguments), tiny.call(model, arguments))


def test_every_cache_of_diffusers_is_in_the_table_or_named_here():
    needs_new("cache of the table's newest")
    known = {"TextKVCache", "SeaCache"}  # of text alone; for video models alone
    offered = {name.removesuffix("Config") for name in dir(hooks) if name.endswith("CacheConfig")}
    offered |= {"PyramidAttentionBroadcast"}
    shown = {cache.shown.split("Config(")[0] for cache in company.CACHES.values()}
    assert {name.removesuffix("Cache") for name in offered - known} == {
        name.removesuffix("Cache") for name in shown
    }


@pytest.mark.parametrize(
    "kind", [next(k for k in CACHES if CACHES[k].of_blocks), "PyramidAttentionBroadcast"]
)
def test_a_cache_and_a_stopwatch_are_refused(kind):
    """A cache would take the calls that are timed for steps."""
    name = CACHES[kind].denoisers[0]
    model, handle, arguments = cached(name, kind, "after", skip="unprofitable", **options_of(kind))
    with pytest.raises(retom.ConfigError, match="would take each call for a step"):
        run(model, arguments)
    assert handle.summary().decisions == ()
    model.disable_cache()
    tiny_call = model(**arguments, return_dict=False)[0]
    assert tiny_call.isfinite().all()
