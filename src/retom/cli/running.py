"""What every command does before and around its work: its packages, its threads."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from retom.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


def require(command: str, packages: Sequence[str], extra: str) -> None:
    """Import what a command needs, once it is needed.

    Raises:
        MissingExtraError: A package is not installed; the message says how to install all of them.
    """
    for package in packages:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"retom {command} needs {error.name}, which is not installed: "
                f'pip install "retom[{extra}]", or in a checkout pip install ".[{extra}]".'
            ) from error


@contextmanager
def threads(count: int | None) -> Generator[None]:
    """Compute on ``count`` CPU threads inside a ``with`` block; None leaves torch's choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
