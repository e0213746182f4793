"""One thread that does all work with models, one piece after the other.

Merging hooks into a model while it draws, and two pictures of one model must not share it; times of
two pictures that share a processor would say nothing. So one picture is drawn at a time, whatever
its model, and everybody else waits in line.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

import torch

from retom.errors import ConfigError, ModelError, RetomError
from retom.studio.job import Failed, Finished, Job, Stopped, StoppedError, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Worker:
    """Does jobs in the order in which they come.

    Args:
        places: Jobs that may wait at most, at least 1.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._line: deque[Job] = deque()
        self._current: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="retom-studio", daemon=True)
        self._thread.start()

    def submit(self, owner: str, work: Callable[[Job], object]) -> Job:
        """Put work in line.

        Raises:
            ConfigError: There is no place left.
        """
        job = Job(owner, work)
        with self._changed:
            if self._closed:
                raise ConfigError("The studio is closing; start it again.")
            if len(self._line) >= self._places:
                raise ConfigError(
                    f"{self._places} pictures wait already, as many as may. Try again in a minute."
                )
            self._line.append(job)
            job.tell(Waiting(self._ahead(len(self._line) - 1)))
            self._changed.notify()
        return job

    def stop(self, owner: str) -> int:
        """Stop all of a visitor's jobs, those in line at once; returns how many there were."""
        with self._changed:
            running = self._current if self._current and self._current.owner == owner else None
            waiting = [job for job in self._line if job.owner == owner]
            for job in waiting:
                self._line.remove(job)
                job.stop()
                job.tell(Stopped())
            if running is not None:
                running.stop()
            if waiting:
                self._tell_places()
        return len(waiting) + (running is not None)

    def close(self) -> None:
        """Stop everything, and wait until the thread has ended."""
        with self._changed:
            self._closed = True
            for job in self._line:
                job.tell(Stopped())
            self._line.clear()
            if self._current is not None:
                self._current.stop()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                if self._closed:
                    return
                job = self._current = self._line.popleft()
                self._tell_places()
            event = _done(job)
            with self._changed:
                self._current = None
            job.tell(event)

    def _ahead(self, place: int) -> int:
        return place + (self._current is not None)

    def _tell_places(self) -> None:
        for place, job in enumerate(self._line):
            job.tell(Waiting(self._ahead(place)))


def _done(job: Job) -> Finished | Failed | Stopped:
    """Do a job; whatever happens becomes its last event."""
    try:
        job.check()
        return Finished(job.work(job))
    except StoppedError:
        return Stopped()
    except torch.OutOfMemoryError:
        return Failed(
            "A picture of this size does not fit into the memory of this machine; ask for a "
            "smaller one."
        )
    except ModelError as error:  # the model is loaded, so it failed while it drew
        return _broken(error.__cause__ or error)
    except RetomError as error:
        return Failed(str(error))
    except Exception as error:
        return _broken(error)


def _broken(error: BaseException) -> Failed:
    """A sentence for the visitor; what the pipeline says is for the owner's log alone."""
    log.error("A picture could not be drawn.", exc_info=error)
    return Failed(
        f"The model could not draw this ({type(error).__name__}); the owner of this studio "
        "finds the details in its log. Try other settings."
    )
