"""Before a site merges: let it be timed there, on what really arrives, whether that pays.

``skip="unprofitable"``. A trial calls the module itself, through all of its hooks, with the real
arguments and without gradients, and throws its outputs away. It leaves nothing behind but the
decision. It stands before the smallest module that holds all that merges: the self-attention in
scopes ``attention`` and ``kv``, else the block.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from retom.calls import Args, Kwargs, read_path
from retom.errors import ConfigError
from retom.hooks.recomputation import in_backward
from retom.profit import UNPROFITABLE, Measured, Shape, time_pays
from retom.refusals import UNMEASURED
from retom.rounds import synchroniser

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torch import nn

    from retom.config import Config
    from retom.level import LevelState, PlanSlot
    from retom.models.layout import Layout
    from retom.state import MergeState


def tries_block(config: Config) -> bool:
    """Whether the whole block is timed, because more of it than its self-attention takes part."""
    return config.scope in ("block", "attention+mlp") or config.score == "block"


@dataclass(slots=True, eq=False)
class Trial:
    """Before a module and its other hooks: decide whether it merges in this call.

    Attributes:
        state: The denoiser's.
        level: The site's.
        slot: The site's own plan.
        layer: Qualified name of the site.
        tokens: The module's argument with the tokens.
        parameters: Names of its forward's parameters.
        axis: The dimension of its tokens along which they stand; the batch is along the other.
        number: The level's number.
        whole: Whether the module is the block, and not the self-attention inside.
        can_merge: Whether the block as a whole can merge.
    """

    state: MergeState
    level: LevelState
    slot: PlanSlot
    layer: str
    tokens: str
    parameters: tuple[str, ...]
    axis: int
    number: int
    whole: bool
    can_merge: bool

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        state = self.state
        config = state.config
        if config.skip != UNPROFITABLE or state.profit.measuring:
            return
        if tries_block(config) is not self.whole or not state.running or self.level.method is None:
            return
        if torch.compiler.is_compiling():
            raise ConfigError(UNMEASURED)
        if config.scope == "block" and not self.can_merge:
            return
        tokens = read_path(self.parameters, args, kwargs, (self.tokens,))
        shape = self._shape(cast("Tensor", tokens))
        if shape is None:
            return
        measured = state.profit.by_site.setdefault(self.layer, {}).get(shape)
        if measured is None:
            measured = self._measured(module, args, kwargs, shape)
            state.profit.by_site[self.layer][shape] = measured
        state.profit.latest[self.layer, shape.grid, shape.method] = measured
        self.slot.skips = not measured.pays

    def _shape(self, tokens: Tensor) -> Shape | None:
        """What a decision holds for; None where nothing is to remove."""
        grid, method = self.level.source_grid, self.level.method
        if grid is None or method is None or method.num_removed(grid) == 0:
            return None
        device, dtype = tokens.device, tokens.dtype
        if device.type == "meta":
            raise ConfigError(
                "skip='unprofitable' times layers where they run, and on the meta device nothing "
                "runs. Use skip=None there."
            )
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        return Shape(
            grid=grid,
            batch=tokens.shape[1 - self.axis],
            channels=tokens.shape[-1],
            dtype=dtype,
            device=device,
            method=method,
            references=self.state.references,
            protected=self.level.protected is not None,
        )

    def _measured(self, module: nn.Module, args: Args, kwargs: Kwargs, shape: Shape) -> Measured:
        """What another site of the same kind has shown, or what this one shows now."""
        profit = self.state.profit
        key = (kind_of(module), shape)
        found = profit.by_kind.get(key)
        if found is not None:
            return found
        _refuse_where_unmeasurable(module)
        args, kwargs = _copied(args), _copied(kwargs)  # a block may write into what it is given
        with self._aside(), _apart(module, shape.device):
            profit.by_kind[key] = time_pays(
                shape,
                self._calls(module, args, kwargs),
                self._share(module),
                synchronise=synchroniser(shape.device),
                clock=profit.clock,
            )
        return profit.by_kind[key]

    def _calls(
        self, module: nn.Module, args: Args, kwargs: Kwargs
    ) -> dict[str, Callable[[], object]]:
        """What is timed."""
        slot, shared = self.slot, self.level.shared

        def unmerged() -> None:
            slot.skips = True
            module(*args, **kwargs)

        def reused() -> None:
            slot.skips = False
            module(*args, **kwargs)

        def merged() -> None:
            slot.forget()
            shared.forget()
            reused()

        calls: dict[str, Callable[[], object]] = {"unmerged": unmerged, "merged": merged}
        if self._share(module) > 1:
            calls["reused"] = reused
        return calls

    def _share(self, module: nn.Module) -> int:
        """How many calls of layers one plan serves.

        With ``share="level"`` it serves the level's layers. Only those of this kind are counted:
        others may turn out not to pay, and what is left of a level has to carry the plan alone.
        ``refresh=n`` makes it serve n timesteps. That the two halves of guidance may be calls of
        one timestep is left out, because the number of calls in a timestep is not known here; nor
        is the number of steps between noise levels, so with those a plan is counted in full. Each
        time the plan is counted too dear rather than too cheap, since the promise is never to be
        slower. One case is left: a picture of fewer than n timesteps shares a plan among those.
        """
        config = self.state.config
        kind = kind_of(module)
        peers = self.state.profit.peers
        others = (peers.blocks if self.whole else peers.attentions).get(self.number, [module])
        alike = sum(kind_of(other) == kind for other in others)
        layers = alike if config.share == "level" else 1
        return layers * (config.refresh if isinstance(config.refresh, int) else 1)

    @contextmanager
    def _aside(self) -> Generator[None]:
        """Put back all that the hooks between a block's modules share, whatever happens."""
        state, slots = self.state, (self.slot, self.level.shared)
        plans = [(slot.plan, slot.grid) for slot in slots]
        skips, in_flight = self.slot.skips, state.in_flight
        state.profit.measuring = True
        try:
            yield
        finally:
            state.profit.measuring = False
            state.in_flight, self.slot.skips = in_flight, skips
            for slot, (plan, grid) in zip(slots, plans, strict=True):
                slot.plan, slot.grid = plan, grid


