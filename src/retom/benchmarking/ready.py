"""Contenders made ready to run: each a copy of the model on its weights, merged its own way."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.benchmarking.refusing import refuse_noise, refuse_reuse, refuse_transformers
from retom.calls import first_input
from retom.errors import ConfigError
from retom.evaluation.timing import shared_copy
from retom.evaluation.tomesd import Tomesd
from retom.handle import apply, handle_of
from retom.hooks.layers import merges_apart
from retom.hooks.trial import tries_block
from retom.models import find_denoiser, layout_of
from retom.span import find_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from retom.benchmarking.places import Place
    from retom.config import Config
    from retom.drawing.loading import Model
    from retom.evaluation.contenders import Contender
    from retom.handle import Handle
    from retom.token_plan import TokenPlan

    Call = Callable[[], object]

PROMPT = "a red apple on a blue background"
_BY_POSITION = ("sample", "timestep")


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A contender to be timed.

    Attributes:
        run: One call.
        model: What it runs, whose layers count tokens.
        pieces: ``plan``, ``merge`` and ``unmerge`` alone, where a single place is timed.
        sharers: How many layers share one plan.
        handle: Of its merging, to ask what was skipped; None for un-merged and tomesd.
    """

    run: Call
    model: nn.Module
    pieces: dict[str, Call] = field(default_factory=dict["str", "Call"])
    sharers: int = 1
    handle: Handle | None = None


def ready_denoiser(
    denoiser: nn.Module,
    inputs: Mapping[str, Any],
    contender: Contender | None,
    *,
    compiled: bool = False,
) -> Ready:
    """One call of a whole denoiser.

    Args:
        denoiser: Without merging.
        inputs: Its arguments.
        contender: How to merge; None for not at all.
        compiled: Whether ``torch.compile`` compiles it.

    Raises:
        ConfigError: The contender cannot merge here, or one call does not tell what it costs.
    """
    refuse_reuse(contender)
    entry, twin = _merged(denoiser, contender, compiled=compiled)
    # tomesd reads the latents as the first argument by position.
    first = [inputs[name] for name in _BY_POSITION if name in inputs and "sample" in inputs]
    rest = {k: v for k, v in inputs.items() if not (first and k in _BY_POSITION)}

    @torch.no_grad()
    def run() -> object:
        return entry(*first, **rest, return_dict=False)

    return Ready(run, twin, handle=handle_of(twin))


def ready_picture(
    model: Model,
    contender: Contender | None,
    *,
    call: Mapping[str, Any],
    seed: int = 0,
    compiled: bool = False,
) -> Ready:
    """One whole picture, text encoding and decoding included.

    Args:
        model: A pipeline without merging.
        contender: How to merge; None for not at all.
        call: Arguments of the pipeline beside prompt and generator.
        seed: Of the noise.
        compiled: Whether ``torch.compile`` compiles the denoiser.
    """
    entry, twin = _merged(find_denoiser(model.pipe), contender, compiled=compiled)
    pipe = copy.copy(model.pipe)
    setattr(pipe, "unet" if hasattr(pipe, "unet") else "transformer", entry)

    def run() -> object:
        return pipe(PROMPT, generator=torch.Generator().manual_seed(seed), **call)

    return Ready(run, twin, handle=handle_of(twin))


def ready_place(place: Place, contender: Contender | None, *, compiled: bool = False) -> Ready:
    """One call of a single block or layer.

    Args:
        place: The module.
        contender: How to merge; None for not at all.
        compiled: Whether ``torch.compile`` compiles the module. Plan, merge and un-merge are then
            parts of one graph, and not timed alone.

    Raises:
        ConfigError: The contender cannot merge here, or asks for more than a single place has.
    """
    twin = shared_copy(place.denoiser)
    module = twin.get_submodule(place.module)
    if contender is None:
        made = Ready(_under_no_grad(lambda: module(*place.call[0], **place.call[1])), module)
    elif isinstance(contender.merging, Tomesd):
        made = _ready_tomesd(place, contender.merging, twin, module)
    else:
        made = _ready_method(place, contender.merging, twin, module)
    if not compiled:
        return made
    run = made.run
    if place.module != place.block and contender and isinstance(contender.merging, Tomesd):
        run = torch.compile(run)  # its merging stands around the layer, in no hook
    else:
        module.compile()
    return Ready(run, made.model, {}, made.sharers)


