"""ToDo: token downsampling for keys and values (Smith et al. 2024, arXiv:2402.13573)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from retom.methods.collapse import Collapse

if TYPE_CHECKING:
    from retom.plan import MergeMode


@dataclass(frozen=True, kw_only=True)
class ToDo(Collapse):
    """Every window is represented by its first token, as nearest-neighbour downsampling does.

    The paper downsamples keys and values alone: use it with ``scope="kv"``.

    Args:
        window: (height, width) in tokens: the factors of the downsampling.
    """

    name: ClassVar[str] = "todo"
    mode: ClassVar[MergeMode] = "representative"
