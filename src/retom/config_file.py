"""A configuration's file: JSON, read and written with errors that are sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from retom.errors import ConfigError


def write_json(path: str | Path, data: dict[str, Any]) -> None:
    """Write plain data to ``path``.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises:
        ConfigError: ``path`` cannot be read, or does not hold a JSON object.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path} cannot be read as a retom configuration: {reason}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read as a retom configuration: it is not JSON ({error})."
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, not a retom configuration.")
    return cast("dict[str, Any]", data)
