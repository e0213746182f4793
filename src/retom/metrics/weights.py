"""Weights that an installed package carries: where they are, and that they are the right ones."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from retom.errors import ModelError


def package_folder(package: str) -> Path | None:
    """Folder of an installed package, found without importing it; None if it is not installed."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def check_digest(path: Path, sha256: str) -> None:
    """Compare a file with the digest it had when this release was measured.

    Raises:
        ModelError: The file cannot be read, or is another one.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"The weights {path.name} cannot be read: {error.strerror}. Reinstall their package."
        ) from error
    if digest != sha256:
        raise ModelError(
            f"The weights {path.name} have sha256 {digest[:12]}…, not {sha256[:12]}…: numbers "
            "would not be comparable. Install the version of their package that retom asks for."
        )
