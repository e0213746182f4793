"""Whatever a client of the studio's own schema sends: a result or one of retom's sentences."""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_studio_page import _collected  # noqa: F401 - a fixture
from test_studio_request import anything, request_or_sentence
from tiny import sd_pipeline

from retom.drawing.loading import as_model
from retom.studio import Limits, form
from retom.studio.plain import LARGEST, NESTED, complaint
from retom.studio.request import NAMES, Request
from retom.studio.serving import served
from retom.studio.studio import Studio

pytestmark = pytest.mark.filterwarnings("ignore")  # see test_studio_page

RELAXED = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
QUICK = [Phase.explicit, Phase.reuse, Phase.generate]
"""Without shrinking: it would draw for minutes, and an example says which field it was."""
TINY = {"prompt": "red", "height": 16, "width": 16, "steps": 1, "window": "2x2"}
"""Of DDIM's one step the timestep is 1, below the noise at which presets merge."""
FILE = {"orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
ODD = [
    *(True, None, -1, 0.5, 10**9, -(10**30), 10**400, 1e308, float("nan"), float("inf")),
    *("", " ", "NaN", "x" * 10_000, "\0", "\ud800", "🍎" * 20, "<b>${1}{{2}}`", "__class__"),
    *("made.png", "../made.png", "/dev/full", "file:///etc/passwd", "C:\\made.png", "~/made"),
    *([], {}, [[2, 2]], {"__type__": "update", "value": 1}, {"path": "made.png", **FILE}),
    *({"path": "../made.png", **FILE}, {"path": "http://192.0.2.1/a.png", **FILE}),
    *({"path": "made.png", "meta": 1}, {"path": [], "meta": {}}),
]
JSON = {"content-type": "application/json"}


def inside(schema):
    """Values that the schema of a field allows; a kind that is not known here is an error."""
    if "enum" in schema:  # empty where the page fills the choices in later
        return st.sampled_from([*schema["enum"], "first"])
    return {
        "string": st.text(max_size=45),
        "number": st.integers(-1, 130) | st.floats(-1, 60),
        "{}": anything,
    }[str(schema["type"])]


def values_of(schema):
    """Values inside and outside of it."""
    return st.one_of(st.sampled_from(ODD), anything, inside(schema))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder around the one this process stands in, with all of its temporary files."""
    place = tmp_path_factory.mktemp("place")
    home = place / "here" / "home"
    for folder in (place / "temporary", home):
        folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HOME", str(home))
        patch.setattr(tempfile, "tempdir", str(place / "temporary"))
        yield place


@pytest.fixture(scope="module")
def studio():
    limits = Limits(side=128, steps=2, prompt=40)
    studio = Studio({"tiny": as_model(sd_pipeline())}, limits)
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def server(studio, place):
    with (
        served(studio) as page,
        httpx.Client(base_url=page.local_url + "gradio_api/", timeout=60) as server,
    ):
        yield server


@pytest.fixture(autouse=True)
def _nothing_left(place, capfd):
    """No traceback in the log, and no file but in the studio's own folder."""
    yield
    written = {path.relative_to(place) for path in place.rglob("*")}
    beside = {
        path for path in written if not path.parts[1:2] or "retom-studio-" not in path.parts[1]
    }
    assert {str(path) for path in beside} == {"here", "here/home", "temporary"}
    assert "Traceback" not in capfd.readouterr().err


def sent(server, where, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.post(where, content=content, headers=JSON)


def refusal(answer):
    """The sentence of a request that was not taken."""
    assert answer.status_code == 400, answer.text
    return answer.json()["detail"]


def asked(server, name, values):
    """What an endpoint answers: (data, "") or (None, sentence)."""
    begun = sent(server, f"call{name}", {"data": values})
    if begun.status_code != 200:
        return None, refusal(begun)
    told = server.get(f"call{name}/{begun.json()['event_id']}").text.strip().split("\n\n")[-1]
    kind, data = (line.split(": ", 1)[1] for line in told.split("\n"))
    return (json.loads(data), "") if kind == "complete" else (None, json.loads(data)["error"])


def is_sentence(words):
    return isinstance(words, str) and words.endswith(".") and "Traceback" not in words


@pytest.fixture(scope="module")
def endpoints(server):
    """Parameters of each endpoint, from the schema that the running page serves."""
    served = server.get("info").json()
    assert served["unnamed_endpoints"] == {}
    return {name: told["parameters"] for name, told in served["named_endpoints"].items()}


def test_the_schema_has_every_field(endpoints):
    assert {name: [p["parameter_name"] for p in told] for name, told in endpoints.items()} == {
        "/draw": list(NAMES),
        "/stop": [],
    }


@given(st.data())
@settings(RELAXED, max_examples=4, phases=QUICK)
def test_any_value_of_any_field_is_a_result_or_a_sentence(server, studio, endpoints, data):
    """Each example sends as many requests as there are fields, with one odd value each."""
    requests = []
    for name, told in endpoints.items():
        usual = {p["parameter_name"]: p["parameter_default"] for p in told} | (TINY if told else {})
        for parameter in told:
            value = data.draw(values_of(parameter["type"]), label=parameter["parameter_name"])
            requests.append((name, {**usual, parameter["parameter_name"]: value}))
        if not told:
            requests.append((name, usual))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda r: asked(server, r[0], [*r[1].values()]), requests))
    for (name, values), (result, sentence) in zip(requests, answers, strict=True):
        body = json.dumps({"data": [*values.values()]}).encode()
        expected = complaint(body)
        if name == "/draw" and not expected:
            request = request_or_sentence(form.given(values), studio.models, studio.limits)
            expected = "" if isinstance(request, Request) else request
        if expected:
            assert sentence == expected
        else:  # what can be asked for may still not be drawn, at a ratio beyond its windows
            assert result is not None or is_sentence(sentence)