def modules_of(layout: Layout) -> Iterator[tuple[int, nn.Module, nn.Module | None]]:
    """Level, block and self-attention of every site."""
    for site in layout.sites:
        yield site.level, site.block, None if site.inside is None else site.inside.attention


def kind_of(module: nn.Module) -> object:
    """What tells apart modules that may cost something else on the same tokens."""
    parts = [
        (type(part).__module__, type(part).__qualname__, getattr(part, "heads", None))
        for part in module.modules()
    ]
    processors = [type(getattr(part, "processor", None)).__qualname__ for part in module.modules()]
    weights = [(tuple(weight.shape), str(weight.dtype)) for weight in module.parameters()]
    return (tuple(parts), tuple(processors), tuple(weights))


@contextmanager
def _apart(module: nn.Module, device: torch.device) -> Generator[None]:
    """Without gradients, and without a trace in random numbers and in autocast's casts."""
    with_gradients = torch.is_grad_enabled()
    numbers: Any = nullcontext()
    if module.training:  # dropout draws; nothing else here does
        ahead = [] if device.type == "cpu" else [device]
        kind = "cuda" if device.type == "cpu" else device.type
        numbers = cast("Any", torch.random).fork_rng(devices=ahead, device_type=kind)
    try:
        with torch.no_grad(), numbers:
            yield
    finally:
        if with_gradients:  # weights cast without gradients would go on to be used with them
            torch.clear_autocast_cache()


def _refuse_where_unmeasurable(module: nn.Module) -> None:
    """Refuse where seconds would say something about another call."""
    if in_backward():
        raise ConfigError(
            "A layer runs again during backward, and skip='unprofitable' does not know any more "
            "whether it merged in the call. Call handle.update() after backward()."
        )
    if getattr(module, "_compiled_call_impl", None) is not None or _in_compiled_call():
        raise ConfigError(UNMEASURED)


def _in_compiled_call() -> bool:
    """Whether torch.compile has the running call in hand, and left it to Python just here."""
    if torch.compiler.is_compiling():
        return True
    if "torch._dynamo" not in sys.modules:
        return False
    frames = cast("Any", torch._C)._dynamo.eval_frame
    callback = getattr(frames, "get_eval_frame_callback", None)
    return callback is not None and callback() is not None


def _copied(value: Any) -> Any:  # noqa: ANN401 - any nest of arguments
    """The same arguments with tensors of their own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in cast("dict[Any, Any]", value).items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(item) for item in cast("list[Any]", value))
    return value
