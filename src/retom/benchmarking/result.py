"""What a benchmark found: rows of numbers, and their forms as data and as text."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from retom.benchmarking.lineup import is_oracle
from retom.evaluation.provenance import caption
from retom.evaluation.results import UNMERGED
from retom.evaluation.tables import between, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.metrics.estimate import Estimate

FORMAT = 1
"""Version of the JSON form; it grows by keys alone as long as this stays."""

MEBIBYTE = 2**20
_COLUMNS = (
    "case", "method", "ratio", "scope", "tokens", "kept", "median_ms",
    "speedup", "speedup_low", "speedup_high",
    "efficiency", "efficiency_low", "efficiency_high",
    "plan_ms", "merge_ms", "unmerge_ms", "overhead", "overhead_low", "overhead_high",
    "peak_mib", "peak_to_unmerged", "rounds", "note",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender in one case.

    Attributes:
        method: Its specification; ``un-merged``, ``oracle``.
        ratio: Fraction of the tokens that go; 0 un-merged.
        scope: The layers that run on fewer tokens; empty un-merged.
        tokens: On the largest grid that merges.
        kept: Of these after merging.
        seconds: Of each round; empty where the contender was not timed.
        speedup: Un-merged / own seconds within a round; None un-merged.
        efficiency: See :func:`~retom.evaluation.timing.efficiency_estimate`; None where the oracle
            gains nothing.
        pieces: Median milliseconds of ``plan``, ``merge`` and ``unmerge``, of single places.
        overhead: (plan / layers that share it + merge + un-merge) / the un-merged place.
        peak: Bytes held at most beyond weights and inputs; None where that cannot be measured.
        note: Why it was not timed; empty where it was.
    """

    method: str
    ratio: float
    scope: str
    tokens: int
    kept: int
    seconds: tuple[float, ...] = ()
    speedup: Estimate | None = None
    efficiency: Estimate | None = None
    pieces: dict[str, float] = field(default_factory=dict[str, float])
    overhead: Estimate | None = None
    peak: int | None = None
    note: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float | None:
        """Median over rounds; None where the contender was not timed."""
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        half = len(ordered) // 2
        low, high = ordered[(len(ordered) - 1) // 2], ordered[half]
        return 1e3 * (low + high) / 2

    @property
    def label(self) -> str:
        """What tells it from the other rows of its case."""
        return f"{self.method} · {self.ratio:g} · {self.scope}" if self.scope else self.method


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Contenders timed together.

    Attributes:
        name: Part, size and batch; the module too where one is timed.
        size: (height, width) in pixels.
        rows: Un-merged first.
    """

    name: str
    size: tuple[int, int]
    rows: tuple[Row, ...]

    def row(self, method: str) -> Row:
        """The first row of a method; KeyError where there is none."""
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything that one run found; ``str()`` gives the Markdown.

    Attributes:
        model: Its name, and whose weights.
        denoiser: Class name.
        part: What one timed call is.
        why: A sentence on that.
        dtype: What the model computes in.
        rounds: Timed rounds.
        seed: Of everything random.
        compiled: Whether ``torch.compile`` compiled every contender.
        memory: How peaks were measured; empty where they were not.
        source: Command, commit, versions and hardware.
        cases: One for each size, and for each module where single ones are timed.
        left_out: Methods that take part in no case, and why.
    """

    model: str
    denoiser: str
    part: str
    why: str
    dtype: str
    rounds: int
    seed: int
    compiled: bool
    memory: str
    source: dict[str, Any]
    cases: tuple[Case, ...]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, every round's seconds included."""
        return {"format": FORMAT, **asdict(self)}

    def csv(self) -> str:
        """A line for each row of each case, numbers in full, with where all of it was measured."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*_COLUMNS, "measured"])
        measured = caption(self.source)
        for case in self.cases:
            writer.writerows([*_csv_row(case, row), measured] for row in case.rows)
        return out.getvalue()

    def notes(self) -> list[str]:
        """Who was not timed, and why, and what was skipped, in sentences."""
        found = [f"{name}: not timed. {reason}" for name, reason in self.left_out.items()]
        for case in self.cases:
            found += [
                f"{row.label}, {case.name}: not timed. {row.note}" for row in case.rows if row.note
            ]
            found += [
                f"{row.label}, {case.name}: {line}" for row in case.rows for line in row.skipped
            ]
        return found

    def __str__(self) -> str:
        compiled = ", torch.compile" if self.compiled else ""
        lines = [
            f"# {self.model}",
            "",
            f"{self.denoiser}, {self.dtype}{compiled}, {self.rounds} rounds. {self.why}",
        ]
        for case in self.cases:
            lines += ["", f"## {case.name}", "", case_table(case)]
        notes = self.notes()
        if notes:
            lines += ["", *(f"- {note}" for note in notes)]
        if self.memory:
            lines += ["", f"Peak memory: {self.memory}."]
        return "\n".join([*lines, "", f"{caption(self.source)} Seed {self.seed}.", ""])


def case_table(case: Case) -> str:
    """A case as a Markdown table."""
    header, rows = case_cells(case)
    return table(header, rows)


def case_cells(case: Case) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a case's table, as text."""
    split = any(row.pieces for row in case.rows)
    header = ["method · ratio · scope", "tokens", "median ms", "speed-up", "efficiency"]
    header += ["plan ms", "merge ms", "un-merge ms", "overhead"] if split else []
    header += ["peak MiB", "of un-merged"]
    base = case.row(UNMERGED).peak
    return header, [_cells(row, base, split=split) for row in case.rows]


def _cells(row: Row, base: int | None, *, split: bool) -> list[str]:
    tokens = str(row.tokens) if row.tokens == row.kept else f"{row.tokens} to {row.kept}"
    if row.milliseconds is None:
        return [row.label, tokens, "not timed", *[""] * (8 if split else 4)]
    cells = [row.label, tokens, _number(row.milliseconds)]
    cells.append("1" if row.method == UNMERGED else between(row.speedup, 2))
    known = "" if row.method == UNMERGED or is_oracle(row.method) else "n/a"
    cells.append(known if row.efficiency is None else between(row.efficiency, 2))
    if split:
        cells += [_number(row.pieces.get(name)) for name in ("plan", "merge", "unmerge")]
        cells.append("" if row.overhead is None else between(row.overhead, 3))
    share = None if row.peak is None or not base else row.peak / base
    peak = None if row.peak is None else row.peak / MEBIBYTE
    return [*cells, _number(peak), "" if share is None else f"{share:.2f}"]


def _number(value: float | None) -> str:
    """Three digits or more."""
    if value is None:
        return ""
    digits = next((d for d, least in ((0, 100), (1, 10), (2, 1)) if value >= least), 3)
    return f"{value:.{digits}f}"


def _csv_row(case: Case, row: Row) -> Sequence[object]:
    base = case.row(UNMERGED).peak
    peak = None if row.peak is None else row.peak / MEBIBYTE
    share = None if row.peak is None or not base else row.peak / base
    return [
        case.name, row.method, row.ratio, row.scope, row.tokens, row.kept, row.milliseconds,
        *_ends(row.speedup), *_ends(row.efficiency),
        *(row.pieces.get(name) for name in ("plan", "merge", "unmerge")), *_ends(row.overhead),
        peak, share, len(row.seconds), row.note,
    ]  # fmt: skip


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
