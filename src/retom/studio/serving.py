"""Serve the page: on this machine alone unless asked otherwise, and without telling anybody."""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

# Read when gradio is imported: it reports to nobody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from retom.errors import ConfigError
from retom.studio.page import build
from retom.studio.plain import PlainRequestsOnly
from retom.studio.privacy import OwnHostOnly
from retom.studio.style import head, theme

if TYPE_CHECKING:
    from collections.abc import Generator

    import gradio as gr

    from retom.studio.studio import Studio

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SPARE_THREADS = 24
"""For everything but those who wait for pictures."""
_SESSIONS = 64
"""Visitors whose last picture stays in memory."""


@contextmanager
def served(
    studio: Studio,
    *,
    host: str = LOOPBACK[0],
    port: int | None = None,
    **options: Any,  # noqa: ANN401 - gradio's own
) -> Generator[gr.Blocks]:
    """Serve inside a ``with`` block; the page's ``local_url`` says where.

    Args:
        studio: Draws.
        host: Address to listen on.
        port: To listen on; any free one if not given.
        **options: More arguments of ``Blocks.launch``.

    Raises:
        ConfigError: The address is taken or not this machine's.
    """
    guards = [Middleware(OwnHostOnly)]
    if host in LOOPBACK:  # no other name may lead here, or a foreign page could
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"]))
    guards.append(Middleware(PlainRequestsOnly))
    with _own_folder():
        page = build(studio)
        page.queue(default_concurrency_limit=None)
        _launch(page, host, port, _settings(studio, guards) | options)
        try:
            yield page
        finally:
            page.close(verbose=False)


def _settings(studio: Studio, guards: list[Middleware]) -> dict[str, Any]:
    """Arguments of gradio's ``launch``: no link, no report, no upload, no other pages."""
    return {
        "share": False,
        "quiet": True,
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        "max_file_size": 1,  # nothing is uploaded here; see retom.studio.plain
        "max_threads": studio.limits.queue + _SPARE_THREADS,
        "state_session_capacity": _SESSIONS,
        "theme": theme(),
        "head": head(),
        "app_kwargs": {"middleware": guards},
    }


def _launch(page: gr.Blocks, host: str, port: int | None, settings: dict[str, Any]) -> None:
    try:
        page.launch(server_name=host, server_port=port, prevent_thread_lock=True, **settings)
    except OSError as error:
        raise ConfigError(
            f"The studio cannot listen on {host}, port {port}: it is taken, or not an address of "
            "this machine. Choose others with --host and --port."
        ) from error


@contextmanager
def _own_folder() -> Generator[None]:
    """Files of pictures go to a folder that only this process reads, and that ends with it."""
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    with TemporaryDirectory(prefix="retom-studio-") as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
