"""Token-reduction methods under one protocol, each a frozen dataclass in a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from retom.methods.average_pool import AveragePool
from retom.methods.importance import ImportanceToMe
from retom.methods.random_representative import RandomRepresentative
from retom.methods.retom import ReToM
from retom.methods.sdtm import SDTM
from retom.methods.sito import SiTo
from retom.methods.todo import ToDo
from retom.methods.toma import ToMA
from retom.methods.tome import ToMe
from retom.methods.window_corner import WindowCorner

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.hints import Hints
    from retom.token_plan import TokenPlan

__all__ = [
    "METHODS",
    "SDTM",
    "AveragePool",
    "ImportanceToMe",
    "Method",
    "RandomRepresentative",
    "ReToM",
    "SiTo",
    "ToDo",
    "ToMA",
    "ToMe",
    "WindowCorner",
]


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

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Raise ConfigError if the tokens of a mask, bool (N,), cannot be protected."""
        ...

    def plan(self, x: Tensor, grid: Grid, hints: Hints) -> TokenPlan:
        """Decide which tokens of ``x`` (B, N, C) merge into which."""
        ...


_ALL = (
    ReToM,
    RandomRepresentative,
    WindowCorner,
    AveragePool,
    ToMe,
    ToDo,
    SiTo,
    ToMA,
    SDTM,
    ImportanceToMe,
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}
"""Every shipped method by its name in configurations."""
