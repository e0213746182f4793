"""Blocks that run again on the way back: gradient checkpointing.

``torch.utils.checkpoint`` keeps the input of a block instead of what its layers computed, and runs
the block again during backward, when the call of the denoiser and its plans are over. So what a
block merged with is kept with its input, for as long as that lives, and put back while the block
runs again. Without gradients nothing is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.weak import WeakIdKeyDictionary

from retom.calls import Args, Kwargs, read_path
from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from retom.config import Config
    from retom.grid import Grid
    from retom.level import LevelState, PlanSlot
    from retom.methods import Method
    from retom.state import MergeState
    from retom.token_plan import TokenPlan


def in_backward() -> bool:
    """Whether the caller is run by a backward pass."""
    return cast("Any", torch._C)._current_graph_task_id() != -1


def refuse_second_run(config: Config) -> None:
    """Refuse to run the whole denoiser during backward where its plans depend on earlier calls.

    Raises:
        ConfigError: It runs again, and plans are reused or take turns.
    """
    if in_backward() and (config.refresh is not None or config.alternates):
        raise ConfigError(
            "The whole denoiser runs again during backward, and what refresh and alternate took "
            "from its earlier calls is not known any more. Checkpoint its blocks instead, with "
            "enable_gradient_checkpointing(), or use refresh=None and alternate=False."
        )


@dataclass(slots=True, eq=False)
class Setting:
    """What a block merges with.

    Attributes:
        config: The configuration of the call.
        running: Whether the call merged at all.
        method: The method of the block's level.
        source_grid: Grid of its tokens.
        plans: What stands in its own slot and in the level's shared one: plan and grid.
        references: Tokens of reference pictures that follow those of the picture.
        skips: Whether the block's site is skipped.
    """

    config: Config
    running: bool
    method: Method | None
    source_grid: Grid | None
    plans: tuple[tuple[TokenPlan | None, Grid | None], ...]
    references: int
    skips: bool

    @staticmethod
    def of(state: MergeState, level: LevelState, slot: PlanSlot) -> Setting:
        """The one in force."""
        return Setting(
            config=state.config,
            running=state.running,
            method=level.method,
            source_grid=level.source_grid,
            plans=_plans(level, slot),
            references=state.references,
            skips=slot.skips,
        )

    def note_plans(self, level: LevelState, slot: PlanSlot) -> None:
        """Keep the plans that the block has used, whatever becomes of them after it."""
        self.plans = _plans(level, slot)
        self.skips = slot.skips  # a layer inside may have been timed since

    def put_back(self, state: MergeState, level: LevelState, slot: PlanSlot) -> None:
        """Bring it into force again."""
        state.running, state.references = self.running, self.references
        level.method, level.source_grid = self.method, self.source_grid
        slot.skips = self.skips
        for held, (plan, grid) in zip((slot, level.shared), self.plans, strict=True):
            held.plan, held.grid = plan, grid


def _plans(level: LevelState, slot: PlanSlot) -> tuple[tuple[TokenPlan | None, Grid | None], ...]:
    return tuple((held.plan, held.grid) for held in (slot, level.shared))


@dataclass(slots=True, eq=False)
class Memory:
    """Shared by all blocks of a denoiser; a copy of the denoiser begins with an empty one.

    Attributes:
        kept: Settings by the input tensor of the block, as long as that lives.
        recording: Setting of the block that runs for the first time; None between blocks.
        interrupted: What was in force before a block began to run again; None between blocks.
    """

    kept: Any = field(default_factory=WeakIdKeyDictionary)
    recording: Setting | None = None
    interrupted: Setting | None = None

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()


@dataclass(slots=True, eq=False)
class BlockBegins:
    """Before a block and its other hooks: keep what it merges with, or put that back.

    Attributes:
        memory: The denoiser's.
        state: The denoiser's.
        level: The site's.
        slot: The site's own plan.
        tokens: The block's argument with the image tokens.
        parameters: Names of the parameters of its forward.
    """

    memory: Memory
    state: MergeState
    level: LevelState
    slot: PlanSlot
    tokens: str
    parameters: tuple[str, ...]

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if torch.compiler.is_compiling():
            return
        memory, state, level = self.memory, self.state, self.level
        memory.recording = memory.interrupted = None  # an interrupt may have left something
        if not torch.is_grad_enabled():
            return
        tokens = read_path(self.parameters, args, kwargs, (self.tokens,))
        if state.running or not in_backward():
            memory.recording = memory.kept[tokens] = Setting.of(state, level, self.slot)
            return
        setting = cast("Setting | None", memory.kept.get(tokens))
        if setting is None:
            if state.enabled and level.method is not None:
                raise ConfigError(
                    "A transformer block runs again during backward, and retom does not know what "
                    "it merged with in the call. Use checkpointing with use_reentrant=False, as "
                    "enable_gradient_checkpointing() does by default, or remove merging."
                )
            return
        if setting.running and setting.config != state.config:
            raise ConfigError(
                "Merging was changed between a call and its backward pass, in which checkpointed "
                "blocks run again. Call handle.update() after backward()."
            )
        memory.interrupted = Setting.of(state, level, self.slot)
        setting.put_back(state, level, self.slot)


@dataclass(slots=True, eq=False)
class BlockEnds:
    """After a block and its other hooks, also when checkpointing stops it halfway.

    A plan that nobody uses any more is dropped here: held until the end of the call, the plans of
    all layers together would add to the peak of memory.
    """

    memory: Memory
    state: MergeState
    level: LevelState
    slot: PlanSlot

    def __call__(self, module: nn.Module, args: Args, output: object) -> None:
        if not torch.compiler.is_compiling():
            memory = self.memory
            interrupted, memory.interrupted = memory.interrupted, None
            recording, memory.recording = memory.recording, None
            if interrupted is not None:
                interrupted.put_back(self.state, self.level, self.slot)
                self.state.in_flight = None
                return
            if recording is not None:
                recording.note_plans(self.level, self.slot)
        if self.state.config.refresh is None:
            self.slot.forget()
