"""Single blocks and self-attention layers: which stand for a model, and what they are called with.

The arguments are those that the module gets in a call of the whole denoiser, which is made on the
meta device and needs no memory. Only the module itself gets numbers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.benchmarking.subject import real, realised
from retom.calls import Args, Kwargs, bind
from retom.errors import ConfigError
from retom.explanation.inputs import on_meta
from retom.models import find_denoiser, layout_of
from retom.stand_ins import StandIns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from retom.benchmarking.subject import Subject
    from retom.grid import Grid
    from retom.models.layout import Layout, Site
    from retom.rules import Levels

_POSITIONS = ("img_ids", "txt_ids")
"""Arguments of which rotary tables are made: their values matter."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One module under the clock, inside a denoiser of which the rest may have no numbers.

    Attributes:
        denoiser: The whole.
        site: Where merging knows it.
        block: Qualified name of its block.
        module: Qualified name of what is called: the block, or its self-attention.
        call: Arguments, with numbers.
        grids: The grid of each level in that call of the denoiser.
        latent: (height, width) of the latent that a UNet gets; None for other denoisers.
        alike: How many blocks of the model merge on this level: they share a plan that is shared.
    """

    denoiser: nn.Module
    site: Site
    block: str
    module: str
    call: tuple[Args, Kwargs]
    grids: Mapping[int, Grid]
    latent: tuple[int, int] | None
    alike: int

    @property
    def grid(self) -> Grid:
        """Of its tokens."""
        return self.grids[self.site.level]


def places(
    subject: Subject,
    inputs: Mapping[str, Any],
    part: str,
    levels: Levels,
    seed: int,
) -> list[Place]:
    """The first module of each kind on each level.

    Args:
        subject: The model.
        inputs: Arguments of one call of the denoiser, with numbers.
        part: ``block`` or ``layer``.
        levels: Which attention levels.
        seed: Of random weights and arguments.

    Raises:
        ConfigError: A level does not exist, or the model has no self-attention of its own.
    """
    hollow = subject.about.denoiser
    layout = layout_of(hollow)
    chosen = _chosen(layout, part, levels, type(hollow).__name__)
    denoiser = copy.deepcopy(hollow)
    if subject.model is not None:
        denoiser = find_denoiser(subject.model.pipe)
    blocks = {site.name: _name_of(hollow, site.block) for site in chosen}
    names = {site.name: _name_of(hollow, _called(site, part)) for site in chosen}
    calls = _caught(hollow, inputs, set(names.values()))
    generator = torch.Generator().manual_seed(seed)
    grids = layout.grids(bind(layout.parameters, (), dict(inputs)))
    sample = inputs.get("sample")
    found: list[Place] = []
    for site in chosen:
        module = names[site.name]
        if subject.model is None:
            realised(denoiser.get_submodule(module), subject.device, seed)
        args, kwargs = real(calls[module], subject.device, subject.dtype, generator)
        found.append(
            Place(
                denoiser=denoiser,
                site=site,
                block=blocks[site.name],
                module=module,
                call=(args, kwargs),
                grids=grids,
                latent=None if sample is None else (sample.shape[-2], sample.shape[-1]),
                alike=sum(other.level == site.level for other in layout.sites),
            )
        )
    return found


def _chosen(layout: Layout, part: str, levels: Levels, name: str) -> list[Site]:
    wanted = layout.levels if levels == "all" else levels
    missing = sorted(set(wanted) - set(layout.levels))
    if missing:
        raise ConfigError(
            f"This model has attention on levels {', '.join(map(str, layout.levels))}, largest "
            f"grid first; level {', '.join(map(str, missing))} was given."
        )
    if part == "layer" and any(site.inside is None for site in layout.sites):
        raise ConfigError(
            f"The blocks of {name} have no self-attention on image tokens alone, which part layer "
            "times; use part block."
        )
    first: dict[tuple[int, str], Site] = {}
    for site in layout.sites:
        if site.level in wanted:
            first.setdefault((site.level, type(site.block).__name__), site)
    return [site for _, site in sorted(first.items(), key=lambda item: item[0][0])]


def _called(site: Site, part: str) -> nn.Module:
    if part == "block":
        return site.block
    assert site.inside is not None
    return site.inside.attention


def _name_of(denoiser: nn.Module, wanted: nn.Module) -> str:
    modules = cast("Iterator[tuple[str, nn.Module]]", denoiser.named_modules())
    return next(name for name, module in modules if module is wanted)


def _caught(
    hollow: nn.Module, inputs: Mapping[str, Any], names: set[str]
) -> dict[str, tuple[Args, Kwargs]]:
    """What modules are called with in a call of the denoiser on the meta device."""
    caught: dict[str, tuple[Args, Kwargs]] = {}
    removables: list[Any] = []
    for name in names:

        def note(_: object, args: Args, kwargs: Kwargs, name: str = name) -> None:
            caught[name] = (args, kwargs)

        module = hollow.get_submodule(name)
        removables.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad(), StandIns():
            hollow(**_without_numbers(dict(inputs)))
    finally:
        for removable in removables:
            removable.remove()
    return caught


def _without_numbers(inputs: dict[str, Any]) -> dict[str, Any]:
    """Arguments on the meta device; positions, which rotary tables are made of, on the CPU."""
    return {
        name: value.to("cpu") if name in _POSITIONS else on_meta(value)
        for name, value in inputs.items()
    }
