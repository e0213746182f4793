"""The examples run, from a folder of their own, and print what they promise."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTED = {
    "which_ratio.py": ["un-merged", "ratio 0.7", "PSNR"],
    "protect_a_place.py": ["100% of the protected ones", "Saved what merged to protected.png"],
    "schedule.py": ["retom generate --config schedule.json", "64x64"],
    "your_own_model.py": ["3 blocks, permutation error", "12x8"],
}
DRAW = PRINTED.keys() - {"your_own_model.py"}
"""Those that draw pictures, which takes its time."""


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in DRAW else []) for n in PRINTED]
)
def test_an_example_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in PRINTED[name]:
        assert words in done.stdout


def test_the_document_shows_the_row_of_the_example():
    code = (EXAMPLES / "your_own_model.py").read_text(encoding="utf-8")
    shown = (EXAMPLES.parent / "docs" / "models.md").read_text(encoding="utf-8")
    row = code[code.index("retom.register_block(") : code.index("torch.manual_seed")].strip()
    assert f"```python\n{row}\n```" in shown


NOTEBOOK = EXAMPLES / "look_at_merging.ipynb"


def cells_of_code():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs():
    for cell in cells_of_code():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    """Cell by cell in one namespace, as a kernel does; what a cell ends with is shown."""
    monkeypatch.chdir(tmp_path)
    names, shown = {"__name__": "__main__"}, []
    for cell in cells_of_code():
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names))
    pictures = [value for value in shown if hasattr(value, "_repr_png_")]
    assert len(pictures) == 3
    assert all(picture._repr_png_().startswith(b"\x89PNG") for picture in pictures)
    printed = capsys.readouterr().out
    assert "call -1: 35% of 64x64 queries went" in printed
    assert "ratio 0.7:" in printed
    assert list(tmp_path.iterdir()) == []
