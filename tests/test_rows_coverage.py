"""Every block class of the installed diffusers has a row, or stands in a list with its reason."""

import re
from pathlib import Path

import diffusers
import pytest
from tiny_transformers import IS_OLD

from retom.models.registry import BLOCKS, DENOISERS
from retom.models.rows.unsupported import UNSUPPORTED_BLOCKS, UNSUPPORTED_DENOISERS
from retom.models.unet import DENOISERS as UNETS

MODELS = Path(diffusers.__file__).parent / "models"
PLACES = ("transformers/*.py", "unets/*.py", "controlnets/*.py", "attention.py")


def classes(pattern):
    files = sorted(path for place in PLACES for path in MODELS.glob(place))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(rf"^class ({pattern})\b", text, flags=re.MULTILINE))


@pytest.mark.skipif(IS_OLD, reason="the lists are those of the newest diffusers")
def test_every_block_class_has_a_row_or_a_reason():
    assert classes(r"\w+Block") - set(BLOCKS) - set(UNSUPPORTED_BLOCKS) == set()


def test_the_search_finds_blocks():
    assert {"FluxTransformerBlock", "BasicTransformerBlock"} <= classes(r"\w+Block")


def models(folder):
    """Models of diffusers by name, each with its source."""
    for path in sorted(MODELS.glob(f"{folder}/*.py")):
        source = path.read_text(encoding="utf-8")
        for part in re.split(r"^(?=class )", source, flags=re.MULTILINE):
            head = re.match(r"class (\w+)\([^)]*ModelMixin", part)
            if head:
                yield head[1], part


@pytest.mark.skipif(IS_OLD, reason="the lists are those of the newest diffusers")
def test_every_model_of_known_blocks_has_a_row_or_a_reason():
    known = r"\b(" + "|".join(BLOCKS) + r")\b"
    found = {name for name, source in models("transformers") if re.search(known, source)}
    found |= {name for name, _ in models("unets") if "UNet" in name}
    assert {"FluxTransformer2DModel", "UNet2DConditionModel", "UNetMotionModel"} <= found
    assert found - set(DENOISERS) - UNETS - set(UNSUPPORTED_DENOISERS) == set()


def test_a_class_is_in_one_list_alone():
    assert set(BLOCKS) & set(UNSUPPORTED_BLOCKS) == set()
    assert set(DENOISERS) & set(UNSUPPORTED_DENOISERS) == set()


@pytest.mark.skipif(IS_OLD, reason="the lists are those of the newest diffusers")
def test_no_row_is_of_a_class_that_does_not_exist():
    present = classes(r"\w+")
    assert set(BLOCKS) - present == set()
    assert set(DENOISERS) - present == set()


def test_reasons_are_sentences():
    for reason in {*UNSUPPORTED_BLOCKS.values(), *UNSUPPORTED_DENOISERS.values()}:
        assert reason[0].isupper()
        assert reason.endswith(".")
