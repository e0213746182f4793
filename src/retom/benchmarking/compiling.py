"""Room for as many compiled graphs as there are contenders."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

GRAPHS = 512
"""Each contender compiles the same code anew; at its usual limit of 8 torch.compile falls back to
eager execution without an error."""


@contextmanager
def many_graphs(*, enabled: bool) -> Generator[None]:
    """Let ``torch.compile`` keep :data:`GRAPHS` graphs of one function inside a ``with`` block."""
    if not enabled:
        yield
        return
    config: Any = import_module("torch._dynamo.config")
    limits = {"recompile_limit": GRAPHS, "accumulated_recompile_limit": GRAPHS}
    with config.patch(**limits):
        yield
