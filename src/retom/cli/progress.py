"""The progress bar of ``retom generate``, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType


class StepBar:
    """One bar inside a ``with`` block, gone at the end; nothing where stderr is not a terminal.

    Args:
        hidden: Whether to show nothing at all.
    """

    def __init__(self, *, hidden: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def wait(self, label: str) -> None:
        """Something of unknown length begins."""
        self._progress.reset(self._task, description=label, total=None)

    def step(self, label: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of a picture are done; 0 begins the next picture."""
        if done == 0:
            self._progress.reset(self._task, description=label, total=total)
        self._progress.update(self._task, completed=done, total=total)
