"""Progress bars, on stderr: of the steps of a picture, and of the pieces of an evaluation."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID


class Bars:
    """Shown inside a ``with`` block."""

    _progress: Progress

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


class StepBar(Bars):
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

    def wait(self, label: str) -> None:
        """Something of unknown length begins."""
        self._progress.reset(self._task, description=label, total=None)

    def step(self, label: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of a picture are done; 0 begins the next picture."""
        if done == 0:
            self._progress.reset(self._task, description=label, total=total)
        self._progress.update(self._task, completed=done, total=total)


class WorkBar(Bars):
    """One bar for each stage inside a ``with`` block; a line for each piece without a terminal.

    Lines, because an evaluation takes hours, and its log is then all there is to look at.

    Args:
        hidden: Whether to show nothing at all.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._hidden = hidden
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", style="dim"),
            console=self._console,
            transient=True,
            disable=hidden or not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}

    def wait(self, label: str) -> None:
        """Something of unknown length begins."""
        self._progress.add_task(label, total=None, what="")

    def step(self, stage: str, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` pieces of a stage are done, ``what`` the last of them."""
        if stage not in self._tasks:
            for task in self._progress.tasks:
                if task.total is None:
                    self._progress.remove_task(task.id)
            self._tasks[stage] = self._progress.add_task(stage, total=total, what=what)
            self._began[stage] = monotonic()
        self._progress.update(self._tasks[stage], completed=done, total=total, what=what)
        if done and not self._hidden and not self._console.is_terminal:
            left = (monotonic() - self._began[stage]) / done * (total - done)
            self._console.print(
                f"[{stage} {done}/{total}, {left / 60:.1f} min left] {what}", markup=False
            )
