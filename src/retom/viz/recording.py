"""Record what merges in each layer and call while pictures are drawn."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from retom.calls import Args, Kwargs, first_input
from retom.errors import ConfigError
from retom.grid import Grid, Windows
from retom.grouped_plan import GroupedPlan
from retom.handle import Handle, handle_of
from retom.methods.window import window_of
from retom.plan import Plan
from retom.representative import at_length_one, dot, pair_cosine, unit_tokens
from retom.span import find_span
from retom.split_plan import SplitPlan

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import nn

    from retom.methods import Method
    from retom.models.layout import Site
    from retom.state import MergeState
    from retom.token_plan import TokenPlan


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one layer merged in one call of the denoiser, for one picture of the batch.

    Attributes:
        call: Which call since recording began, from 0.
        layer: Name of the layer's block in the denoiser.
        level: Its attention level, 0 for the largest grid.
        grid: Height and width of its tokens, N in all.
        window: (height, width) of the method's windows in tokens; None where it has none.
        joined: The token that stands for each token, int64 (N,) on the CPU.
        similarity: Cosine similarity of each token to that token, float32 (N,).
        error: What merging and un-merging alone lose of each token, relative to its length,
            float32 (N,): ||x - unmerge(merge(x))|| / ||x||.
        coherence: Mean cosine similarity over the pairs of each window, float32 (num_windows,);
            1 for a window of one token; None where there are no windows.
    """

    call: int
    layer: str
    level: int
    grid: Grid
    window: tuple[int, int] | None
    joined: Tensor
    similarity: Tensor
    error: Tensor
    coherence: Tensor | None

    @property
    def windows(self) -> Windows | None:
        """The partition, un-shifted; None where the method has no windows."""
        return None if self.window is None else Windows.over(self.grid, self.window)

    @property
    def group_size(self) -> Tensor:
        """Number of tokens that became one with each token, itself among them, int64 (N,)."""
        return torch.bincount(self.joined, minlength=self.grid.num_tokens)[self.joined]

    @property
    def num_kept(self) -> int:
        """Tokens after merging, K."""
        return int((self.joined == torch.arange(self.grid.num_tokens)).sum())


