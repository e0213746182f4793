import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retom.errors import ShapeError
from retom.metrics.pictures import in_batches, to_pair, to_tensor


def pixels(count, height=4, width=6):
    """uint8 (count, height, width, 3), no two places alike."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def test_every_form_of_the_same_pictures_gives_the_same_tensor():
    array = pixels(3)
    expected = torch.from_numpy(array).movedim(-1, 1).float() / 255
    floats = array.astype(np.float32) / np.float32(255)
    forms = {
        "PIL": [Image.fromarray(a) for a in array],
        "array": array,
        "arrays": list(array),
        "float array": floats,
        "tensor": torch.from_numpy(array).movedim(-1, 1),
        "tensors": list(torch.from_numpy(array).movedim(-1, 1)),
        "float tensor": expected,
        "strided array": array[::-1][::-1],
    }
    for name, form in forms.items():
        converted = to_tensor(form)
        assert converted.dtype == torch.float32, name
        assert torch.equal(converted, expected), name


def test_one_picture_has_no_batch_and_a_list_of_one_has():
    array = pixels(1)[0]
    for one in (Image.fromarray(array), array, torch.from_numpy(array).movedim(-1, 0)):
        assert to_tensor(one).shape == (3, 4, 6)
        assert to_tensor([one]).shape == (1, 3, 4, 6)
        assert [batch.shape for batch in in_batches(one, 8)] == [(1, 3, 4, 6)]


def test_a_grey_picture_has_three_equal_channels():
    grey = Image.fromarray(pixels(1)[0, :, :, 0])
    converted = to_tensor(grey)
    assert converted.shape == (3, 4, 6)
    assert torch.equal(converted[0], converted[2])
    assert np.array_equal((255 * converted[1]).round().numpy(), pixels(1)[0, :, :, 0])


def test_float_tensors_are_not_copied():
    x = torch.rand(2, 3, 4, 4)
    assert to_tensor(x).data_ptr() == x.data_ptr()


@given(count=st.integers(1, 9), size=st.integers(1, 10), as_list=st.booleans())
def test_batches_are_the_pictures_in_order(count, size, as_list):
    array = pixels(count, 2, 3)
    form = [Image.fromarray(a) for a in array] if as_list else torch.from_numpy(array).movedim(3, 1)
    batches = list(in_batches(form, size))
    assert all(len(batch) == size for batch in batches[:-1])
    assert torch.equal(torch.cat(batches), to_tensor(array))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "an empty list was given"),
        ("apple.png", "str was given"),
        (["apple.png"], "str was given"),
        (Image.new("RGBA", (4, 4)), "RGBA was given. Put a transparent picture on a background"),
        (Image.new("P", (4, 4)), "mode RGB or L; P was given"),
        (np.zeros((3, 4, 4)), r"\(height, width, 3\).*; \(3, 4, 4\) was given"),
        (torch.zeros(4, 4, 3), r"\(3, height, width\).*; \(4, 4, 3\) was given"),
        (np.zeros((4, 4, 3), np.int64), "torch.int64 was given"),
        (np.full((4, 4, 3), 255.0), "from 255 to 255"),
        (torch.full((3, 4, 4), -0.1), "from -0.1 to -0.1"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)], "4x4 and 4x5 were given"),
        ([torch.zeros(1, 3, 4, 4)], r"one entry is a batch, \(1, 3, 4, 4\)"),
    ],
)
def test_what_is_no_picture_is_refused(wrong, message):
    with pytest.raises(ShapeError, match=message):
        to_tensor(wrong)
    with pytest.raises(ShapeError, match=message):
        list(in_batches(wrong, 2)) if not isinstance(wrong, str) else to_tensor(wrong)


def test_sizes_that_differ_between_batches_are_refused():
    with pytest.raises(ShapeError, match="2x3 and 3x2 were given"):
        list(in_batches([torch.zeros(3, 2, 3), torch.zeros(3, 3, 2)], 1))


def test_batches_of_none_are_refused():
    with pytest.raises(ShapeError, match="at least 1; 0 was given"):
        list(in_batches(torch.zeros(2, 3, 2, 2), 0))


def test_pairs_are_of_one_shape():
    with pytest.raises(ShapeError, match=r"\(2, 3, 2, 2\) and \(3, 3, 2, 2\) were given"):
        to_pair(torch.zeros(2, 3, 2, 2), torch.zeros(3, 3, 2, 2))


def test_importing_the_metrics_loads_no_extra():
    code = (
        "import sys, torch; before = set(sys.modules); import retom.metrics, "
        "retom.metrics.adapters; new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(m for m in new if not m.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stdout)) - set(sys.stdlib_module_names)
    assert loaded <= {"retom", "torch"}
