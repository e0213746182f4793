"""Index tables are kept from call to call, except where a tensor would not outlive the call."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import retom
from retom.grid import Grid, Windows
from retom.tables import MOST, table

CPU = torch.device("cpu")


class Operations(TorchDispatchMode):
    """Counts what runs, by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def squares():
    """A table that notes how often it is built."""

    @table
    def build(count, device):
        built.append(count)
        return torch.arange(count, device=device) ** 2

    built = []
    build.built = built
    return build


def test_a_table_is_built_once_a_size(squares):
    assert squares(3, CPU) is squares(3, CPU)
    assert squares(4, CPU).tolist() == [0, 1, 4, 9]
    assert squares.built == [3, 4]


def test_the_oldest_tables_go(squares):
    for count in range(MOST + 1):
        squares(count, CPU)
    squares(0, CPU)
    assert squares.built[-1] == 0
    assert len(squares.built) == MOST + 2


def test_devices_have_their_own(squares):
    assert squares(3, torch.device("meta")).device.type == "meta"
    assert squares(3, CPU).device.type == "cpu"


def test_no_fake_tensor_is_kept_or_given_a_real_one(squares):
    real = squares(3, CPU)
    with FakeTensorMode():
        assert type(squares(3, CPU)) is not torch.Tensor
        squares(5, CPU)
    assert squares(3, CPU) is real
    assert type(squares(5, CPU)) is torch.Tensor


def test_a_compiler_puts_them_into_its_graph(squares):
    compiled = torch.compile(lambda x: x + squares(3, CPU), backend="eager", fullgraph=True)
    assert compiled(torch.zeros(3)).tolist() == [0, 1, 4]
    assert compiled(torch.zeros(3)).tolist() == [0, 1, 4]


def test_one_made_in_inference_mode_serves_training_afterwards():
    """Index tensors are saved for the backward pass, which inference tensors cannot be."""
    windows = Windows.over(Grid(6, 10), (3, 5))  # a partition no other test uses
    with torch.inference_mode():
        windows.gather(torch.randn(1, 60, 2))
    x = torch.randn(1, 60, 2, requires_grad=True)
    windows.gather(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_a_second_plan_of_a_grid_builds_fewer():
    x, grid = torch.randn(1, 14 * 18, 4), Grid(14, 18)
    counts = []
    for _ in range(2):
        with Operations() as operations:
            retom.ReToM().plan(x, grid)
        counts.append(len(operations.names))
    assert counts[1] < 0.75 * counts[0]
