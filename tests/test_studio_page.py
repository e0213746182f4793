"""The served page, through its own client: several users, limits, headers, nothing left behind."""

import gc
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio
import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from tiny import sd_pipeline

import retom
from retom import studio as package
from retom.cli import main
from retom.drawing.loading import as_model
from retom.errors import ConfigError, MissingExtraError
from retom.studio import Limits, form
from retom.studio.job import Finished
from retom.studio.serving import served
from retom.studio.studio import Studio

# Gradio asks pandas for what is deprecated, and uvicorn leaves sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"height": 64, "width": 64, "steps": 2}


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """What the servers left behind is collected here, not in the next file's first test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def studio():
    model = as_model(sd_pipeline())
    studio = Studio({"tiny": model}, Limits(side=128, steps=60, prompt=40, queue=8))
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def page(studio):
    with served(studio) as page:
        yield page


def client_of(page, folder):
    return Client(
        page.local_url, verbose=False, download_files=str(folder), analytics_enabled=False
    )


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    return client_of(page, tmp_path_factory.mktemp("files"))


def asked(number):
    methods = "retom", "tome", "sito", "window_corner"
    return {
        **SMALL,
        "prompt": "red" if number % 2 else "blue",
        "seed": number,
        "ratio": (0.3, 0.5)[number % 2],
        "method": methods[number % 4],
    }


def pixels(both):
    return [np.asarray(image) for image in both]


def drawn_by(client, **values):
    both, numbers, python, config, *_ = client.predict(**values, api_name="/draw")
    pictures = [np.asarray(Image.open(path)) for path in both]
    return pictures, numbers, python, retom.Config.from_dict(json.loads(config))


def test_eight_clients_at_once_get_each_their_own(page, studio, tmp_path):
    def visit(number):
        return drawn_by(client_of(page, tmp_path / str(number)), **asked(number))

    for number in range(8):
        (tmp_path / str(number)).mkdir()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(visit, range(8)))
    for number, (pictures, _, python, config) in enumerate(answers):
        event = studio.draw("alone", asked(number)).result()
        assert isinstance(event, Finished)
        result = event.value.result
        alone = pixels([result.comparison.unmerged.image, result.merged.image])
        assert all(map(np.array_equal, pictures, alone))
        assert config.method.name == asked(number)["method"]
        assert config.method.ratio == asked(number)["ratio"]
        assert f"manual_seed({number})" in python
    assert retom.handle_of(studio.models["tiny"].pipe) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": " "}, "The prompt is empty; write what to draw."),
        ({"steps": 61}, "steps is a whole number from 1 to 60 here; 61 was given."),
        ({"height": 4096}, "height is a whole number from 1 to 128 here"),
        ({"model": "owner/name"}, "owner/name"),
        ({"ratio": 0.75, "method": "tome", "window": "1x2"}, "0.75"),
    ],
)
def test_wrong_values_are_sentences(client, values, words):
    with pytest.raises(AppError) as caught:
        client.predict(**{"prompt": "red", **SMALL, **values}, api_name="/draw")
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_client_stops_its_own_picture_alone(page, client, tmp_path):
    other = client_of(page, tmp_path)
    job = client.submit(prompt="red", **{**SMALL, "steps": 60}, api_name="/draw")
    while len(job.outputs()) < 3:
        threading.Event().wait(0.01)
    waiting = other.submit(prompt="blue", **SMALL, api_name="/draw")
    client.predict(api_name="/stop")
    assert "Stopped." in str(job.result())
    assert "PSNR" in waiting.result()[1]


def test_after_all_of_that_a_picture_is_drawn(client):
    assert client.predict(prompt="red", **{**SMALL, "steps": 1}, api_name="/draw")[0]


def test_the_page_asks_no_other_host_and_tells_nobody(page):
    answer = httpx.get(page.local_url)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert page.analytics_enabled is False
    assert page.share is False
    config = httpx.get(page.local_url + "config").json()
    assert config["analytics_enabled"] is False
    assert config.get("run_history") is False
    assert "fonts.googleapis" not in answer.text


def test_a_foreign_name_for_this_machine_is_refused(page):
    assert httpx.get(page.local_url, headers={"Host": "evil.example"}).status_code == 400


def test_nothing_can_be_uploaded_or_read(page):
    files = {"files": ("a.txt", b"more than a byte")}
    assert httpx.post(page.local_url + "gradio_api/upload", files=files).status_code >= 400
    here = Path(__file__).as_posix()
    assert httpx.get(f"{page.local_url}gradio_api/file={here}").status_code in (403, 404)


def test_pictures_lie_in_a_folder_that_ends_with_the_page(studio, tmp_path):
    with served(studio) as page:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        drawn_by(client_of(page, tmp_path), prompt="red", **SMALL)
        assert list(folder.rglob("*.png"))
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_an_address_that_is_taken_is_a_sentence(studio):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {port}"),
            served(studio, port=port),
        ):
            pass


def test_choosing_a_preset_or_a_method_fills_in_the_rest():
    method, ratio, window, scope, whole = form.of_preset("paper")
    assert (method, ratio["value"], window["value"]) == ("retom", 0.5, "2x2")
    assert (scope, whole) == ("attention", 0)
    assert form.of_preset("fast")[-1] == 0.2
    ratio, window = form.of_method("todo")
    assert ratio["visible"] is False
    assert window["visible"] is True
    ratio, window = form.of_method("importance")
    assert window["visible"] is False
    assert form.given({"method": "todo", "ratio": 0.5, "window": "4x4"}) == {
        "method": "todo",
        "window": "4x4",
    }


def test_a_missing_extra_is_a_sentence(monkeypatch):
    monkeypatch.setattr(package, "PACKAGES", ("no_such_package",))
    with pytest.raises(
        MissingExtraError, match=r'needs no_such_package.*pip install "retom\[studio'
    ):
        package.serve({})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--port", "0"), "at least 1"),
        (("--max-steps", "0"), "at least 1"),
        (("--model", "a/x", "--model", "a/x"), "Two models are called a/x"),
        (("--model", "no/such/folder"), "There is no folder no/such/folder"),
        (("--max-side", "64"), "retom-emoji-256 draws 256 px by default, beyond the limit of 64"),
    ],
)
def test_the_command_refuses_with_a_sentence(capsys, more, words):
    if "--max-side" in more:
        pytest.importorskip("retom_emoji")
    assert main(["studio", *more]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_the_version_is_one_that_the_extra_allows():
    assert gradio.__version__.startswith("6.")
