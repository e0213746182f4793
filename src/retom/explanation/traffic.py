"""Memory traffic of planning, merging and un-merging, counted on the meta device.

Choosing and moving tokens is element-wise work, or thin products: what it costs is the bytes that
it reads and writes. They are counted operation by operation, as eager mode runs them; a compiler
fuses some.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from retom.hints import NO_HINTS, Hints
from retom.rules import method_options, method_with

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.methods import Method
    from retom.token_plan import TokenPlan

DTYPE = torch.float16
"""What a model is taken to compute in: two bytes a number."""


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A method that plans as another one does, on the meta device, and counts what that moves.

    A plan there holds sizes and no numbers, so one for each grid serves every layer and scope.
    What is counted in a call is the model's own work, so its plans un-merge by copies.

    Args:
        inner: The other one.
        plans: The plan for each grid and batch, for queries apart from keys and for both alike,
            made from tokens of :data:`DTYPE`.
        asked: For each grid, by whether queries were planned apart from keys: shape of the tokens
            (B, N, C) and the hints.
    """

    name: ClassVar[str] = "watched"

    inner: Method
    plans: dict[tuple[Grid, int, bool], TokenPlan] = field(
        default_factory=dict["tuple[Grid, int, bool]", "TokenPlan"]
    )
    asked: dict[Grid, dict[bool, tuple[torch.Size, Hints]]] = field(
        default_factory=dict["Grid", "dict[bool, tuple[torch.Size, Hints]]"]
    )

    @property
    def ratio(self) -> float:
        """The other one's."""
        return self.inner.ratio

    def num_removed(self, grid: Grid) -> int:
        """The other one's."""
        return self.inner.num_removed(grid)

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """The other one's."""
        self.inner.check_protected(protected, grid)

    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> TokenPlan:
        """The other one's plan for tokens ``x`` (B, N, C)."""
        key = grid, x.shape[0], hints.apart
        if key not in self.plans:
            tokens = torch.empty(x.shape, dtype=DTYPE, device="meta")
            self.plans[key] = _copying(self.inner).plan(tokens, grid, hints)
            self.asked.setdefault(grid, {})[hints.apart] = x.shape, hints
        return self.plans[key]

    def planning(self, grid: Grid, scope: str) -> int:
        """Bytes that a plan for one item moves, index tables aside, which calls find made.

        To be asked after the call that planned: what that call counts, it would count twice.
        """
        tokens, hints = self._asked(grid, scope)
        with _Bytes() as moved:
            self.inner.plan(tokens, grid, hints)
        return moved.total // tokens.shape[0]

    def moved(self, grid: Grid, scope: str) -> int:
        """Bytes that a block moves to merge what it takes in and un-merge what it puts out.

        Args:
            grid: Height and width in tokens; one that was planned for.
            scope: Which layers run on fewer tokens: an MLP merges and un-merges once more, a block
                adds what it changed to the tokens, and merged keys and values are not un-merged.
        """
        tokens, hints = self._asked(grid, scope)
        plan = self.inner.plan(tokens, grid, hints)
        with _Bytes() as moved:
            for _ in range(2 if scope == "attention+mlp" else 1):
                merged = plan.merge(tokens)
                if plan.keys is not plan:
                    plan.keys.merge(tokens)
                if scope == "block":
                    _ = tokens + plan.unmerge(merged - merged, tokens, merged)
                elif scope != "kv":
                    plan.unmerge(merged, tokens, merged)
        return moved.total // plan.batch_size

    def _asked(self, grid: Grid, scope: str) -> tuple[Tensor, Hints]:
        """Tokens and hints as a layer in the scope brings them: apart in ``attention``, if ever."""
        asked = self.asked[grid]
        shape, hints = asked.get(scope == "attention") or next(iter(asked.values()))
        hints = replace(hints, unmerges=scope != "kv")
        return torch.empty(shape, dtype=DTYPE, device="meta"), hints


def _copying(method: Method) -> Method:
    """The method, where it has a choice, with copies for un-merging."""
    choice = {"unmerge": "copy"} if "unmerge" in method_options(method) else {}
    return method_with(method, choice)


class _Bytes(TorchDispatchMode):
    """Adds up the tensors that every operation reads and writes; views move nothing.

    Of a table that rows are picked from no more is read than is picked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and add its bytes."""
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.total += _bytes((args, kwargs or {}, out))
            if func in _PICKS:
                self.total -= max(0, _bytes(args[0]) - _bytes(out))
        return out


_PICKS = (torch.ops.aten.index_select.default, torch.ops.aten.gather.default)


def _bytes(value: object) -> int:
    if isinstance(value, torch.Tensor):
        # an expanded tensor is stored once
        return min(value.nbytes, value.untyped_storage().nbytes())
    if isinstance(value, dict):
        return sum(_bytes(item) for item in cast("dict[object, object]", value).values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in cast("list[object]", value))
    return 0
