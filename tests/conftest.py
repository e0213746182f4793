"""What all tests share: no hub, one thread, and a model of every family."""

from __future__ import annotations

import gc
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import tiny
import torch

import retom

if TYPE_CHECKING:
    from retom.token_plan import TokenPlan


def pytest_configure(config):
    config.addinivalue_line(
        "filterwarnings",
        # diffusers hands torch tensors to np.array; numpy 2 asks torch for a copy keyword.
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    )
    # What torch says of its own Inductor when that is loaded.
    config.addinivalue_line(
        "filterwarnings", "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
    )
    # What diffusers says of its own Chroma, Bria and Nucleus when they are built.
    for message in (".FluxPosEmbed. is deprecated", "Initializing zero-element tensors"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


def pytest_collection_finish():
    """What the imports left is never garbage: looking through it took a tenth of the suite."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors run fastest, and sums add up in one order, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class PlanMade:
    """What one plan was made of, and the plan."""

    batch: int
    turn: int
    plan: TokenPlan


@pytest.fixture
def plans_made(monkeypatch) -> list[PlanMade]:
    """A list that grows with every plan that ReToM makes."""
    made: list[PlanMade] = []
    original = retom.ReToM.plan

    def counted(self, x, grid, hints):
        plan = original(self, x, grid, hints)
        made.append(PlanMade(batch=x.shape[0], turn=hints.turn, plan=plan))
        return plan

    monkeypatch.setattr(retom.ReToM, "plan", counted)
    return made


@pytest.fixture
def fresh_compiler(monkeypatch):
    """No graph of another test, and none left behind."""
    # torch traces its work to this logger for tools; pytest would format and keep every line of it.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(params=tiny.FAMILIES)
def family(request) -> tiny.Family:
    return tiny.FAMILIES[request.param]
