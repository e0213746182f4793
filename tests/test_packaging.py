"""What a user gets before doing anything: a light import, complete names, tidy layers."""

import ast
import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import retom

ROOT = Path(__file__).parents[1]
SOURCE = Path(retom.__file__).parent

LAYERS = [
    {"errors", "tables", "ordering", "eager"},
    {"grid", "token_plan", "hints", "clock", "checks", "shapes", "stand_ins", "noise", "rounds"},
    {"metrics"},
    {"plan", "representative", "allocation", "multiscale", "guidance", "bands"},
    {"comparison", "grouped_plan"},
    {"soft_plan", "linear_plan", "matrix_plan", "split_plan", "rematch", "candidates", "keeping"},
    {"methods", "protection"},
    {"rules", "presets", "profit", "config_file", "conflicts", "call_thread"},
    {"config", "refusals"},
    {"models"},
    {"calls", "level"},
    {"span"},
    {"in_flight"},
    {"state", "settling", "hosts"},
    {"skipping"},
    {"flops"},
    {"hooks"},
    {"summary"},
    {"handle"},
    {"testing", "explanation", "compat"},
    {"drawing"},
    {"viz"},
    {"evaluation"},
    {"benchmarking"},
    {"diagnosis", "studio", "tuning"},
    {"cli"},
    {"__main__"},
]
"""From the bottom up: a module imports from its own package or from layers below it."""


def layer_of(module):
    """Position of ``retom.<name>...`` in LAYERS."""
    name = module.split(".")[1]
    return next(n for n, names in enumerate(LAYERS) if name in names)


def imports_of(path):
    """Names of retom modules that a file imports, type checking included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retom."):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("retom."))


def source_files():
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def module_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", source_files(), ids=module_of)
def test_imports_point_down(path):
    module = module_of(path)
    for imported in imports_of(path):
        same = imported.split(".")[1] == module.split(".")[1]
        assert same or layer_of(imported) < layer_of(module), f"{module} imports {imported}"


def test_every_module_has_a_layer_and_every_layer_a_module():
    present = {module_of(path).split(".")[1] for path in source_files()}
    assert present == set().union(*LAYERS)


def test_nothing_is_a_god_file():
    assert {p.name: n for p in source_files() if (n := len(p.read_text().splitlines())) > 300} == {}


def loaded_by(statement):
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    code = (
        f"import sys; {statement}; import json; print(json.dumps(sorted(m for m in sys.modules if"
        " '.' not in m)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_retom_loads_torch_at_most():
    extra = loaded_by("import retom") - loaded_by("import torch")
    assert {name for name in extra if not name.startswith("_")} <= {"retom", "json"}


def test_the_import_test_would_notice():
    assert "diffusers" in loaded_by("import retom, diffusers")


def test_all_is_sorted_and_complete():
    assert retom.__all__ == sorted(retom.__all__)
    public = {name for name in vars(retom) if not name.startswith("_")}
    modules = {m.name for m in pkgutil.iter_modules([str(SOURCE)])}
    assert set(retom.__all__) - {"methods"} == (public | retom._LATER.keys()) - modules


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {retom.__version__}" in citation
    assert f"## {retom.__version__}" in changelog


@pytest.mark.parametrize("path", source_files(), ids=module_of)
def test_examples_in_docstrings_run(path):
    if module_of(path).startswith("retom.cli"):
        pytest.importorskip("rich")
    module = importlib.import_module(module_of(path))
    assert doctest.testmod(module, extraglobs={"retom": retom}).failed == 0


def tracked_text():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        cwd=ROOT,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cff", ".txt", ".json", ".yml", ""}:
            yield name, path.read_text(encoding="utf-8")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_names_an_absolute_path_of_a_machine():
    found = [
        name
        for name, text in tracked_text()
        if re.search(r"(?<![\w.:/])/(?:home|root|work|tmp|opt)/\w", text)
    ]
    assert found == []


def test_links_in_the_documents_exist():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"
