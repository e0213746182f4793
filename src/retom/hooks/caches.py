"""Caches that diffusers puts on blocks and layers: where retom stands when there are some.

A cache leaves out a block or a layer and hands out what it gave in an earlier step. It replaces the
module's ``forward``, and torch's hooks run around that: a cache inside of them would keep merged
tokens of one step and hand them out in another, in which others have merged.

So where a block has a cache, retom merges inside of it, as another hook of the same registry, and
the cache sees all tokens. Where a layer inside of what merges has one, plans have to last as long
as it does, and anything else is refused.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from retom.errors import ConfigError
from retom.hooks.trial import tries_block
from retom.profit import UNPROFITABLE
from retom.refusals import refuse_cache_on_trial, refuse_hook_on_layer

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import nn

    from retom.calls import Args, Kwargs
    from retom.config import Config
    from retom.hooks.block import MergeBlock, UnmergeBlock
    from retom.models.layout import Site
    from retom.state import MergeState

CACHES = frozenset(
    {
        "FBCHeadBlockHook",
        "FBCBlockHook",
        "FasterCacheBlockHook",
        "MagCacheHeadHook",
        "MagCacheBlockHook",
        "PyramidAttentionBroadcastHook",
        "SeaCacheLeaderBlockHook",
        "SeaCacheBlockHook",
        "TaylorSeerCacheHook",
    }
)
"""Classes of diffusers' hooks that hand out what a module gave earlier."""

REGISTRY = "_diffusers_hook"
NAME = "retom"


def is_cache(hook: object) -> bool:
    """Whether a hook of diffusers' registry hands out what its module gave earlier."""
    return not CACHES.isdisjoint(cls.__name__ for cls in type(hook).__mro__)


def keeps_plans(config: Config) -> bool:
    """Whether the plans of a picture's first step last to its end."""
    return config.steady and isinstance(config.refresh, tuple) and min(config.refresh) >= 1


