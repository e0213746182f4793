"""What tells one model from another, and one state of the code from another: digests."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

import retom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_PART = 2**24
_APART = frozenset(
    {
        "__main__.py", "benchmarking", "cli", "compat", "diagnosis", "drawing", "evaluation",
        "explanation", "flops.py", "metrics", "presets.py", "studio", "summary.py", "testing",
        "tuning", "viz",
    }
)  # fmt: skip
"""Parts of the package that do not merge: they draw, measure, and show."""


def fingerprint(pipe: Any) -> str:  # noqa: ANN401 - a pipeline of any class
    """Sixteen hex digits that change with any weight, with the scheduler and with the pipeline.

    The same model loaded from elsewhere, or from files of another layout, gives the same digits; in
    another precision it does not. Merging that is applied changes nothing.

    Args:
        pipe: A diffusers pipeline.
    """
    digest = hashlib.sha256(type(pipe).__name__.encode())
    components = cast("dict[str, object]", pipe.components)
    for name, part in sorted(components.items()):
        if isinstance(part, nn.Module):
            digest.update(name.encode())
            for key, tensor in sorted(part.state_dict().items()):
                digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
                _update(digest, tensor)
    scheduler = pipe.scheduler
    # Names with an underscore are bookkeeping of diffusers: where files came from, and a list whose
    # order is another one in every process.
    config = {k: v for k, v in dict(scheduler.config).items() if not k.startswith("_")}
    digest.update(
        f"{type(scheduler).__name__}{json.dumps(config, sort_keys=True, default=str)}".encode()
    )
    return digest.hexdigest()[:16]


def _update(digest: Any, tensor: Tensor) -> None:  # noqa: ANN401 - hashlib names no public type
    """Feed the bytes of a tensor, a part at a time, so that no second copy of a model is made."""
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _PART):
        part = flat[start : start + _PART].contiguous().cpu()
        digest.update(part.view(torch.uint8).numpy().tobytes())


@cache
def merging_code(folder: Path = Path(retom.__file__).parent) -> str | None:
    """Sixteen hex digits that change with the code that merges, though its version be the same.

    Comments, docstrings and layout do not count, so that a resumed study is not measured anew for a
    sentence.

    Args:
        folder: Of the package.

    Returns:
        None where the package comes without its sources; its version alone tells it then.
    """
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    return _code(folder, [path for path in paths if path.parts[0] not in _APART])


@cache
def tomesd_code() -> str | None:
    """The same of what sets the package tomesd up; its own version stands in its settings."""
    folder = Path(__file__).parent
    return _code(folder, [p.relative_to(folder) for p in folder.glob("tomesd.py")])


def _code(folder: Path, paths: Sequence[Path]) -> str | None:
    digest = hashlib.sha256()
    for path in paths:
        tree = ast.parse((folder / path).read_bytes())
        digest.update(f"{path.as_posix()}\n{ast.dump(_WithoutWords().visit(tree))}\n".encode())
    return digest.hexdigest()[:16] if paths else None


class _WithoutWords(ast.NodeTransformer):
    """Takes away strings that stand as statements: docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Keep anything that is computed."""
        is_words = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_words else node