FOUND = [
    ("ratio", "half", "ratio is a number from 0 to 1; 'half' was given."),
    ("ratio", 0.95, "0.95"),
    (
        "preset",
        ["fast"],
        "preset is one of quality, balanced, fast, paper; \"['fast']\" was given.",
    ),
    ("scope", "all", "scope is one of auto, attention, attention+mlp, block, kv; 'all' was given."),
    ("prompt", 3, "The prompt is text; 3 was given."),
    ("prompt", {"path": "http://192.0.2.1/a.png", **FILE}, "A request names no files"),
    ("negative_prompt", {"path": "a.png", "meta": 1}, "A request names no files"),
    ("window", "\ud800", "halves of characters"),
    ("seed", [[]] * 2, "seed is a whole number"),
]


@pytest.mark.parametrize(("field", "value", "words"), FOUND)
def test_values_that_ended_in_an_error_of_gradio(server, endpoints, field, value, words):
    told = {p["parameter_name"]: p["parameter_default"] for p in endpoints["/draw"]}
    result, sentence = asked(server, "/draw", [*{**told, **TINY, field: value}.values()])
    assert result is None
    assert words in sentence


def nested(depth):
    return b'{"data": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("where", "body", "words"),
    [
        ("call/draw", b"", "names an event or an option"),
        ("call/draw", b"{", "this one cannot be read"),
        ("call/draw", b"\xff\xfe", "this one cannot be read"),
        ("call/draw", b'{"data": NaN}', "its numbers finite"),
        ("call/draw", b'{"data": [-1e999]}', "its numbers finite"),
        ("call/draw", b'{"data": [%s]}' % (b"1" * 5000), "4300 digits at most"),
        ("call/draw", b'{"data": "\\ud800"}', "halves of characters"),
        ("call/draw", nested(NESTED + 1), "lists and objects in each other"),
        ("call/draw", nested(500), "lists and objects in each other"),
        ("call/draw", nested(100_000), "this one cannot be read"),
        ("call/draw", b" " * (LARGEST + 1), "bytes; this one has more"),
        ("call/elsewhere", b'{"data": []}', "names an event or an option"),
        ("call/v2/draw", b'{"folder": "made"}', "names an event or an option"),
        ("queue/join", b'{"data": [], "fn_index": 99, "session_hash": "a"}', "names an event"),
    ],
)
def test_bodies_that_are_no_request(server, where, body, words):
    answer = sent(server, where, body)
    assert answer.status_code in (400, 422)
    assert answer.status_code == 422 or words in answer.json()["detail"]


def test_too_few_values_are_a_sentence(server):
    assert asked(server, "/draw", ["red"]) == (
        None,
        "1 values are too few for this event; gradio_api/info lists what it takes.",
    )


@pytest.mark.parametrize("path", ["upload", "process_recording", "component_server", "stream/a"])
def test_what_the_page_does_not_need_is_closed(server, path):
    answer = server.post(path, files={"video": ("a.mp4", b"a"), "files": ("a", b"a")})
    assert answer.status_code == 404
    assert is_sentence(answer.json()["detail"])


