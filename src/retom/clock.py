"""When plans are made anew: the timesteps of a generation, and where one begins.

A denoiser is called without being told which picture it works on. Timesteps fall while a picture
is drawn, so a timestep that rises begins another one, whatever scheduler runs and wherever
image-to-image starts. A rise by less than a training timestep does not: schedulers that put a
timestep between two of others round it on either side (KDPM2 with Karras sigmas).

A picture that was broken off may be followed by one that starts lower. A pipeline whose timesteps
are all parts of one tensor, the scheduler's, gives that away: another picture has another tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor

from retom.errors import ConfigError

Refresh = int | tuple[float, ...] | None

ROUNDING = 0.000_999
"""A rise of the noise level up to this is rounding: just under one training timestep of 1000."""


@dataclass(slots=True, eq=False)
class TimestepTensors:
    """Whether timesteps are parts of one tensor a picture, and whether that tensor has changed.

    A host that makes a tensor for every call never shows the same one twice: the clock holds the
    last, so that its memory is not given to the next.
    """

    _storage: int | None = None
    _one_a_picture: bool = False
    _just_changed: bool = False

    def leave(self) -> None:
        """Compare the next call with none before it."""
        self._storage, self._just_changed = None, False

    def changed(self, source: object, *, fell: bool) -> bool:
        """Note a call, and say whether its timestep, which fell, is of another picture's tensor.

        Args:
            source: What the timestep was read from.
            fell: Whether it is lower than the one before.
        """
        before = self._storage
        self._storage = None
        if isinstance(source, Tensor) and not source.is_meta:
            self._storage = source.untyped_storage().data_ptr()
        if not fell:
            return False
        if self._storage is not None and self._storage == before:
            self._one_a_picture, self._just_changed = True, False
            return False
        # Twice in a row: this host makes a tensor a call, whatever the one before it did.
        self._one_a_picture &= not self._just_changed
        self._just_changed = self._one_a_picture
        return self._one_a_picture


@dataclass(slots=True, eq=False)
class Clock:
    """Follows the calls of one denoiser.

    Attributes:
        noise: Noise level of the running call, 1 for pure noise; None before the first.
        turn: At how many timesteps of this generation plans were renewed, after the first.
        begins: Whether the last call noted was the first one of a generation.
    """

    noise: float | None = None
    turn: int = 0
    begins: bool = False
    _source: object = None
    _fell: bool = False
    _steps: int = 0
    _lowest: float = 1.0
    _tensors: TimestepTensors = field(default_factory=TimestepTensors)

    def reset(self) -> None:
        """Begin another generation with the next call."""
        self.noise, self.turn, self.begins = None, 0, False
        self._source, self._fell, self._steps = None, False, 0
        self._tensors.leave()

    def advance(self, noise: float, source: object, refresh: Refresh) -> bool:
        """Note a call of the denoiser.

        A timestep that comes again is the same step: calls for the two halves of guidance, or a
        second evaluation by the scheduler. Before any timestep has fallen it might as well be the
        next picture of a one-step model; then it is the same step only if the very same object
        says so, as in one turn of a pipeline's loop.

        Args:
            noise: Noise level, 1 for pure noise.
            source: The object that the timestep was read from.
            refresh: When plans are renewed: None in every call, a whole number n at every n-th
                timestep, noise levels at the first timestep at or below each of them.

        Returns:
            Whether plans are to be made anew in this call.
        """
        before, previous = self.noise, self._source
        self.noise, self._source = noise, source
        repeats = noise == before and (self._fell or source is previous)
        self.begins = False
        goes_on = before is not None and noise != before and noise - before <= ROUNDING
        another = self._tensors.changed(source, fell=goes_on)
        if another or not (goes_on or repeats):
            self.begins = True
            self.turn, self._fell, self._steps, self._lowest = 0, False, 0, noise
            return True
        if repeats:
            return refresh is None
        self._fell = True
        self._steps += 1
        due = self._is_due(noise, refresh)
        self._lowest = min(self._lowest, noise)
        self.turn += due
        return due

    def _is_due(self, noise: float, refresh: Refresh) -> bool:
        if refresh is None:
            return True
        if isinstance(refresh, int):
            return self._steps % refresh == 0
        return any(noise <= level < self._lowest for level in refresh)


def check_refresh(refresh: object) -> Refresh:
    """Return ``refresh``, levels from high to low, or raise with what is allowed."""
    if refresh is None or (type(refresh) is int and refresh >= 1):
        return refresh
    if isinstance(refresh, (tuple, list)) and refresh:
        levels = tuple(cast("Sequence[object]", refresh))
        if all(type(x) in (int, float) and 0 <= cast("float", x) <= 1 for x in levels):
            return tuple(sorted((float(cast("float", x)) for x in levels), reverse=True))
    raise ConfigError(
        "refresh is None (plans in every call), a whole number of timesteps of at least 1, or "
        f"noise levels between 0 and 1 such as (0.9, 0.5); {refresh!r} was given."
    )
