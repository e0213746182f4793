"""The small models that come along, by the names that commands take."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from retom.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

BUNDLED: Final = MappingProxyType({"retom-emoji-256": 256, "retom-emoji-128": 128})
"""Names, and the edges in pixels of the pictures that each draws; the first is the default."""
DEFAULT: Final = next(iter(BUNDLED))
"""What draws where no model is named."""
# What the samples of the bundled models were drawn with; other models bring defaults of their own.
BUNDLED_STEPS: Final = 20
BUNDLED_GUIDANCE: Final = 4.0


def bundled_folder(name: str) -> Path:
    """The diffusers folder of a bundled model.

    Args:
        name: One of :data:`BUNDLED`.

    Raises:
        ModelError: The bundled models are not installed.
    """
    return _package().folder(BUNDLED[name])


def bundled_head() -> Path:
    """The text-alignment head of the bundled models.

    Raises:
        ModelError: They are not installed.
    """
    return _package().alignment_head()


def _package() -> Any:  # noqa: ANN401 - a module that need not be there
    try:
        return cast("Any", import_module("retom_emoji"))
    except ModuleNotFoundError as error:
        raise ModelError(
            "The bundled models are not installed: run `pip install ./packages/retom-emoji` in a "
            "checkout of retom, or name a diffusers folder or hub id with --model."
        ) from error
