"""``retom doctor``: what it finds is what is there."""

import json
import re
import subprocess
import sys
from importlib.metadata import metadata, version

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import retom
from retom.cli import main
from retom.diagnosis import packages, paying
from retom.diagnosis.devices import kernels_of
from retom.diagnosis.paying import Paying, measure
from retom.grid import Grid
from retom.metrics.estimate import Estimate


@pytest.fixture(scope="module")
def diagnosis():
    return retom.doctor(timing=False)


def test_versions_and_devices_are_torch_s(diagnosis):
    assert diagnosis.versions["torch"] == version("torch")
    kinds = [device.type for device in diagnosis.devices]
    assert kinds[0] == "cpu"
    assert ("cuda" in kinds) == torch.cuda.is_available()
    assert diagnosis.devices[0].threads == torch.get_num_threads()


def test_kernels_are_those_that_run():
    found = kernels_of(torch.device("cpu"))
    assert found["math"]  # plain products take any mask
    assert "cudnn" not in found
    x = torch.zeros(1, 2, 128, 64)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
    assert "flash" in found


def test_extras_are_read_from_the_installation():
    required = [
        "torch>=2.6",
        'pytest>=1 ; extra == "cli"',
        "nowhere-at-all<2,>=1; extra == 'cli'",
        'pytest ; extra == "eval"',
    ]
    cli, other = packages.extras_of(required)
    assert (cli.name, cli.missing) == ("cli", ("nowhere-at-all<2,>=1",))
    assert cli.command == 'pip install "retom[cli]"'
    assert other.missing == ()


def test_extras_of_this_project_are_all_known(diagnosis):
    if diagnosis.extras is None:
        pytest.skip("retom is on the path, but not installed as a package")
    known = metadata("retom").get_all("Provides-Extra")
    assert {extra.name for extra in diagnosis.extras} == set(known)


def test_a_model_that_is_not_there_is_told(monkeypatch, tmp_path):
    assert packages.bundled_model() == "found"
    monkeypatch.setattr(packages, "MODEL", "retom_nowhere")
    assert "pip install ./packages/retom-emoji" in packages.bundled_model()
    (tmp_path / "retom_hollow.py").write_text(
        f"SIZES = (256,)\ndef folder(size): return {str(tmp_path)!r}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packages, "MODEL", "retom_hollow")
    assert "has no model_index.json" in packages.bundled_model()


def test_a_small_layer_is_measured(monkeypatch):
    monkeypatch.setattr(paying, "MOST", 4)
    found = measure(torch.device("cpu"), grid=Grid(16, 16))
    assert found.speedup.n in (3, 4)
    assert found.unmerged_ms > 0
    assert found.merged_ms > 0
    assert found.speedup.low <= found.speedup.value <= found.speedup.high
    assert found.verdict.startswith(("Merging pays", "Merging does not", "No clear"))


def test_a_large_layer_gains_from_free_merging(monkeypatch):
    """Attention of N tokens is N², so half of them must not take longer."""
    monkeypatch.setattr(paying, "MOST", 3)
    assert measure(torch.device("cpu"), grid=Grid(48, 48)).ceiling.value > 1.3


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (1.8, 1.6, 2.0, "Merging pays here: half of the tokens make this layer 1.80 times"),
        (0.5, 0.4, 0.6, "does not pay here on this layer: it takes 2.00 times as long"),
        (1.1, 0.9, 1.3, "No clear answer"),
        (1.01, 1.005, 1.015, "No clear answer"),
    ],
)
def test_the_verdict_follows_the_interval(value, low, high, words):
    speedup = Estimate("speed-up", value, low, high, 9)
    found = Paying("cpu", "float32", 1.0, 1.0, speedup, Estimate("speed-up", 2.0, 1.9, 2.1, 9))
    assert words in found.verdict


def test_the_command_prints_it(capsys):
    assert main(["doctor", "--no-timing"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"retom {retom.__version__}, Python ")
    assert re.search(r"^cpu.*; attention kernels: .*math", text, re.MULTILINE)
    assert "bundled models: found" in text


def test_the_command_prints_json(capsys):
    assert main(["doctor", "--no-timing", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["format"] == 1
    assert data["paying"] is None
    assert data["devices"][0]["kernels"]["math"] is True


def test_a_timed_diagnosis_has_the_verdict_in_its_json():
    speedup = Estimate("speed-up", 1.8, 1.6, 2.0, 9)
    measured = Paying("cpu", "float32", 2.0, 1.1, speedup, speedup)
    plain = retom.doctor(timing=False)
    timed = type(plain)(*(getattr(plain, f) for f in list(plain.__slots__)[:-1]), measured)
    assert timed.to_dict()["paying"]["verdict"] == measured.verdict
    json.dumps(timed.to_dict(), allow_nan=False)
    assert "un-merged 2.0 ms, merged 1.1 ms" in str(timed)


def test_bad_input_is_one_sentence(capsys):
    assert main(["doctor", "--device", "abacus"]) == 2
    assert capsys.readouterr().err == (
        "retom: The device abacus is not available on this machine.\n"
    )
    assert main(["doctor", "--device", "cpu", "--no-timing"]) == 2
    assert "Leave one out" in capsys.readouterr().err


def test_it_runs_with_torch_alone():
    """None of the extras' packages is loaded, so none has to be there."""
    code = (
        "import sys; from retom.cli import main; main(['doctor', '--no-timing']); "
        "print([m for m in ('diffusers', 'transformers', 'rich', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
