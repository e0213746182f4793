"""Bad input that needs no model to be refused, and how light the command is."""

import os
import subprocess
import sys

import pytest
import torch

from retom.cli import main
from retom.drawing.failing import failures_of
from retom.errors import ModelError

NOWHERE = "--model", "/nowhere/at/all"


@pytest.fixture
def refused(capsys, tmp_path):
    """Run ``retom generate``: one line on stderr, status 2, no file; return the line."""

    def run(*arguments, output=None, model=NOWHERE):
        place = str(output or tmp_path / "out.png")
        status = main(["generate", "red", "-o", place, *model, *arguments])
        captured = capsys.readouterr()
        assert status == 2
        assert captured.out == ""
        assert captured.err.startswith("retom: ")
        assert captured.err.count("\n") == 1
        assert not (tmp_path / "out.png").exists()
        return captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ratio", "1"), "at least 0 and less than 1; 1.0 was given"),
        (("--ratio", "-0.1"), "at least 0 and less than 1; -0.1 was given"),
        (("--ratio", "nan"), "nan was given"),
        (("--ratio", "half"), "--ratio: a number of at least 0 and less than 1 is needed, 'half'"),
        (("--steps", "0"), "--steps: a whole number of at least 1 is needed, '0' was given"),
        (("--steps", "2.5"), "'2.5' was given"),
        (("--seed", "-1"), "--seed: a whole number of at least 0"),
        (("--seed", str(2**64)), f"less than {2**64}"),
        (("--seed=--5",), "--seed: a whole number of at least 0"),
        (("--seed", "9" * 5000), "--seed: a whole number of at least 0"),
        (
            ("--threads", "10000000000"),
            "--threads: a whole number of at least 1 and less than 1025",
        ),
        (("--guidance", "-1"), "--guidance: a number of at least 0 is needed, '-1' was given"),
        (("--guidance", "inf"), "'inf' was given"),
        (("--size", "wide"), "--size: height x width is needed, such as 2x2 or 192x256, 'wide'"),
        (("--size", "1x2x3"), "'1x2x3' was given"),
        (("--height", "0"), "--height: a whole number of at least 1"),
        (("--window", "0x2"), "--window: height x width in tokens, such as 2x2, or auto is needed"),
        (("--levels", "0;1"), "--levels: all, or levels with commas such as 0,1"),
        (("--reach", "-1"), "--reach: a whole number of at least 0"),
        (("--method", "magic"), "--method: invalid choice: 'magic'"),
        (("--preset", "best"), "--preset: invalid choice: 'best' (choose from"),
        (("--preset", "fast", "--config", "x.json"), "--config and --preset fast were both given"),
        (("--allocation", "fair"), "--allocation: invalid choice"),
        (("--dtype", "int8"), "--dtype: invalid choice"),
        (("--repeat", "3"), "--repeat measures pairs, so it needs --compare"),
        (("--config", "pyproject.toml"), "pyproject.toml cannot be read as a retom configuration"),
        (("--ratoi", "0.5"), "unrecognized arguments: --ratoi"),
        (("--negative-prompt", "\udcff"), "not valid in this terminal's encoding"),
    ],
)
def test_bad_options(refused, arguments, words):
    assert words in refused(*arguments)


def test_a_config_file_of_another_method(refused, tmp_path):
    from retom import Config
    from retom.methods import RandomRepresentative

    Config(method=RandomRepresentative(seed=3)).save(tmp_path / "config.json")
    message = refused("--config", str(tmp_path / "config.json"), "--method", "retom")
    assert "Unknown option seed" in message


def test_outputs_that_cannot_be_written(refused, tmp_path):
    assert "does not end in .png" in refused(output=tmp_path / "out.jpg")
    assert "There is no folder" in refused(output=tmp_path / "missing" / "out.png")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert "is a folder; name the file" in refused(output=folder)
    assert os.listdir(tmp_path) == ["folder.png"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that even root cannot write")
def test_an_output_folder_that_cannot_be_written(refused):
    assert "/proc/out.png cannot be written: " in refused(output="/proc/out.png")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/nowhere/at/all", "There is no folder /nowhere/at/all"),
        ("./nowhere", "There is no folder ./nowhere"),
        ("not a model", "There is no folder not a model"),
        ("nobody/nothing", "the Hugging Face hub gives no diffusers pipeline of that name"),
    ],
)
def test_unknown_models(refused, model, words):
    assert words in refused(model=("--model", model))


def test_models_that_are_no_pipeline(refused, tmp_path):
    assert "has no model_index.json" in refused(model=("--model", str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"")
    message = refused(model=("--model", str(tmp_path / "model.safetensors")))
    assert "is a file; a model is a diffusers pipeline folder" in message


def test_the_bundled_model_not_installed(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "retom_emoji", None)
    message = refused(model=())
    assert "pip install ./packages/retom-emoji" in message
    assert "--model" in message


@pytest.mark.parametrize("package", ["diffusers", "PIL", "rich"])
def test_a_missing_extra(refused, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert f'retom generate needs {package}, which is not installed: pip install "retom[cli]"' in (
        refused()
    )


def test_no_prompt_and_no_command(capsys):
    assert main(["generate"]) == 2
    assert "required: prompt" in capsys.readouterr().err
    assert main([]) == 2
    assert "required: COMMAND" in capsys.readouterr().err


def test_help_and_version_are_light():
    """Neither needs the packages of the extra; a fresh interpreter tells."""
    code = (
        "import sys\n"
        "from retom.cli import main\n"
        "for words in (['--help'], ['generate', '--help'], ['--version']):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "heavy = {'diffusers', 'transformers', 'PIL', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--compare" in done.stdout
    assert "retom 0." in done.stdout


def test_the_module_is_the_command():
    words = [sys.executable, "-m", "retom", "generate", "red", "--ratio", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("retom: ratio is the fraction of the tokens")


def test_names_too_long_to_ask_for_are_sentences(refused, tmp_path):
    assert "cannot be written: File name too long" in refused(output=tmp_path / f"{'a' * 300}.png")
    assert "cannot be read: File name too long" in refused(model=("--model", "m" * 5000))


@pytest.mark.parametrize("device", ["meta", "cpu:7", "nothing"])
def test_a_device_that_computes_nothing_is_not_there(refused, device):
    refusal = refused("--device", device, model=())
    assert f"The device {device} is not available on this machine" in refusal


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("Storage size calculation overflowed with sizes=[1]"),
    ],
)
def test_a_full_memory_is_told_apart_from_a_broken_model(error):
    with pytest.raises(torch.OutOfMemoryError), failures_of("a model"):
        raise error
    with pytest.raises(ModelError, match="failed while it drew"), failures_of("a model"):
        raise RuntimeError("shapes do not fit")
