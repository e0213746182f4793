"""A page in the browser: a prompt drawn un-merged and merged, and what merged where.

```python
from retom import studio
from retom.drawing.loading import load_model

studio.serve({"emoji": load_model()})
```

Needs the extra ``studio``. ``retom studio`` is the same from the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retom.errors import MissingExtraError
from retom.studio.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from retom.drawing.loading import Model

__all__ = ["Limits", "serve"]

PACKAGES = ("numpy", "PIL", "transformers", "diffusers", "gradio")
"""What the extra brings."""


def serve(
    models: Mapping[str, Model],
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    on_start: Callable[[], object] | None = None,
    **options: Any,  # noqa: ANN401 - gradio's own
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        models: What visitors may draw with, by the name that they see. They cannot load others.
        limits: Of what they may ask for; those of :class:`Limits` if not given.
        host: Address to listen on. The default is reached from this machine alone.
        port: To listen on.
        on_start: Called once the page can be reached.
        **options: More arguments of gradio's ``Blocks.launch``.

    Raises:
        MissingExtraError: A package of the extra ``studio`` is not installed.
        ConfigError: There is no model, or the address is taken or not this machine's.
    """
    for package in PACKAGES:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"retom.studio needs {error.name}, which is not installed: "
                'pip install "retom[studio]".'
            ) from error
    from retom.studio.serving import served
    from retom.studio.studio import Studio

    studio = Studio(models, limits or Limits())
    try:
        with served(studio, host=host, port=port, **options) as page:
            if on_start is not None:
                on_start()
            page.block_thread()
    finally:
        studio.close()
