"""What is asked of a run over ever more tokens, and what it found."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retom.errors import ConfigError
from retom.evaluation.provenance import caption
from retom.evaluation.tables import between, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.metrics.estimate import Estimate

FORMAT = 1
LEAST_TOKENS = 1024
MOST_TOKENS = 262_144
LARGE = 16_384
"""Tokens from which on a second slope is fitted: below, what every call costs flattens the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """What is measured.

    Args:
        methods: Specifications; the default and the cheapest ReToM, and tomesd where it is
            installed, for None.
        ratio: Fraction of the tokens to remove, where the method's windows leave it open.
        most_tokens: The largest grid; sizes are powers of two from 1024 on.
        channels: Of a token.
        batch: Pictures.
        rounds: Timed rounds; in each every method runs once at every size.
        seed: Of the tokens, tomesd's draws and the bootstrap.

    Raises:
        ConfigError: A value is out of its range.
    """

    methods: Sequence[str] | None = None
    ratio: float = 0.5
    most_tokens: int = MOST_TOKENS
    channels: int = 320
    batch: int = 1
    rounds: int = 11
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"most_tokens": 2 * LEAST_TOKENS, "channels": 1, "batch": 1, "rounds": 2, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ConfigError(
                    f"{name} is a whole number of at least {low}; {value!r} was given."
                )
        if not 0 < self.ratio < 1:
            raise ConfigError(f"ratio is above 0 and below 1; {self.ratio!r} was given.")


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one size.

    Attributes:
        tokens: N.
        seconds: Of plan, merge and un-merge together, median over rounds.
    """

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """One method.

    Attributes:
        method: Its specification.
        points: By size.
        slope: Of log seconds over log N, by least squares; None with a single size.
        slope_large: The same from :data:`LARGE` tokens on; None with fewer than two sizes there.
        note: Why larger sizes are missing; empty where none is.
    """

    method: str
    points: tuple[Point, ...]
    slope: Estimate | None
    slope_large: Estimate | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Everything that one run found; ``str()`` gives the Markdown.

    Attributes:
        settings: What was measured.
        dtype: Of the tokens.
        source: Command, commit, versions and hardware.
        lines: One a method.
    """

    settings: ScalingSettings
    dtype: str
    source: dict[str, Any]
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"format": FORMAT, **asdict(self)}

    def csv(self) -> str:
        """A line for each method and size, with where all of it was measured."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["method", "tokens", "median_ms", "measured"])
        measured = caption(self.source)
        for line in self.lines:
            for point in line.points:
                writer.writerow([line.method, point.tokens, 1e3 * point.seconds, measured])
        return out.getvalue()

    def __str__(self) -> str:
        sizes = sorted({point.tokens for line in self.lines for point in line.points})
        header = ["method", *map(str, sizes), "slope", f"slope from {LARGE} on"]
        rows: list[list[str]] = []
        for line in self.lines:
            times = {point.tokens: f"{1e3 * point.seconds:.2f}" for point in line.points}
            cells = [times.get(size, "") for size in sizes]
            slopes = [between(line.slope, 3), between(line.slope_large, 3)]
            rows.append([line.method, *cells, *slopes])
        own = self.settings
        about = (
            f"Milliseconds of plan, merge and un-merge together, medians over {own.rounds} rounds; "
            f"{own.batch} x N x {own.channels} tokens of noise, {self.dtype}, ratio {own.ratio:g}. "
            "Slope: of log time over log N; 1 is linear, 2 quadratic."
        )
        notes = [f"- {line.method}: {line.note}" for line in self.lines if line.note]
        parts = ["# Scaling", "", about, "", table(header, rows), ""]
        parts += [*notes, ""] if notes else []
        return "\n".join([*parts, f"{caption(self.source)} Seed {own.seed}.", ""])
