"""What all tests share: no hub, one thread, and a model of every family."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import tiny
import torch


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


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors run fastest, and sums add up in one order, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=tiny.FAMILIES)
def family(request) -> tiny.Family:
    return tiny.FAMILIES[request.param]
