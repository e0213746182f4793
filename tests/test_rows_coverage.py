"""Every block class of the installed diffusers has a row, or stands in a list with its reason."""

import re
from pathlib import Path

import diffusers
import pytest

from retom.models.registry import BLOCKS, DENOISERS
from retom.models.rows.unsupported import UNSUPPORTED_BLOCKS, UNSUPPORTED_DENOISERS

MODELS = Path(diffusers.__file__).parent / "models"
PLACES = ("transformers/*.py", "unets/*.py", "controlnets/*.py", "attention.py")


def classes(pattern):
    files = sorted(path for place in PLACES for path in MODELS.glob(place))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(rf"^class ({pattern})\b", text, flags=re.MULTILINE))


@pytest.mark.skipif(
    not diffusers.__version__.startswith("0.42."), reason="the lists are those of diffusers 0.42"
)
def test_every_block_class_has_a_row_or_a_reason():
    assert classes(r"\w+Block") - set(BLOCKS) - set(UNSUPPORTED_BLOCKS) == set()


def test_the_search_finds_blocks():
    assert {"FluxTransformerBlock", "BasicTransformerBlock"} <= classes(r"\w+Block")


def test_a_class_is_in_one_list_alone():
    assert set(BLOCKS) & set(UNSUPPORTED_BLOCKS) == set()
    assert set(DENOISERS) & set(UNSUPPORTED_DENOISERS) == set()


@pytest.mark.skipif(
    not diffusers.__version__.startswith("0.42."), reason="the lists are those of diffusers 0.42"
)
def test_no_row_is_of_a_class_that_does_not_exist():
    present = classes(r"\w+")
    assert set(BLOCKS) - present == set()
    assert set(DENOISERS) - present == set()


def test_reasons_are_sentences():
    for reason in {*UNSUPPORTED_BLOCKS.values(), *UNSUPPORTED_DENOISERS.values()}:
        assert reason[0].isupper()
        assert reason.endswith(".")
