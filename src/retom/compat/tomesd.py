"""``tomesd.apply_patch`` on top of retom: change the import, and see what else changes.

```python
from retom.compat import tomesd

tomesd.apply_patch(pipe, ratio=0.5)
tomesd.remove_patch(pipe)
```

The names and defaults of the arguments are those of tomesd 0.1.3 (Bolya and Hoffman 2023); what
merges is ReToM. ``retom.methods.ToMe`` is tomesd's own rule, for those who want that.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeVar

from retom.errors import ConfigError
from retom.handle import apply, handle_of
from retom.models import find_denoiser, layout_of

if TYPE_CHECKING:
    from torch import nn

    from retom.models.layout import Layout

Target = TypeVar("Target")


def apply_patch(  # noqa: PLR0913 - the arguments are tomesd's
    model: Target,
    ratio: float = 0.5,
    max_downsample: int = 1,
    sx: int = 2,
    sy: int = 2,
    use_rand: bool = True,  # noqa: FBT001, FBT002 - positional in tomesd
    merge_attn: bool = True,  # noqa: FBT001, FBT002
    merge_crossattn: bool = False,  # noqa: FBT001, FBT002
    merge_mlp: bool = False,  # noqa: FBT001, FBT002
) -> Target:
    """Merge tokens with the arguments of tomesd, and warn once of what is different here.

    Args:
        model: A diffusers pipeline or its UNet; one that is patched already is patched anew, as in
            tomesd.
        ratio: Fraction of the tokens to remove; windows of sx x sy can give up 1 - 1 / (sx sy).
        max_downsample: Merge on grids that are smaller than the latent by this factor at most: 1,
            2, 4 or 8.
        sx: Width of the windows in tokens.
        sy: Height of the windows in tokens.
        use_rand: Has no effect: nothing is drawn at random here.
        merge_attn: Must be True.
        merge_crossattn: Must be False: text attention is not merged here.
        merge_mlp: Whether the MLP runs on merged tokens as well.

    Returns:
        ``model``.

    Raises:
        ConfigError: An argument asks for what is not done here, or is out of its range.
        UnsupportedModelError: Nothing in ``model`` can merge.
    """
    if max_downsample not in (1, 2, 4, 8):
        raise ConfigError(f"max_downsample is 1, 2, 4 or 8; {max_downsample!r} was given.")
    if not merge_attn or merge_crossattn:
        raise ConfigError(
            "retom merges for self-attention, with merge_mlp=True also for the MLP, and never for "
            "text attention, where it gains nothing; merge_attn=True and merge_crossattn=False are "
            f"possible, and {merge_attn!r} and {merge_crossattn!r} were given. Whole blocks merge "
            "with retom.apply(model, scope='block')."
        )
    _check_reach(ratio, sx, sy)
    denoiser = find_denoiser(model)
    levels, changes = _levels(denoiser, layout_of(denoiser), max_downsample)
    changes.append(
        "tokens join a representative of a window beside them instead of any token of the picture, "
        "and weigh in attention as much as they are"
    )
    if use_rand:
        changes.append("nothing is drawn at random, so use_rand has no effect")
    apply(
        model,
        replace=True,
        ratio=ratio,
        window=(sy, sx),
        levels=levels,
        scope="attention+mlp" if merge_mlp else "attention",
    )
    warnings.warn(
        "Pictures will differ from those of tomesd: " + "; ".join(changes) + ".", stacklevel=2
    )
    return model


def remove_patch(model: Target) -> Target:
    """Take merging off; a model that is not patched stays as it is, as in tomesd.

    Returns:
        ``model``.
    """
    handle = handle_of(model)
    if handle is not None:
        handle.remove()
    return model


def _check_reach(ratio: object, sx: object, sy: object) -> None:
    """Tomesd merges less than it was asked to, and says nothing."""
    if not isinstance(ratio, (int, float)) or type(sx) is not int or type(sy) is not int:
        return  # applying says what is wrong
    area = max(sx * sy, 1)
    if 1 - 1 / area < ratio < 1:
        raise ConfigError(
            f"Windows of sx={sx} and sy={sy} can give up {1 - 1 / area:g} of the tokens, and ratio "
            f"{ratio:g} was given, of which tomesd would merge no more either. Raise sx or sy, or "
            "lower the ratio; retom.apply(model, ratio=...) chooses windows that can."
        )


def _levels(
    denoiser: nn.Module, layout: Layout, max_downsample: int
) -> tuple[tuple[int, ...], list[str]]:
    """Levels of grids that are large enough, and what there is to say of them."""
    size = getattr(getattr(denoiser, "config", None), "sample_size", None)
    if layout.default_grids is None or size is None or not layout.grids_of_size:
        raise ConfigError(
            f"{type(denoiser).__name__} does not say which grids are how much smaller than its "
            "latent, and max_downsample needs that. Use retom.apply(model, levels=...)."
        )
    side = size if isinstance(size, int) else max(size)
    factor = {
        level: round(side / max(grid.height, grid.width))
        for level, grid in layout.default_grids.items()
    }
    levels = tuple(level for level in layout.levels if factor[level] <= max_downsample)
    if levels:
        return levels, []
    nearest = factor[0]
    return (0,), [
        f"no attention is on a grid smaller than the latent by {max_downsample} at most, where "
        f"tomesd would merge nothing; the largest grid, smaller by {nearest}, merges"
    ]
