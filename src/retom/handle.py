"""Applying merging to a denoiser, and the handle that controls and removes it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from retom.config import Config
from retom.errors import AlreadyAppliedError, ConfigError
from retom.flops import block_flops
from retom.grid import Grid
from retom.hooks import Removable, attach, owner_of
from retom.level import LevelState
from retom.models import find_denoiser, find_entry, layout_of
from retom.protection import read_mask
from retom.settling import settled
from retom.state import MergeState
from retom.summary import Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import nn

    from retom.models.layout import Layout


class Handle:
    """Merging on one denoiser: switch it, change it, ask about it, remove it.

    Made by :func:`apply`. A deep copy of the denoiser carries a copy of its handle, which
    :func:`handle_of` finds.
    """

    # so that a misspelt attribute is an error, and not a setting without effect
    __slots__ = ("__weakref__", "_denoiser", "_layout", "_removables", "_state")

    def __init__(
        self, entry: nn.Module, denoiser: nn.Module, layout: Layout, config: Config
    ) -> None:
        self._denoiser = denoiser
        self._layout = layout
        self._state = MergeState(
            config=config,
            levels={number: LevelState() for number in layout.levels},
            shares_plan=layout.shares_plan,
            seen=dict.fromkeys(layout.levels),
        )
        self._state.set_methods()
        self._removables: list[Removable] = attach(entry, denoiser, layout, self._state, owner=self)
        self._state.set_skips()

    @property
    def config(self) -> Config:
        """What is applied. Change it with :meth:`update`."""
        return self._state.config

    @property
    def enabled(self) -> bool:
        """Whether the denoiser merges; set it to switch merging off and on. Off is bit-exact.

        While it is off, nothing is looked at or checked; switched on again, plans are made anew.

        Raises:
            ConfigError: It is set to something else than True or False.
            AlreadyAppliedError: It is set after the handle was removed.
        """
        return self._state.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._require_applied()
        if type(value) is not bool:  # pyright: ignore[reportUnnecessaryComparison]
            raise ConfigError(f"enabled is True or False; {value!r} was given.")
        if value != self._state.enabled:
            self._state.switch(enabled=value)

    @property
    def applied(self) -> bool:
        """Whether the hooks are in place: True until :meth:`remove`."""
        return bool(self._removables)

    def update(self, **options: object) -> None:
        """Change options of the method or the configuration, for example ``update(ratio=0.3)``.

        What was measured for ``skip="unprofitable"`` is measured again.

        Raises:
            ConfigError: An option is unknown or out of its range; nothing has changed then.
            AlreadyAppliedError: The handle was removed.
        """
        self._require_applied()
        config = settled(self.config.with_options(**options), self._layout)
        self._state.config = config
        self._state.set_skips()
        self.reset()

    def protect(self, mask: object) -> None:
        """Keep the tokens of some places out of merging, until another mask or None is given.

        Args:
            mask: A PIL picture, an array or a tensor of (height, width) at any resolution, white
                or True where tokens must not go, for all pictures of the batch; the mask of an
                inpainting pipeline serves. None protects nothing.

        Raises:
            ConfigError: It is no mask, or the handle's method cannot protect tokens. A mask that
                leaves too few tokens to go is refused by the next call of the denoiser
                (:class:`BudgetError`), before its first layer.
        """
        self._require_applied()
        self._state.protect(None if mask is None else read_mask(mask))

    def set_grid(self, height: int | None, width: int | None = None) -> None:
        """Name the token grid of a denoiser whose arguments tell it by ids alone.

        Needed only where the ids cannot be read: inside a graph that ``torch.compile`` made of the
        whole denoiser after merging was applied, or where ids are not in raster order.

        Args:
            height: Rows of tokens of the picture that is drawn; None reads the ids again.
            width: Columns of tokens.

        Raises:
            ConfigError: The denoiser tells its grid by sizes, or the grid is none.
            BudgetError: The ratio is out of the grid's reach.
        """
        self._require_applied()
        if self._layout.reads_values is None:
            raise ConfigError(
                f"{type(self._denoiser).__name__} tells its grid by the sizes of its arguments in "
                "every call; set_grid is for those that are given ids."
            )
        if height is None and width is None:
            self._state.fixed_grid = None
            return
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise ConfigError(
                "set_grid takes height and width in tokens, two whole numbers of at least 1, or "
                f"None; {height!r} and {width!r} were given."
            )
        grid = Grid(height, width)
        for method in self.config.methods(0):
            method.num_removed(grid)
        self._state.fixed_grid = grid
        self._state.forget()

    def reset(self) -> None:
        """Forget all plans, the clock and the grids seen.

        Never needed between pictures of a pipeline. Needed with ``refresh``, ``alternate`` and
        ``ImportanceToMe`` where the denoiser is called by hand for another picture at a lower
        timestep than the last one's.
        """
        self._state.end(failed=True)
        self._state.protect(self._state.mask)  # other methods: check the mask again
        self._state.set_methods()
        self._state.seen.update(dict.fromkeys(self._layout.levels))
        self._state.read_grids = None
        self._state.calls.clear()

    def remove(self) -> None:
        """Take merging off: outputs are bit-exact as before, no hook or attribute is left.

        Removing twice does nothing.
        """
        for removable in self._removables:
            removable.remove()
        self._removables = []
        self._state.end()
        self._state.forget()
        self._state.read_grids = None
        self._state.calls.clear()
        self._state.profit.forget()

    def summary(self) -> Summary:
        """What merges where: tokens before and after, and the share of self-attention FLOPs saved.

        Layers that ``skip`` leaves un-merged are listed, each with the reason.

        Grids are those of the last call of the denoiser; before the first one, those of the model's
        default size.
        """
        return summarise(
            type(self._denoiser).__name__,
            self.config,
            self._layout,
            enabled=self.enabled and self.applied,
            state=self._state,
            counted=partial(block_flops, self._layout, self._state),
        )

    def __repr__(self) -> str:
        state = "removed" if not self.applied else "on" if self.enabled else "off"
        return f"<retom.Handle {state} on {type(self._denoiser).__name__}: {self.config}>"

    def _require_applied(self) -> None:
        if not self.applied:
            raise AlreadyAppliedError(
                "This handle was removed. Call retom.apply again for a new one."
            )


def apply(
    target: object,
    config: Config | None = None,
    *,
    preset: str | None = None,
    replace: bool = False,
    **options: object,
) -> Handle:
    """Make a diffusion model merge tokens, in place. Nothing else about its use changes.

    Args:
        target: A diffusers pipeline, or its denoiser.
        config: What to merge; the defaults of :class:`Config` if not given.
        preset: Instead of ``config``, the name of one, see :meth:`Config.preset`.
        replace: Whether to replace merging that is already applied. Two pipelines may share one
            denoiser: they then share its merging.
        **options: Options of the method (``ratio=0.5``, ``window=(2, 2)``, ...) or of the
            configuration (``levels="all"``, ...), on top of ``config`` or ``preset``.

    Returns:
        A handle to switch, change, inspect and remove it.

    Raises:
        UnsupportedModelError: Nothing in ``target`` can merge; the message lists what was seen.
        ConfigError: An option is unknown or out of its range, a level does not exist, or the ratio
            is more than the windows can give up at the model's default size (:class:`BudgetError`).
        AlreadyAppliedError: Merging is already applied and ``replace`` is False.

    Note:
        Where ``torch.compile`` is in use, ``torch.compiler.reset()`` is called: a graph compiled
        before would go on running without merging. Everything compiled in the process compiles
        again.

    Example:
        >>> handle = retom.apply(pipe, ratio=0.5)  # doctest: +SKIP
        >>> image = pipe("a red apple").images[0]  # doctest: +SKIP
        >>> handle.remove()  # doctest: +SKIP
    """
    if preset is not None:
        if config is not None:
            raise ConfigError(
                f"config and preset={preset!r} were both given, and either is a whole "
                "configuration. Give one of them, and single options on top of it."
            )
        config = Config.preset(preset)
    if config is not None and not isinstance(config, Config):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"config is a retom.Config; a {type(config).__name__} was given. A method goes by its "
            "name: retom.apply(pipe, method=retom.ReToM(ratio=0.5))."
        )
    config = (config or Config()).with_options(**options)
    denoiser = find_denoiser(target)
    layout = layout_of(denoiser)
    config = settled(config, layout)
    previous = handle_of(denoiser)
    if previous is not None:
        if not replace:
            raise AlreadyAppliedError(
                f"Token merging has already been applied to this {type(denoiser).__name__}: "
                f"{previous!r}. Change it with handle.update(...), remove it with handle.remove(), "
                "or pass replace=True."
            )
        previous.remove()
    return Handle(find_entry(target), denoiser, layout, config)


@contextmanager
def applied(
    target: object,
    config: Config | None = None,
    *,
    preset: str | None = None,
    replace: bool = False,
    **options: object,
) -> Generator[Handle]:
    """Merge inside a ``with`` block, and remove it at the end, also after an exception.

    Takes what :func:`apply` takes. What ``replace=True`` replaces is removed for good, and does not
    come back at the end of the block.
    """
    handle = apply(target, config, preset=preset, replace=replace, **options)
    try:
        yield handle
    finally:
        handle.remove()


def handle_of(target: object) -> Handle | None:
    """The handle of the merging that is applied to ``target``, or None."""
    owner = owner_of(find_denoiser(target))
    return owner if isinstance(owner, Handle) else None
