"""Results as Parquet: one table of estimates, one of every single number."""

from __future__ import annotations

import io
import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from retom.errors import MissingExtraError
from retom.evaluation.measures import MEASURES
from retom.evaluation.store import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from retom.evaluation.results import Results

FORMAT = "retom-eval-1"


def require_pyarrow() -> Any:  # noqa: ANN401 - a module
    """pyarrow, once it is needed.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Results are Parquet files; {error.name} is not installed: "
            'pip install "retom[cli,eval]".'
        ) from error


def write_parquet(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write ``results.parquet``, a row for each contender and measure, and ``samples.parquet``.

    Both carry settings and provenance as JSON in their metadata under ``retom``.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputError: They cannot be written.
    """
    about = json.dumps({"format": FORMAT, **results.about()})
    paths = folder / "results.parquet", folder / "samples.parquet"
    _write(paths[0], _estimates(results), about)
    _write(paths[1], _samples(results), about)
    return paths


def _estimates(results: Results) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "name", "method", "ratio", "scope", "config", "other_tokens", "measure",
            "value", "low", "high", "n", "reference_n",
            "difference", "difference_low", "difference_high",
            "from_unmerged", "from_unmerged_low", "from_unmerged_high",
        )
    }  # fmt: skip
    for row in results.rows:
        for measure in MEASURES:
            estimate = row.values.get(measure.key)
            if estimate is None:
                continue
            other = row.differences.get(measure.key)
            whole = row.from_unmerged.get(measure.key)
            found = (
                row.name, row.method, row.ratio, row.scope, json.dumps(row.config),
                row.other_tokens, measure.key, estimate.value, estimate.low, estimate.high,
                estimate.n, estimate.reference_n, other and other.value, other and other.low,
                other and other.high, whole and whole.value, whole and whole.low,
                whole and whole.high,
            )  # fmt: skip
            for column, value in zip(columns.values(), found, strict=True):
                column.append(value)
    return columns


def _samples(results: Results) -> dict[str, list[Any]]:
    names = ("name", "measure", "prompt", "seed", "timestep", "value")
    return {name: [getattr(v, name) for v in results.sample_values] for name in names}


def _write(path: Path, columns: dict[str, list[Any]], about: str) -> None:
    pyarrow = require_pyarrow()
    types = {
        "other_tokens": pyarrow.bool_(), "n": pyarrow.int64(), "reference_n": pyarrow.int64(),
        "seed": pyarrow.int64(), "timestep": pyarrow.int64(),
    }  # fmt: skip
    words = ("name", "method", "scope", "config", "measure", "prompt")
    types |= dict.fromkeys(words, pyarrow.string())
    schema = pyarrow.schema(
        [(name, types.get(name, pyarrow.float64())) for name in columns],
        metadata={"retom": about},
    )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), stream)
    write_whole(path, stream.getvalue())
