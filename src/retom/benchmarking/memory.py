"""Memory: how much the machine has left, and how much a call takes at most."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

HOW = {
    "cuda": "torch.cuda.max_memory_allocated of one call, less what was allocated before it",
    "cpu": "allocations of torch's CPU allocator in one call, from torch.profiler: the most that "
    "was held at once beyond what was there before",
}
"""How :func:`peak_bytes` measures, by type of device."""

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int | None:
    """Memory of a device that is free for use; None where nothing tells it.

    On the CPU the least of what the system and the control group of the process have left.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = [left for left in (_of_system(), _of_group()) if left is not None]
    return min(found, default=None)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that tensors hold at once during a call, beyond what was held before.

    Weights and inputs are there before. Buffers inside of torch's kernels count; those of libraries
    that allocate by themselves, such as oneDNN, do not.

    Args:
        call: Run once.
        device: Where it runs.

    Returns:
        None on devices of other types than those of :data:`HOW`.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _peak_on_cpu(call) if device.type == "cpu" else None


def _peak_on_cpu(call: Callable[[], object]) -> int:
    from torch.profiler import ProfilerActivity, profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it writes lines of its own to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    # Each allocation and release is an event of its own; torch's tables add them up by operation,
    # which loses what is held at once.
    results = cast("Any", profiler.profiler).kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    kibibytes = next(found, None)
    return None if kibibytes is None else 1024 * int(kibibytes)


def _of_group() -> int | None:
    """What is left of a container's limit, version 2 of control groups."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        used = (_CGROUP / "memory.current").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if limit == "max" else max(int(limit) - int(used), 0)