@dataclass(slots=True, eq=False)
class Recording:
    """Everything that was recorded, in the order of the calls.

    Attributes:
        looks: One for every layer that merged, call by call.
        calls: Calls of the denoiser so far.
    """

    looks: list[Look] = field(default_factory=list[Look])
    calls: int = 0

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that merged, in the order in which they ran."""
        return tuple(dict.fromkeys(look.layer for look in self.looks))

    def look(self, layer: str | int = 0, call: int | None = None) -> Look:
        """What a layer merged in a call.

        Args:
            layer: Its name, or its place in :attr:`layers`.
            call: Counted from 0; from the end where it is negative; None for the last one in which
                the layer merged.

        Raises:
            ConfigError: Nothing merged there; the message says where something did.
        """
        found = self.of_layer(layer)
        if call is None:
            return found[-1]
        number = call + self.calls if call < 0 else call
        for look in found:
            if look.call == number:
                return look
        merged = ", ".join(str(look.call) for look in found)
        raise ConfigError(
            f"Layer {found[0].layer} merged in the calls {merged} of {self.calls}; call {call} was "
            "asked for."
        )

    def of_layer(self, layer: str | int = 0) -> list[Look]:
        """All that a layer merged, call by call.

        Raises:
            ConfigError: Nothing merged, or not in that layer.
        """
        layers = self.layers
        if not layers:
            raise ConfigError(
                "Nothing merged while this was recorded. Draw a picture inside the with block, at "
                "a ratio above 0 and with steps at a noise that merges; handle.summary() says what "
                "merges where."
            )
        if isinstance(layer, int) and -len(layers) <= layer < len(layers):
            layer = layers[layer]
        if layer not in layers:
            names = ", ".join(layers)
            raise ConfigError(f"There is no merging layer {layer!r}; those that merged: {names}.")
        return [look for look in self.looks if look.layer == layer]


@contextmanager
def record(
    target: object, *, layers: Sequence[str] | None = None, item: int = -1
) -> Generator[Recording]:
    """Record what merges inside a ``with`` block; the pictures are bit for bit the same.

    Args:
        target: A handle, or what merging is applied to.
        layers: Names of the blocks to record; all if not given.
        item: Which of a batch; the last is the one with the prompt where guidance doubles it.

    Raises:
        ConfigError: Merging is not applied, a layer does not exist, or, inside of the block, the
            method's plans have no groups or the denoiser is compiled.
    """
    handle = target if isinstance(target, Handle) else handle_of(target)
    if handle is None or not handle.applied:
        raise ConfigError(
            "Merging is not applied to this model, so there is nothing to record. Call "
            "retom.apply first."
        )
    sites = handle._layout.sites
    known = {site.name for site in sites}
    for name in layers or ():
        if name not in known:
            raise ConfigError(f"There is no layer {name!r}; there are: {', '.join(sorted(known))}.")
    recording = Recording()

    def comes(_module: nn.Module, _args: Args) -> None:
        if torch.compiler.is_compiling():
            raise ConfigError(
                "Recording looks at each call, which a compiled graph cannot. Record with the "
                "denoiser as it was before torch.compile."
            )
        recording.calls += 1

    removables = [handle._denoiser.register_forward_pre_hook(comes)]
    for site in sites:
        if layers is None or site.name in layers:
            removables += _watch(site, handle._state, recording, item)
    try:
        yield recording
    finally:
        for removable in removables:
            removable.remove()


def _watch(site: Site, state: MergeState, recording: Recording, item: int) -> list[Any]:
    """Look at a site's tokens before merging, and at its plan after."""
    level = state.levels[site.level]
    held: list[Tensor] = []
    block = state.config.scope == "block"
    if not block and site.inside is None:
        return []
    module = site.block if block else cast("Any", site.inside).attention

    def before(_module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if state.profit.measuring:
            return  # a call under the stopwatch, and no part of the picture
        held.clear()
        grid = level.source_grid
        if not state.running or level.method is None or grid is None:
            return
        if block:
            if site.spec is None:
                return
            call = (args, kwargs)
            span = find_span(site.spec, site.parameters, call, grid.num_tokens, state.references)
            held.append(span.image)
        else:
            held.append(first_input(args, kwargs, "hidden_states"))

    def after(_module: nn.Module, _args: Args, _output: object) -> None:
        if state.profit.measuring:
            return
        slot = level.shared if state.config.share == "level" else level.own[site.name]
        plan = slot.plan
        skips = level.own[site.name].skips
        if held and plan is not None and not skips and level.method is not None:
            grid = cast("Grid", level.source_grid)
            call = recording.calls - 1
            recording.looks.append(
                _look(call, site, held[0].detach(), plan, grid, level.method, item)
            )
        held.clear()

    return [
        module.register_forward_pre_hook(cast("Any", before), with_kwargs=True, prepend=True),
        # before the hooks that end a block, and with it its plan
        module.register_forward_hook(cast("Any", after), prepend=True),
    ]


@torch.no_grad()
def _look(
    call: int, site: Site, x: Tensor, plan: TokenPlan, grid: Grid, method: Method, item: int
) -> Look:
    plan = plan.queries if isinstance(plan, SplitPlan) else plan
    groups = plan.plan if isinstance(plan, GroupedPlan) else plan
    if not isinstance(groups, Plan):
        raise ConfigError(
            f"The plans of {method.name} share tokens out by weights, so there are no groups to "
            "look at. Record a method whose tokens join one kept token each, such as retom."
        )
    joined = groups.kept[item].gather(0, groups.slot[item])
    own = x[item].float()
    unit = at_length_one(own)
    merged = plan.merge(x)
    back = plan.unmerge(merged, x, merged)[item].float()
    length = _lengths(own).clamp_min(torch.finfo(torch.float32).tiny)
    window = window_of(method, grid)
    coherence = None if window is None else _coherence(own, Windows.over(grid, window))
    return Look(
        call=call,
        layer=site.name,
        level=site.level,
        grid=grid,
        window=window,
        joined=joined.cpu(),
        similarity=dot(unit, unit[joined]).cpu(),
        error=(_lengths(own - back) / length).cpu(),
        coherence=None if coherence is None else coherence.cpu(),
    )


def _lengths(x: Tensor) -> Tensor:
    return cast("Tensor", torch.linalg.vector_norm(x, dim=-1))


def _coherence(x: Tensor, windows: Windows) -> Tensor:
    """Mean cosine similarity of the pairs of each window of tokens (N, C), (num_windows,).

    A window of one token is as coherent as can be.
    """
    members = windows.valid(x.device).sum(dim=-1)
    return torch.where(members > 1, pair_cosine(unit_tokens(x[None], windows), members)[0], 1.0)
