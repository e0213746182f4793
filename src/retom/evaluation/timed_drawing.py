"""Drawing and timing single pictures with a user's pipeline, with merging switched on and off."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retom.config import Config
from retom.drawing.stopwatch import DenoiserStopwatch
from retom.errors import ConfigError
from retom.handle import applied, handle_of
from retom.models import find_denoiser, find_entry
from retom.profit import UNPROFITABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from retom.handle import Handle

    OnPicture = Callable[[str, int, int], None]
    """Told what is drawn next, how many pictures are done, and of how many."""


@dataclass(frozen=True, slots=True)
class TimedPicture:
    """One picture and what it took.

    Attributes:
        picture: float32 (3, H, W) in [0, 1], rounded to 8 bits.
        seconds: Of the whole picture: text encoding, denoising, decoding.
        denoiser_seconds: Of the denoiser's calls in it.
    """

    picture: Tensor
    seconds: float
    denoiser_seconds: float


class TimedDrawing:
    """Draws pictures one by one, with merging as it is at that moment, and times them.

    Args:
        pipe: A diffusers text-to-image pipeline.
        on_picture: Told before and after each picture.
        total: How many there will be.
    """

    def __init__(self, pipe: Any, on_picture: OnPicture, total: int) -> None:  # noqa: ANN401
        self._pipe, self._tell, self._total = pipe, on_picture, total
        self._done = 0

    def run(self, prompt: str, seed: int, label: str, call: dict[str, Any]) -> TimedPicture:
        """Draw one picture.

        Args:
            prompt: Text.
            seed: Of the noise, drawn on the CPU.
            label: What ``on_picture`` is told.
            call: Further arguments of the pipeline.
        """
        self._tell(label, self._done, self._total)
        denoiser = find_denoiser(self._pipe)
        with DenoiserStopwatch(denoiser, next(denoiser.parameters()).device) as stopwatch:
            began = stopwatch.now()
            picture = self._pipe(
                prompt=prompt,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
                **call,
            )[0][0]
            seconds = stopwatch.now() - began
        self._done += 1
        self._tell(label, self._done, self._total)
        rounded = (255 * picture.float().cpu().clamp(0, 1)).round() / 255
        return TimedPicture(rounded, seconds, stopwatch.seconds)


class MergingSwitch:
    """Called, puts merging on inside a ``with`` block.

    Args:
        pipe: The pipeline.
        config: How it merges.
        handle: Of merging that is applied, to be switched on and off; None to apply and remove it
            each time, so that un-merged pictures have no hook of retom in place.
    """

    def __init__(self, pipe: object, config: Config, handle: Handle | None) -> None:
        self.config = config
        self._decided = config
        self._pipe = pipe
        self._handle = handle

    @contextmanager
    def __call__(self) -> Generator[None]:
        """Merge inside a ``with`` block."""
        handle = self._handle
        if handle is None:
            with applied(self._pipe, self._decided) as applied_handle:
                yield
                if self._decided.skip == UNPROFITABLE:  # once, not once a picture
                    skip = applied_handle.summary().skipped_sites
                    self._decided = self.config.with_options(skip=skip)
            return
        handle.enabled = True
        try:
            yield
        finally:
            handle.enabled = False


@contextmanager
def merging_switch(
    pipe: object, config: Config | None, options: dict[str, object]
) -> Generator[MergingSwitch]:
    """A switch for merging, off at first; afterwards the pipeline is as it was.

    Args:
        pipe: With merging applied or without.
        config: How to merge; None for what is applied, or the defaults.
        options: On top of it.

    Raises:
        ConfigError: Merging is applied, and another is asked for.
    """
    handle = handle_of(pipe)
    if handle is None:
        wanted = (config or Config()).with_options(**options)
        if not _is_compiled(pipe):
            yield MergingSwitch(pipe, wanted, None)
            return
        # Applying anew would compile anew, in the middle of what is timed.
        with applied(pipe, wanted) as handle:
            handle.enabled = False
            yield MergingSwitch(pipe, wanted, handle)
        return
    if config is not None or options:
        raise ConfigError(
            f"Merging is applied to this pipeline already: {handle!r}. Call retom.check(pipe) to "
            "check it, or handle.remove() to check another setting."
        )
    enabled, handle.enabled = handle.enabled, False
    try:
        yield MergingSwitch(pipe, handle.config, handle)
    finally:
        handle.enabled = enabled


def _is_compiled(pipe: object) -> bool:
    """Whether ``torch.compile`` wraps the denoiser, or was called in place on it or on parts."""
    denoiser = find_denoiser(pipe)
    parts = [getattr(module, "_compiled_call_impl", None) for module in denoiser.modules()]
    return find_entry(pipe) is not denoiser or any(part is not None for part in parts)
