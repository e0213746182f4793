"""Orders without ties are those of a stable sort, on every path."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retom import ordering
from retom.ordering import highest_first, lowest_first

FEW = [-torch.inf, -2.5, -0.0, 0.0, 1e-45, 0.5, 1.0, torch.inf]


@pytest.fixture(autouse=True, params=[0, ordering.MANY], ids=["few are many", "as it is"])
def _paths(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "MANY", request.param)
        yield


def slow(row, *, descending):
    """Index order of a list by Python's own stable sort."""
    return sorted(range(len(row)), key=lambda i: -row[i] if descending else row[i])


@given(st.lists(st.lists(st.sampled_from(FEW), min_size=5, max_size=5), min_size=1, max_size=3))
def test_ties_stay_in_index_order(rows):
    found = highest_first(torch.tensor(rows))
    assert found.tolist() == [slow(row, descending=True) for row in rows]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_any_floats(row):
    assert highest_first(torch.tensor([row])).tolist() == [slow(row, descending=True)]


@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 3), min_size=1, max_size=40))
def test_any_numbers(row):
    assert lowest_first(torch.tensor([row])).tolist() == [slow(row, descending=False)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_is_no_number_comes_first(sign):
    no_number = math.copysign(math.nan, sign)
    values = torch.tensor([[1.0, -torch.inf, torch.inf, no_number, 0.0, 2.0, math.nan]])
    assert highest_first(values).tolist() == [[3, 6, 2, 5, 0, 4, 1]]
    stable = torch.sort(values, dim=1, descending=True, stable=True).indices
    assert torch.equal(highest_first(values), stable)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_path_gives_one_order(dtype):
    drawn = torch.randn(3, 700, generator=torch.Generator().manual_seed(0))
    values = (8 * drawn).round().to(dtype)
    expected = torch.sort(values, dim=1, descending=True, stable=True).indices
    assert torch.equal(highest_first(values), expected)
    assert torch.equal(torch.compile(highest_first, backend="aot_eager")(values), expected)
    numbers = values.long() + 100
    expected = torch.sort(numbers, dim=1, stable=True).indices
    assert torch.equal(lowest_first(numbers), expected)
    assert torch.equal(torch.compile(lowest_first, backend="aot_eager")(numbers), expected)
