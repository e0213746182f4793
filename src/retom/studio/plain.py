"""What reaches the page's events: plain values alone, through the doors that the page itself uses.

Gradio looks through every value of an event, of whatever component, for the record of a file, and
fetches what that names from other hosts or looks for it on this machine's disk. It streams
addresses of other hosts to visitors, and takes uploads and recordings. The studio has no use for
any of it.
"""

from __future__ import annotations

import json
import logging
import math
import re
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LARGEST = 8 * 2**20
"""Bytes of a request at most: several times the longest history that a browser keeps."""
NESTED = 32
"""Lists and objects in each other at most; gradio and pydantic end in errors of their own."""

log = logging.getLogger(__name__)

_UNKNOWN = (
    "This request names an event or an option that the studio does not have; gradio_api/info lists "
    "those that it has."
)
_LONG = f"A request has at most {LARGEST} bytes; this one has more."
_DOORS = re.compile(
    r"/gradio_api/(queue/join|cancel|reset|(call|call/v2|run|api)/\w+)/?$", re.ASCII
)
_ELSEWHERE = re.compile(r"/gradio_api/(file[=/]\W*https?\W|proxy=)", re.IGNORECASE)
_LOGIN = re.compile(r"^(?!.*/gradio_api/).*/login/?$", re.DOTALL)
"""A form of gradio's, there where the owner asks for accounts; no event may be called so."""


class PlainRequestsOnly:
    """Answers everything else with a sentence.

    Args:
        app: The application inside.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _ELSEWHERE.search(scope["path"]):
            await _refuse(send, 403, "The studio hands out its own pictures alone, no addresses.")
        elif scope["method"] in {"GET", "HEAD", "OPTIONS"} or _LOGIN.match(scope["path"]):
            await self._app(scope, receive, send)
        elif not _DOORS.search(scope["path"]):
            await _refuse(send, 404, "The studio takes no files, and nothing else is sent there.")
        else:
            body = await _body(receive)
            sentence = _LONG if len(body) > LARGEST else complaint(body)
            if sentence:
                await _refuse(send, 400, sentence)
            else:
                await self._pass_on(scope, _again(body, receive), send)

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        begun = False

        async def send_more(message: Any) -> None:  # noqa: ANN401
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_more)
        except Exception as error:  # an event that is not there, an option without a name
            if begun:
                raise
            log.warning("A request that is none of the page's own: %r", error)
            await _refuse(send, 400, _UNKNOWN)


def complaint(body: bytes) -> str:
    """Why a request is not plain values as JSON has them, in a sentence; empty if it is."""
    try:
        data: object = json.loads(body or b"{}", parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return (
            "A request is JSON in UTF-8, its numbers finite and of 4300 digits at most; this one "
            "cannot be read."
        )
    for value, depth in _inside(data):
        if depth > NESTED:
            return f"A request has at most {NESTED} lists and objects in each other; this has more."
        if isinstance(value, str) and not _is_text(value):
            return "A request holds text in Unicode; this one holds halves of characters."
        if isinstance(value, dict) and "meta" in value and "path" in value:
            return "A request names no files: the studio takes text, numbers and choices alone."
    return ""


def _inside(data: object) -> Iterator[tuple[object, int]]:
    """Every value and key in what JSON held, each with how deep it lies."""
    waiting: list[tuple[object, int]] = [(data, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, dict):
            for key, inner in cast("dict[str, object]", value).items():
                waiting += [(key, depth + 1), (inner, depth + 1)]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in cast("list[object]", value)]


def _is_text(words: str) -> bool:
    try:
        words.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _no_number(name: str) -> float:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


async def _body(receive: Any) -> bytes:  # noqa: ANN401 - ASGI's
    """All of a request, or its beginning if it is too long or its sender has left."""
    body = b""
    more = True
    while more and len(body) <= LARGEST:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Any) -> Any:  # noqa: ANN401 - ASGI's
    """What receives a request that was read before, then whatever follows it."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:  # noqa: ANN401
        return left.pop() if left else await receive()

    return receive_again


async def _refuse(send: Any, status: int, sentence: str) -> None:  # noqa: ANN401 - ASGI's
    content = json.dumps({"detail": sentence}).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
