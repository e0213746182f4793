"""Asking for the packages of the extra ``cli`` once they are needed."""

from __future__ import annotations

from importlib import import_module

from retom.errors import MissingExtraError


def require_extra(command: str, packages: tuple[str, ...]) -> None:
    """Import what a command needs.

    Raises:
        MissingExtraError: A package is not installed; the message says how to install all of them.
    """
    for package in packages:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"retom {command} needs {error.name}, which is not installed: "
                'pip install "retom[cli]".'
            ) from error
