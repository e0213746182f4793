"""Code in the documents does what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

import retom

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_every_block_of_python_can_be_read(path):
    for block in blocks(path.relative_to(DOCS)):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_every_link_to_a_file_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_method_of_the_guide_works():
    definition, use = blocks("adding-a-method.md")
    names = {}
    exec(definition, names)
    names |= {"pipe": tiny.unet(), "retom": retom}
    exec(use, names)
    model, arguments = names["pipe"], tiny.inputs(size=(9, 7))
    with tiny.tokens_seen(model) as seen:
        assert torch.isfinite(tiny.call(model, arguments)).all()
    assert {counts[0] for counts in seen.values()} >= {32}


def test_the_site_builds_without_a_warning(tmp_path):
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, tmp_path / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "html" / "commands.html").read_text(encoding="utf-8")
    names = "generate eval check explain bench inspect grid doctor studio tune"
    for command in names.split():
        assert f'id="retom-{command}"' in commands