@pytest.mark.parametrize("path", ["run/login", "api/login/", "call/login"])
def test_an_event_that_is_called_as_the_login_is_looked_through_too(server, path):
    record = {"path": "http://192.0.2.1/a.png", "meta": {"_type": "gradio.FileData"}}
    answer = server.post(path, json={"data": [record], "fn_index": 0, "session_hash": "a"})
    assert answer.status_code == 400
    assert "names no files" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "file=http://192.0.2.1/a.png",
        "file/http://192.0.2.1/a.png",
        "file/https:%2F%2F192.0.2.1/a.png",
        "file=%20http://192.0.2.1/a.png",
        "proxy=http://192.0.2.1/a.png",
    ],
)
def test_addresses_of_others_are_not_fetched(server, path):
    answer = server.get(path)
    assert answer.status_code == 403
    assert answer.json()["detail"] == "The studio hands out its own pictures alone, no addresses."


@given(st.binary(max_size=40) | anything.map(json.dumps).map(str.encode))
@settings(deadline=None, max_examples=50)
def test_what_is_passed_on_is_plain(body):
    sentence = complaint(body)
    if sentence:
        assert is_sentence(sentence)
    else:
        data = json.loads(body or b"{}")
        assert json.loads(json.dumps(data, allow_nan=False).encode("utf-8")) == data


class Page:
    """The page's own events, as a browser sends them in one session."""

    def __init__(self, server):
        self._server, self._session = server, "session"
        config = server.get("../config").json()
        self.events = {told["api_name"]: told for told in config["dependencies"]}
        self._components = {told["id"]: told for told in config["components"]}

    def schemas(self, name):
        """Of what an event takes; None for what the server keeps itself."""
        inputs = [self._components[number] for number in self.events[name]["inputs"]]
        return [None if c["type"] == "state" else c["api_info_as_input"] for c in inputs]

    def __call__(self, name, values, event_data=None):
        body = {"data": values, "fn_index": self.events[name]["id"], "event_data": event_data}
        begun = sent(self._server, "queue/join", {**body, "session_hash": self._session})
        if begun.status_code != 200:
            return None, refusal(begun)
        events = self._server.get("queue/data", params={"session_hash": self._session}).text
        told = [json.loads(line[6:]) for line in events.split("\n") if line.startswith("data: ")]
        (last,) = (event for event in told if event["msg"] == "process_completed")
        output = last["output"]
        return (output["data"], "") if last["success"] else (None, output["error"])


@pytest.fixture(scope="module")
def page(server, endpoints):
    """The page after a picture was drawn, and what merged in it was looked at."""
    page = Page(server)
    usual = [{**{p["parameter_name"]: p["parameter_default"] for p in endpoints["/draw"]}}]
    usual[0] |= {**TINY, "whole_below": 0}
    result, sentence = page("draw", [*usual[0].values(), None])
    assert result is not None, sentence
    result, sentence = page("look", [None])
    assert result is not None, sentence
    return page


PRIVATE = ("show", "choose_preset", "choose_method", "choose_model", "strip", "remember", "again")


def test_all_other_events_of_the_page_are_known(page):
    served = {name for name, told in page.events.items() if told["backend_fn"]}
    assert served == {"draw", "look", "stop", "stop_1", "nothing", *PRIVATE}


@pytest.mark.parametrize("name", PRIVATE)
@given(st.data())
@settings(RELAXED, max_examples=10, phases=QUICK)
def test_any_value_of_the_pages_own_events(page, name, data):
    values = [None if s is None else data.draw(values_of(s)) for s in page.schemas(name)]
    event = data.draw(st.none() | anything | st.fixed_dictionaries({"run": anything}))
    result, sentence = page(name, values, event)
    assert result is not None or is_sentence(sentence)


@pytest.mark.parametrize(
    ("name", "values", "event", "words"),
    [
        ("show", [None, "groups", "down", "2"], None, "step is a whole number from 1 to"),
        ("show", [None, [], "down", 1], None, "There is no merging layer"),
        ("choose_preset", ["best"], None, "preset is one of quality"),
        ("choose_method", [{}], None, "method is one of retom"),
        ("choose_model", ["owner/name"], None, "model is one of tiny; 'owner/name' was given."),
        ("again", [[]], 5, "This run is no longer in the history."),
        ("again", [[]], {"run": 10**9}, "This run is no longer in the history."),
    ],
)
def test_events_that_ended_in_an_error_of_gradio(page, name, values, event, words):
    result, sentence = page(name, values, event)
    assert words in (sentence or str(result))


def test_after_all_of_that_a_picture_is_drawn(server, endpoints):
    usual = {p["parameter_name"]: p["parameter_default"] for p in endpoints["/draw"]}
    result, sentence = asked(server, "/draw", [*{**usual, **TINY}.values()])
    assert sentence == ""
    assert len(result[0]) == 2
