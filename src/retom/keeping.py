"""What outlives a call of the denoiser is moved out of the memory of the graphs that made it.

A CUDA graph writes its results to the same places whenever it is replayed, and the graphs of a
compiled denoiser share their memory: what one of them returned is good until the next call. Plans
that a later call reuses (``refresh``) are therefore copied once, after the call that made them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retom.token_plan import TokenPlan


def of_its_own(plan: TokenPlan) -> TokenPlan:
    """The same plan in memory of its own.

    Strides stay, and parts that are one tensor, or views of one, stay so: a graph that took the
    plan in the call that made it takes this one too, and is not compiled again.
    """
    return copy.deepcopy(plan)
