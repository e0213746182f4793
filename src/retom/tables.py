"""Index tables that follow from sizes alone, kept from one call to the next.

Where the tokens of a window stand, and which windows are beside it, is the same in every layer and
step of a grid. Built anew, such tables are most of the operations of a plan; on a small grid they
are most of its time, and on an accelerator each is a launch.
"""

from __future__ import annotations

from functools import wraps
from threading import Lock
from typing import TYPE_CHECKING, TypeVarTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from torch import Tensor

Sizes = TypeVarTuple("Sizes")

MOST = 512
"""Tables that are kept; then the oldest goes first."""

_KEPT: dict[Hashable, Tensor] = {}  # a global, because a compiler cannot look into a closure's
_ADDING = Lock()


def table(build: Callable[[*Sizes], Tensor]) -> Callable[[*Sizes], Tensor]:
    """Keep what ``build`` returns for sizes, all hashable, and a device, its last argument.

    What is kept is shared by all callers, who must not write into it. Where a tensor would not
    outlive the call, it is built anew: in a graph that is being compiled, exported or captured, and
    among fake tensors.
    """

    @wraps(build)
    def found(*sizes: *Sizes) -> Tensor:
        if torch.compiler.is_compiling() or _passing(sizes[-1]):
            return build(*sizes)
        key = (build, sizes)
        kept = _KEPT.get(key)
        if kept is None:
            # A tensor of inference mode could not be saved for a backward pass later.
            with torch.inference_mode(mode=False):
                kept = build(*sizes)
            with _ADDING:
                while len(_KEPT) >= MOST:
                    del _KEPT[next(iter(_KEPT))]
                _KEPT[key] = kept
        return kept

    return found


def _passing(device: object) -> bool:
    """Whether tensors that are made now belong to a capture, or are no real ones."""
    if type(torch.empty(0)) is not torch.Tensor:
        return True
    on_cuda = isinstance(device, torch.device) and device.type == "cuda"
    return on_cuda and torch.cuda.is_current_stream_capturing()
