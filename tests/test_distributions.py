"""The built wheels: what is in them, and that each installs and works in a fresh environment.

torch and what it needs are linked into the fresh environments, because they are gigabytes; pip
finds them there as installed. Everything else comes from the package index, at the versions of
``constraints.txt``.
"""

import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

import retom

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|onnx|npz|gguf|pkl|pickle)$")
LARGEST = 2_000_000
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """(retom's wheel, the model's wheel)."""
    place = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ROOT / "packages" / "retom-emoji"):
        pip("wheel", "--no-deps", "--wheel-dir", str(place), str(source))
    (own,) = place.glob("retom-*.whl")
    (model,) = place.glob("retom_emoji-*.whl")
    return own, model


def pip(*words):
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words)


def clean():
    """The environment without the checkout's own paths, which must not stand in for an install."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*words, status=0, cwd=None):
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=clean(),
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def torch_and_its_own():
    """The distributions that torch brings along, itself first."""
    found, open_names = {}, ["torch"]
    while open_names:
        name = open_names.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        required = [line for line in found[key].requires or [] if "extra ==" not in line]
        open_names += [re.match(r"[A-Za-z0-9._-]+", line)[0] for line in required]
    return found.values()


@pytest.fixture
def environment(tmp_path):
    """A fresh environment with torch in it: its folder of programs."""
    place = tmp_path / "environment"
    venv.create(place)
    linked = tmp_path / "linked"
    linked.mkdir()
    for distribution in torch_and_its_own():
        for name in {file.parts[0] for file in distribution.files if file.parts[0] != ".."}:
            target = Path(distribution.locate_file(name))
            if target.exists() and not (linked / name).exists() and name != "__pycache__":
                (linked / name).symlink_to(target)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "linked.pth").write_text(f"{linked}\n")
    return place / "bin"


def install(environment, *wanted):
    """Install, and find that torch was left as it is."""
    python = str(environment / "python")
    pinned = "-c", str(ROOT / "constraints.txt")
    pip("--python", python, "install", "--no-compile", *pinned, *map(str, wanted))
    own = list((environment.parent / "lib").glob("python*/site-packages/torch"))
    assert own == [], "pip installed torch anew"


def test_the_wheel_holds_the_library_and_no_weights(wheels):
    own, _ = wheels
    names = zipfile.ZipFile(own).namelist()
    assert [name for name in names if WEIGHTS.search(name)] == []
    assert {name.split("/")[0] for name in names} == {
        "retom",
        f"retom-{retom.__version__}.dist-info",
    }
    assert "retom/py.typed" in names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert own.stat().st_size < LARGEST
    source = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "retom").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("retom/")} == source


def test_the_wheel_s_version_is_the_library_s(wheels):
    own, model = wheels
    assert own.name.startswith(f"retom-{retom.__version__}-")
    text = (ROOT / "packages/retom-emoji/src/retom_emoji/__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)[1]
    assert model.name.startswith(f"retom_emoji-{version}-")


def test_torch_alone_is_enough_for_the_library(wheels, environment, tmp_path):
    install(environment, wheels[0])
    code = (
        "import torch, retom\n"
        "plan = retom.ReToM().plan(torch.randn(2, 64, 8), retom.Grid(8, 8))\n"
        "print(plan.unmerge(plan.merge(torch.randn(2, 64, 8))).shape)"
    )
    assert "[2, 64, 8]" in run(environment / "python", "-c", code, cwd=tmp_path).stdout
    found = json.loads(run(environment / "retom", "doctor", "--no-timing", "--json").stdout)
    assert {extra["name"] for extra in found["extras"]} == set(EXTRAS)
    assert all(extra["missing"] for extra in found["extras"])
    refused = run(environment / "retom", "generate", "red", status=2, cwd=tmp_path)
    assert 'pip install "retom[cli]"' in refused.stderr


def test_the_model_installs_on_its_own(wheels, environment, tmp_path):
    install(environment, "--no-deps", wheels[1])
    found = "*(path.name for size in e.SIZES for path in e.folder(size).iterdir())"
    code = f"import retom_emoji as e; print({found})"
    printed = run(environment / "python", "-c", code, cwd=tmp_path).stdout
    assert printed.count("model_index.json") == 2


def main_thing(extra, environment, place):
    """What people install an extra for."""
    retom_command = environment / "retom"
    if extra == "cli":
        size = ("--steps", "1", "--size", "64x64")
        run(retom_command, "generate", "a red apple", *size, "-o", "apple.png", cwd=place)
        assert (place / "apple.png").read_bytes().startswith(b"\x89PNG")
    elif extra == "eval":
        code = (
            "import torch\nfrom retom.metrics.efficientnet import EfficientNetLite0\n"
            "print(EfficientNetLite0()(torch.rand(2, 3, 64, 64)).shape)"
        )
        assert "1280" in run(environment / "python", "-c", code, cwd=place).stdout
    elif extra == "studio":
        assert "retom studio" in first_page(retom_command, place)


def first_page(command, place):
    """What the studio answers on a port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = place / "studio.log"
    with log.open("w") as out:
        words = [str(command), "studio", "--port", str(port)]
        server = subprocess.Popen(words, stdout=out, stderr=out, cwd=place, env=clean())
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()
            try:
                with direct.open(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    return answer.read().decode()
            except OSError:
                time.sleep(0.5)
        pytest.fail(log.read_text())
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_installs_and_does_its_work(wheels, environment, tmp_path, extra):
    install(environment, f"{wheels[0]}[{extra}]", wheels[1])
    found = json.loads(run(environment / "retom", "doctor", "--no-timing", "--json").stdout)
    missing = {entry["name"]: entry["missing"] for entry in found["extras"]}
    assert missing[extra] == []
    assert found["bundled_model"] == "found"
    main_thing(extra, environment, tmp_path)
