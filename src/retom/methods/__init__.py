"""Token-reduction methods under one protocol, each a frozen dataclass in a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from retom.methods.random_representative import RandomRepresentative
from retom.methods.retom import ReToM
from retom.methods.window_corner import WindowCorner

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.plan import Plan

__all__ = ["METHODS", "Method", "RandomRepresentative", "ReToM", "WindowCorner"]


@runtime_checkable
class Method(Protocol):
    """What a method must offer: a frozen dataclass with these members, pure tensor code inside."""

    name: ClassVar[str]

    @property
    def ratio(self) -> float:
        """Fraction of the tokens to remove, 0 <= ratio < 1."""
        ...

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes; never depends on data."""
        ...

    def plan(self, x: Tensor, grid: Grid) -> Plan:
        """Decide which tokens of ``x`` (B, N, C) merge into which."""
        ...


METHODS: dict[str, type[Method]] = {
    method.name: method for method in (ReToM, RandomRepresentative, WindowCorner)
}
"""Every shipped method by its name in configurations."""
