"""Pieces are there as a whole or not at all, under names that say what they depend on."""

import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retom.errors import OutputError
from retom.evaluation.store import Store, key_of, write_whole

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PATIENT = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
CONTENT = st.dictionaries(st.text(min_size=1), PLAIN, max_size=4)


@PATIENT
@given(CONTENT)
def test_a_name_does_not_depend_on_the_order(content):
    content = {k: v for k, v in content.items() if "inf" not in repr(v)}
    turned = dict(reversed(content.items()))
    assert key_of("x", content) == key_of("x", turned)


@PATIENT
@given(CONTENT, st.text(min_size=1), st.integers())
def test_any_change_gives_another_name(content, name, value):
    content = {k: v for k, v in content.items() if "inf" not in repr(v)}
    changed = {**content, name: value}
    same = json.dumps(changed, sort_keys=True) == json.dumps(content, sort_keys=True)
    assert (key_of("x", changed) == key_of("x", content)) == same


def test_records_carry_what_they_depend_on_and_who_measured_them(tmp_path):
    with Store(tmp_path, {"commit": "abc"}) as store:
        assert not store.has_record("k")
        store.add_record("k", {"ratio": 0.5}, {"psnr": [30.0]})
        assert store.has_record("k")
        found = store.record("k")
    assert found["content"] == {"ratio": 0.5}
    assert found["values"] == {"psnr": [30.0]}
    assert found["source"] == {"commit": "abc"}


def test_numbers_that_json_cannot_hold_are_refused_and_nothing_is_left(tmp_path):
    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match="JSON"):
            store.add_record("k", {}, {"psnr": float("inf")})
        assert not store.has_record("k")
    assert os.listdir(tmp_path / "records") == []


def test_tensors_are_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": torch.arange(3.0)}

    with Store(tmp_path) as store:
        for _ in range(2):
            torch.testing.assert_close(store.tensors("t", make)["x"], torch.arange(3.0))
    assert made == [1]


def test_pictures_come_back_bit_for_bit(tmp_path):
    pictures = torch.randint(0, 256, (3, 3, 5, 7), dtype=torch.uint8)
    with Store(tmp_path) as store:
        store.add_pictures("p", pictures)
        assert torch.equal(store.pictures("p"), pictures)
        assert [path.name for path in store.picture_paths("p")] == [
            "0000.png", "0001.png", "0002.png"
        ]  # fmt: skip


def test_what_a_kill_left_half_done_is_not_there(tmp_path):
    with Store(tmp_path):
        pass
    (tmp_path / "records" / ".k.json.unfinished").write_text('{"val')
    half = tmp_path / "pictures" / ".p.unfinished"
    half.mkdir()
    (half / "0000.png").write_bytes(b"\x89PNG")
    with Store(tmp_path) as store:
        assert not store.has_record("k")
        assert not store.has_pictures("p")
        store.add_record("k", {}, {})
        store.add_pictures("p", torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    assert os.listdir(tmp_path / "records") == ["k.json"]
    assert os.listdir(tmp_path / "pictures") == ["p"]


def test_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with (
        Store(tmp_path),
        pytest.raises(OutputError, match="Another process is at work in"),
        Store(tmp_path),
    ):
        pass
    with Store(tmp_path):
        pass


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot hold results"), Store(tmp_path / "file"):
        pass


def test_a_file_is_replaced_whole_or_left(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole(tmp_path / "missing" / "a.txt", b"three")
