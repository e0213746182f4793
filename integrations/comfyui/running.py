"""What the patches of a model share during one call of it, and the wrapper that brings it along.

ComfyUI hands every patch the ``transformer_options`` of the running call. What the patches of one
call have to tell each other stands there, under one key, and is gone when the call ends: no patch
keeps anything, so clones of a model, two models and interrupted runs cannot meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from retom import ConfigError, Grid, ShapeError
from retom.hosts import HostCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from retom import Config
    from retom.plan import Plan

KEY = "retom"
"""Where in ``transformer_options`` a call's :class:`Running` stands, and the key of the wrapper."""

APPLY_MODEL = "apply_model"
"""ComfyUI's name for the wrappers around a call of the model (``WrappersMP.APPLY_MODEL``)."""


@dataclass(frozen=True)
class Settings:
    """What a node was set to.

    Attributes:
        config: What merges.
        start: Share of sampling after which merging begins, as in ComfyUI's other nodes.
        end: Share of sampling after which it ends.
    """

    config: Config
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ConfigError(
                "start_percent and end_percent are shares of sampling with 0 <= start < end <= 1; "
                f"{self.start} and {self.end} were given."
            )

    def holds(self, sigma: Any, sampling: Any) -> bool:
        """Whether merging is on at a sigma; the whole of sampling asks nothing of it."""
        if self.start == 0 and self.end == 1:
            return True
        now = float(sigma.max())
        return sampling.percent_to_sigma(self.end) <= now <= sampling.percent_to_sigma(self.start)

    def noise(self, sigma: Any, sampling: Any) -> float | None:
        """The noise level at a sigma, 1 for pure noise; None where nothing depends on it.

        ``timestep`` is what ComfyUI tells the model: of 1000 in training, or the sigma itself in
        models of flow matching. So its share of the largest one is the library's noise level.

        Raises:
            ConfigError: It is something else, such as EDM's logarithms.
        """
        if self.config.steady:
            return None
        ends = (sampling.sigma_min, sampling.sigma_max)
        least, largest = (float(sampling.timestep(torch.as_tensor(end))) for end in ends)
        if least < 0:
            raise ConfigError(
                f"{type(sampling).__name__} tells the model logarithms and no timesteps, so that a "
                "preset cannot know which steps are the last. Use preset custom, or the advanced "
                "node with end_percent=0.8."
            )
        # Samplers that add noise begin a little above the largest sigma.
        return min(float(sampling.timestep(sigma.max())) / largest, 1.0)


@dataclass(eq=False)
class MergedAttention:
    """A self-attention that is running on merged tokens.

    Attributes:
        plan: Spreads its output back.
        tokens: Its tokens before merging, (B, N, C).
        merged: Those after it, (B, K, C).
        unmerges: Whether its queries were merged, and not keys and values alone.
        weighs: Whether its keys are to be weighted by size.
        weighed: Whether they were.
    """

    plan: Plan
    tokens: Tensor
    merged: Tensor
    unmerges: bool
    weighs: bool
    weighed: bool = False


@dataclass(eq=False)
class Running:
    """One call of a diffusion model.

    Attributes:
        call: Makes its plans.
        latent: Height and width of what the model was called with.
        replaced: Self-attentions that another node has replaced.
        levels: The grids on which attention was seen, the largest first, with their numbers.
        attention: The one that is running on merged tokens; None between them.
        text: Tokens of text in front of the image, once a block has told.
        references: Tokens of reference pictures after the image, once a block has told.
        merges: Whether any layer seen is on a level that merges.
    """

    call: HostCall
    latent: tuple[int, int]
    replaced: frozenset[Any] = frozenset()
    levels: dict[Grid, int] = field(default_factory=dict)
    attention: MergedAttention | None = None
    text: int | None = None
    references: int | None = None
    merges: bool = False

    def level_of(self, grid: Grid) -> int:
        """The level of a grid: they come from large to small, so the order of coming tells."""
        level = self.levels.setdefault(grid, len(self.levels))
        self.merges = self.merges or self.call.merges_on(level)
        return level

    def grid(self, patch: int) -> Grid:
        """The grid of a transformer that takes ``patch`` x ``patch`` latents for a token."""
        height, width = self.latent
        return Grid(-(-height // patch), -(-width // patch))

    def end(self) -> None:
        """Refuse to have done nothing: levels that the model does not have."""
        if self.levels and not self.merges:
            seen = ", ".join(f"{level} ({grid})" for grid, level in self.levels.items())
            raise ConfigError(
                f"ReToM merged nothing: levels={self.call.config.levels!r} was asked, and this "
                f"model has attention on levels {seen}. Choose among those, or 'all'."
            )


@dataclass(frozen=True)
class RunMerged:
    """The wrapper around every call of the model."""

    settings: Settings

    def __call__(
        self,
        executor: Any,
        x: Any,
        t: Any,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Put a :class:`Running` into the call's options, run it, and take it out again."""
        options = {} if transformer_options is None else transformer_options

        def run() -> Any:
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

        settings, sampling = self.settings, executor.class_obj.model_sampling
        if not settings.holds(t, sampling):
            return run()
        call = HostCall(settings.config, noise=settings.noise(t, sampling))
        if not call.merges:
            return run()
        return run_with(_running(call, x, options), options, run)


def _running(call: HostCall, x: Any, options: dict[str, Any]) -> Running:
    if x.ndim == 5 and x.shape[2] != 1:
        raise ShapeError(
            f"ReToM merges pictures; this latent has {x.shape[2]} frames or layers. Use it on "
            "one at a time, or leave it out."
        )
    replaced = options.get("patches_replace", {}).get("attn1", {})
    height, width = x.shape[-2:]
    return Running(call, (height, width), frozenset(replaced))


def run_with(running: Running, options: dict[str, Any], run: Callable[[], Any]) -> Any:
    """Run a call with ``running`` in its options, and leave the options as they were."""
    options[KEY] = running
    try:
        output = run()
    finally:
        options.pop(KEY, None)
    running.end()
    return output