@dataclass(eq=False)
class MergeInside:
    """A hook of diffusers' registry: merges a block's tokens inside of the caches on it.

    Duck-typed, so that retom imports no diffusers.

    Attributes:
        before: What merges.
        after: What un-merges.
        fn_ref: Set by the registry.
    """

    before: MergeBlock
    after: UnmergeBlock
    fn_ref: object = None

    _is_stateful = False

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        return module

    def deinitalize_hook(self, module: nn.Module) -> nn.Module:
        return module

    def pre_forward(
        self, module: nn.Module, *args: object, **kwargs: object
    ) -> tuple[Args, Kwargs]:
        return self.before.merge(args, kwargs) or (args, kwargs)

    def post_forward(self, module: nn.Module, output: object) -> object:
        unmerged = self.after(module, (), output)
        return output if unmerged is None else unmerged


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One site, as far as caches may be there.

    Attributes:
        name: Qualified name.
        level: Attention level.
        block: The whole block.
        inside: Merges inside of caches on the block; None where the whole block cannot merge.
        layers: Modules that run on merged tokens, by scope.
        whole: In scope ``kv``, the one among them that gives back all tokens.
    """

    name: str
    level: int
    block: nn.Module
    inside: MergeInside | None
    layers: dict[str, tuple[nn.Module, ...]]
    whole: nn.Module | None

    @staticmethod
    def of(site: Site, inside: MergeInside | None) -> Place:
        """The place of a site."""
        layers = {"block": tuple(site.block.modules())[1:]}
        whole = None
        if site.inside is not None:
            whole = site.inside.attention
            attention = tuple(whole.modules())
            mlp = () if site.inside.mlp is None else tuple(site.inside.mlp.modules())
            layers |= {"attention": attention, "attention+mlp": attention + mlp, "kv": attention}
        return Place(site.name, site.level, site.block, inside, layers, whole)


@dataclass(slots=True, eq=False)
class Caches:
    """Looks for caches before a call, since they may come and go at any time.

    Attributes:
        state: The denoiser's.
        places: Its sites.
    """

    state: MergeState
    places: tuple[Place, ...]

    def look(self) -> None:
        """Stand inside of all caches on blocks that merge, whichever came first.

        Raises:
            ConfigError: A cache, or a guider, would work on merged tokens as if they were others.
        """
        state = self.state
        if not state.enabled:
            return
        config = state.config
        merging = {number for number in state.levels if config.methods(number)}
        for place in self.places:
            if place.level not in merging:
                continue
            if place.inside is not None and REGISTRY in place.block.__dict__:
                _settle(place, place.inside)
            if config.skip == UNPROFITABLE:
                _refuse_trials(place, config)
            for layer in place.layers.get(config.scope, ()):
                if REGISTRY in layer.__dict__:
                    gives_all = config.scope == "kv" and layer is place.whole
                    for hook in _hooks(layer).values():
                        refuse_hook_on_layer(
                            hook,
                            place.name,
                            scope=config.scope,
                            keeps_merged=is_cache(hook) and not gives_all,
                            keeps_plans=keeps_plans(config),
                        )

    def remove(self) -> None:
        """Take retom out of the registries of all blocks."""
        for place in self.places:
            if place.inside is not None and REGISTRY in place.block.__dict__:
                _leave(place.block, place.inside)


def _refuse_trials(place: Place, config: Config) -> None:
    """Refuse caches on what is called to be timed: they would take each call for a step."""
    modules = tuple(place.block.modules())
    if not tries_block(config):
        modules = place.layers.get("attention", ())
    for module in modules:
        if REGISTRY in module.__dict__:
            for hook in _hooks(module).values():
                if is_cache(hook):
                    refuse_cache_on_trial(hook, place.name)


def _hooks(module: nn.Module) -> dict[str, object]:
    """The hooks of diffusers on a module by name, the innermost first."""
    return cast("dict[str, object]", module.__dict__[REGISTRY].hooks)


def _settle(place: Place, inside: MergeInside) -> None:
    """Stand inside of the innermost cache of a block, or nowhere if it has none."""
    hooks = _hooks(place.block)
    kinds = [is_cache(hook) for hook in hooks.values()]
    if not any(kinds):
        _leave(place.block, inside)
        return
    names = list(hooks)
    if NAME in hooks and names.index(NAME) < kinds.index(True):
        return
    if isinstance(place.block.__dict__.get("_old_forward"), functools.partial):
        raise ConfigError(
            f"accelerate's hook on {place.name} came after the cache on it, and retom cannot go "
            "between them. Call disable_cache() and enable_cache() once more, after offloading is "
            "set up."
        )
    _leave(place.block, inside)
    with _taken_off(place.block, names[kinds.index(True)]):
        _registry(place.block).register_hook(inside, NAME)
    inside.before.stands_inside = True


def _leave(block: nn.Module, inside: MergeInside) -> None:
    """Take retom out of a block's registry."""
    if NAME in _hooks(block):
        with _taken_off(block, NAME):
            _registry(block).remove_hook(NAME, recurse=False)
    inside.before.stands_inside = False


@contextmanager
def _taken_off(block: nn.Module, name: str) -> Generator[None]:
    """While the hook of this name and all outside of it are off; they come back in order.

    The registry of diffusers can add a hook outside of all others only, and takes one off rightly
    only from there.
    """
    registry = _registry(block)
    hooks = list(_hooks(block).items())
    outer = hooks[[other for other, _ in hooks].index(name) :]
    kept = [(other, hook) for other, hook in outer if other != NAME]
    for other, _ in reversed(kept):
        registry.remove_hook(other, recurse=False)
    yield
    for other, hook in kept:
        registry.register_hook(hook, other)


def _registry(block: nn.Module) -> Any:  # noqa: ANN401 - diffusers' HookRegistry, not imported
    return block.__dict__[REGISTRY]
