"""A piece of work for one visitor: what it tells them, and how they stop it."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from PIL.Image import Image

HEARTBEAT = 1.0
"""Seconds after which the last event is told again: a reader that has left is noticed then."""


class StoppedError(Exception):
    """Raised inside of a job that its visitor stopped."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """It has not begun; ``ahead`` others come first, the one being drawn among them."""

    ahead: int


@dataclass(frozen=True, slots=True)
class Working:
    """``done`` of ``total`` steps of ``label``; with how the picture looks, where that is known."""

    label: str
    done: int
    total: int
    preview: Image | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of work that was done, with what it made."""

    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of work that cannot be done, with a sentence that says why."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event of work that its visitor stopped."""


Event = Waiting | Working | Finished | Failed | Stopped


class Job:
    """One piece of work.

    Args:
        owner: Whose it is; :meth:`retom.studio.worker.Worker.stop` takes it.
        work: Does it, told the job to report to, and returns what :class:`Finished` holds.
    """

    def __init__(self, owner: str, work: Callable[[Job], object]) -> None:
        self.owner = owner
        self.work = work
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether its visitor wants no more of it."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask it to end at its next step."""
        self._stop.set()

    def check(self) -> None:
        """Raise :class:`StoppedError` if it is to end."""
        if self.stopping:
            raise StoppedError

    def tell(self, event: Event) -> None:
        """Report to whoever reads :meth:`events`."""
        self._events.put(event)

    def events(self) -> Generator[Event]:
        """Everything that happens, once, until the last event; leaving early stops the job."""
        event: Event | None = None
        try:
            while not isinstance(event, (Finished, Failed, Stopped)):
                try:
                    event = self._events.get(timeout=HEARTBEAT)
                except queue.Empty:
                    if event is None:
                        continue
                yield event
        finally:
            self.stop()

    def result(self) -> Event:
        """The last event; waits for it."""
        *_, last = self.events()
        return last
