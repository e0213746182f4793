"""Calls of one denoiser on the meta device: un-merged, and merged in every way that is asked about.

What a block costs depends on its own tokens alone, so a call in which every level merges tells what
each block would cost merged; a configuration that merges on some of them is put together from that
call and the un-merged one.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from retom.config import Config
from retom.errors import BudgetError, RetomError, UnsupportedModelError, first_line
from retom.explanation.counting import Count, count_call, transformer_blocks
from retom.explanation.traffic import Watched
from retom.handle import applied
from retom.methods import Method, ReToM
from retom.models import layout_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from torch import nn

    from retom.config import Scope
    from retom.explanation.result import Flops
    from retom.grid import Grid
    from retom.handle import Handle

NOTHING = ReToM(ratio=1e-12)
"""Removes no token of any grid, so that a call is un-merged and yet tells its grids."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A call in which every level merges that can.

    Attributes:
        blocks: FLOPs of each block of a level that merges.
        moved: Bytes that each of them moves to merge, with its share of a plan in every call.
    """

    blocks: dict[str, Flops]
    moved: dict[str, int]


@dataclass(slots=True, eq=False)
class Runs:
    """One denoiser and its calls, each counted once.

    Attributes:
        denoiser: On the meta device.
        inputs: Arguments of one call for one picture.
        base: The configuration asked about, for what does not depend on method, level or scope.
        named_grid: Grid that the inputs told by values, which tensors on the meta device have not.
        unsupported: Why nothing can merge; empty where something can.
        unmerged: The un-merged call.
        grids: The grid of each level.
        levels: The level of each block that can merge; the others run un-merged always.
        scope: What scope the configuration has on this model.
    """

    denoiser: nn.Module
    inputs: dict[str, Any]
    base: Config
    named_grid: Grid | None = None
    unsupported: str = ""
    grids: dict[int, Grid] = field(default_factory=dict[int, "Grid"])
    levels: dict[str, int] = field(default_factory=dict[str, int])
    scope: str = ""
    _blocks: dict[str, nn.Module] = field(default_factory=dict[str, "nn.Module"])
    _merged: dict[tuple[str, Method], Merged | str] = field(
        default_factory=dict[tuple[str, "Method"], "Merged | str"]
    )
    _watched: dict[Method, Watched] = field(default_factory=dict["Method", Watched])
    unmerged: Count = field(init=False)

    def __post_init__(self) -> None:
        self.scope = self.base.scope
        try:
            layout = layout_of(self.denoiser)
        except UnsupportedModelError as error:
            self.unsupported = str(error)
            self._blocks = transformer_blocks(self.denoiser)
            self.unmerged = _count_unmerged(self.denoiser, self._blocks, self.inputs)
            return
        levels = {id(site.block): site.level for site in layout.sites}
        modules = cast("Iterable[tuple[str, nn.Module]]", self.denoiser.named_modules())
        for name, module in modules:
            if id(module) in levels:
                self.levels[name] = levels[id(module)]
            if id(module) in levels or name in layout.unmerged:
                self._blocks[name] = module
        config = Config(method=NOTHING, scope=self.base.scope, levels="all")
        with self._applied(config) as handle:
            self.unmerged = _count_unmerged(self.denoiser, self._blocks, self.inputs)
            summary = handle.summary()
        self.scope = summary.config.scope
        self.grids = {row.level: row.grid for row in summary.levels}

    def kept(self, level: int, method: Method) -> int | None:
        """Tokens that a method leaves on a level; None where its windows cannot reach the ratio."""
        grid = self.grids[level]
        try:
            return grid.num_tokens - method.num_removed(grid)
        except BudgetError:
            return None

    def merged(self, scope: str, method: Method) -> Merged | str:
        """Every block that can merge, merged; or why none can, in a sentence."""
        key = (scope, still(method))
        if key not in self._merged:
            self._merged[key] = self._count(*key)
        return self._merged[key]

    def _count(self, scope: str, method: Method) -> Merged | str:
        levels = tuple(level for level in self.grids if self.kept(level, method) is not None)
        if not levels:
            grid = max(self.grids.values(), key=lambda grid: grid.num_tokens)
            try:
                method.num_removed(grid)
            except BudgetError as error:
                return str(error)
        watched = self._watched.setdefault(method, Watched(method))
        try:
            config = Config(
                method=watched,
                scope=cast("Scope", scope),
                levels=levels,
                share=self.base.share,
                size_weighted=self.base.size_weighted,
            )
            with self._applied(config):
                count = count_call(self.denoiser, self._blocks, self.inputs)
        except RetomError as error:
            return str(error)
        blocks = {n: flops for n, flops in count.blocks.items() if self.levels.get(n) in levels}
        moved = {level: self._moved(watched, level, scope) for level in levels}
        return Merged(blocks, {name: moved[self.levels[name]] for name in blocks})

    @contextmanager
    def _applied(self, config: Config) -> Generator[Handle]:
        with applied(self.denoiser, config) as handle:
            if self.named_grid is not None:
                handle.set_grid(self.named_grid.height, self.named_grid.width)
            yield handle

    def _moved(self, watched: Watched, level: int, scope: str) -> int:
        grid = self.grids[level]
        if grid not in watched.asked:
            return 0  # so few tokens that none goes
        sharers = sum(other == level for other in self.levels.values())
        plan = watched.planning(grid, scope) // (1 if self.base.share == "layer" else sharers)
        return plan + watched.moved(grid, scope)


def grid_by_values(denoiser: nn.Module, inputs: dict[str, Any]) -> Grid | None:
    """The grid of a call whose arguments tell it by values; None where their sizes do.

    Raises:
        ShapeError: The values are not those of a grid.
    """
    try:
        layout = layout_of(denoiser)
    except UnsupportedModelError:
        return None
    return None if layout.reads_values is None else layout.grids(inputs)[0]


def _count_unmerged(
    denoiser: nn.Module, blocks: dict[str, nn.Module], inputs: dict[str, Any]
) -> Count:
    """The first call, which shows whether the model runs on the meta device at all."""
    try:
        return count_call(denoiser, blocks, inputs)
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"{type(denoiser).__name__} does not run with these arguments on the meta device, "
            "where retom.explain counts and tensors have no numbers to be read: "
            f"{first_line(error)[:200] or 'no reason given'}."
        ) from error


def still(method: Method) -> Method:
    """The method without turns, which change places and not sizes."""
    if getattr(method, "alternate", False):
        return cast("Method", dataclasses.replace(cast("Any", method), alternate=False))
    return method
