"""In which thread a denoiser is called: two calls at a time would merge by each other's plans."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from retom.errors import ConfigError


@dataclass(slots=True, eq=False)
class CallThread:
    """The thread of the call that is under way, or of the last one. A compiled graph does not ask.

    Attributes:
        ident: Of the thread; None before the first call.
    """

    ident: int | None = None

    def begin(self) -> None:
        """Note that a call begins in this thread."""
        if not torch.compiler.is_compiling():
            self.ident = threading.get_ident()

    @property
    def is_another(self) -> bool:
        """Whether it is not the thread that asks."""
        return not torch.compiler.is_compiling() and self.ident != threading.get_ident()

    def check(self) -> None:
        """Refuse a call while one is under way in another thread.

        Raises:
            ConfigError: It is another thread, and alive.
        """
        if self.is_another and self.ident in {thread.ident for thread in threading.enumerate()}:
            raise ConfigError(
                "This denoiser was called while a call of it is running in another thread, and "
                "both would merge by each other's plans. Call it from one thread at a time (a "
                "lock, a queue), or merge in a deep copy for each thread. If the other call was "
                "broken off, handle.reset() says so."
            )