def _ready_method(place: Place, config: Config, twin: nn.Module, module: nn.Module) -> Ready:
    if place.module != place.block and config.scope not in ("attention", "kv"):
        raise ConfigError(
            f"Scope {config.scope} has more in it than the self-attention that part layer times; "
            "use part block."
        )
    if place.module != place.block and config.skip is not None and tries_block(config):
        raise ConfigError("With score='block' skip times the whole block; use part block.")
    refuse_noise(config)
    if config.needs_timestep:
        raise ConfigError(
            "refresh, alternate and importance depend on a whole call of the "
            "denoiser; use part denoiser or picture."
        )
    handle = apply(twin, config)
    state = handle._state
    level = state.levels[place.site.level]
    args, kwargs = place.call
    tokens = _image_tokens(place)
    score = _keys_of(twin, place) if config.score == "keys" else None
    inside = place.site.inside
    apart = inside is not None and merges_apart(
        config.scope, inside.attention, softmax=not inside.linear
    )

    def begin() -> None:
        state.begin(dict(place.grids))
        level.source_grid = place.grid

    def run() -> object:
        begin()
        try:
            return module(*args, **kwargs)
        finally:
            state.end()

    def plan() -> TokenPlan:
        begin()
        made = state.plan_for(level, level.own[place.site.name], tokens, score, apart=apart)
        state.end()
        assert made is not None
        return made

    if config.skip is not None:  # a layer that is skipped has no pieces
        return Ready(_under_no_grad(run), module, handle=handle)
    times = 2 if config.scope == "attention+mlp" else 1
    pieces = _pieces(plan, tokens, times, spreads=config.scope != "kv")
    sharers = place.alike if config.share == "level" else 1
    return Ready(_under_no_grad(run), module, pieces, sharers)


def _keys_of(twin: nn.Module, place: Place) -> Any:  # noqa: ANN401 - a layer, called
    site = next(site for site in layout_of(twin).sites if site.name == place.site.name)
    assert site.inside is not None
    return cast("Any", site.inside.attention).to_k


def _pieces(
    plan: Callable[[], TokenPlan], tokens: Tensor, times: int, *, spreads: bool
) -> dict[str, Call]:
    """Planning, merging and un-merging alone; of an MLP that merges too, both times."""
    fixed = _under_no_grad(plan)()
    merged = fixed.merge(tokens)

    def merge() -> None:
        for _ in range(times):
            fixed.merge(tokens)
        if fixed.keys is not fixed:
            fixed.keys.merge(tokens)

    def unmerge() -> None:
        for _ in range(times):
            fixed.unmerge(merged, tokens, merged)

    pieces: dict[str, Call] = {"plan": plan, "merge": merge}
    if spreads:
        pieces["unmerge"] = unmerge
    return {name: _under_no_grad(piece) for name, piece in pieces.items()}


def _ready_tomesd(place: Place, merging: Tomesd, twin: nn.Module, module: nn.Module) -> Ready:
    refuse_transformers(twin)
    tokens = _image_tokens(place)
    merging.apply(twin, tokens.device)
    info: Any = twin._tome_info
    info["size"] = place.latent
    compute: Any = import_module("tomesd.patch").compute_merge
    args, kwargs = place.call

    def plan() -> tuple[Any, Any]:
        found = compute(tokens, info)
        return found[0], found[3]

    def layer() -> object:
        merge, unmerge = plan()
        return unmerge(module(merge(first_input(args, kwargs, "hidden_states")), **kwargs))

    run = layer if place.module != place.block else lambda: module(*args, **kwargs)
    merge, unmerge = plan()
    merged = merge(tokens)
    pieces: dict[str, Call] = {
        "plan": plan,
        "merge": lambda: merge(tokens),
        "unmerge": lambda: unmerge(merged),
    }
    pieces = {name: _under_no_grad(piece) for name, piece in pieces.items()}
    return Ready(_under_no_grad(run), module, pieces)


def _merged(
    denoiser: nn.Module, contender: Contender | None, *, compiled: bool
) -> tuple[Any, nn.Module]:
    """What is called, and the copy that it runs."""
    twin = shared_copy(denoiser)
    entry: Any = torch.compile(twin) if compiled else twin
    merging = None if contender is None else contender.merging
    if not isinstance(merging, Tomesd | None):
        refuse_noise(merging)
    if isinstance(merging, Tomesd):
        refuse_transformers(twin)
        merging.apply(twin)
    elif merging is not None:
        apply(entry, merging)
    return entry, twin


def _image_tokens(place: Place) -> Tensor:
    """Tokens (B, N, C) of the shape that merges here."""
    args, kwargs = place.call
    tokens = first_input(args, kwargs, "hidden_states")
    if place.site.spec is None or place.module != place.block:
        return tokens
    call = (args, kwargs)
    return find_span(place.site.spec, place.site.parameters, call, place.grid.num_tokens, 0).image


def _under_no_grad(call: Callable[[], Any]) -> Callable[[], Any]:
    return torch.no_grad()(call)
