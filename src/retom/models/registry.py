"""The rows in use: those shipped, and those that users register for models of their own."""

from __future__ import annotations

from retom.errors import ConfigError
from retom.models.denoiser import DenoiserSpec
from retom.models.rows import SHIPPED_BLOCKS, SHIPPED_DENOISERS
from retom.models.spec import BlockSpec

BLOCKS: dict[str, BlockSpec] = dict(SHIPPED_BLOCKS)
"""Rows of block classes by their names."""

DENOISERS: dict[str, DenoiserSpec] = dict(SHIPPED_DENOISERS)
"""Rows of transformers by the names of their classes."""


def register_block(
    name: str,
    spec: BlockSpec,
    *,
    denoiser: str | None = None,
    denoiser_spec: DenoiserSpec | None = None,
    replace: bool = False,
) -> None:
    """Teach retom a transformer block, so that :func:`retom.apply` merges in it.

    Prove the row with :func:`retom.testing.check_block_spec`.

    Args:
        name: Name of the block's class; it holds for classes derived from it as well.
        spec: How the block holds its tokens.
        denoiser: Name of the class of the denoiser with these blocks, where retom has no row of it.
        denoiser_spec: How that denoiser tells grid and noise; by default a feature map
            ``hidden_states`` in patches of ``config.patch_size``, and ``timestep`` from 1000 to 0.
        replace: Whether a row of that name may be replaced.

    Raises:
        ConfigError: There is such a row already and ``replace`` is False; or a name is no name of a
            class, or a row no row.

    Example:
        >>> retom.register_block("MyBlock", retom.BlockSpec(output=1), denoiser="MyTransformer")
        >>> retom.unregister_block("MyBlock", denoiser="MyTransformer")
    """
    _check("name", name, str, "the name of the block's class")
    _check("spec", spec, BlockSpec, "a retom.BlockSpec")
    if denoiser is not None:
        _check("denoiser", denoiser, str, "the name of the denoiser's class")
    elif denoiser_spec is not None:
        raise ConfigError(
            "denoiser_spec says how a denoiser tells grid and noise, but not which: pass the name "
            "of its class as denoiser too."
        )
    if denoiser_spec is not None:
        _check("denoiser_spec", denoiser_spec, DenoiserSpec, "a retom.DenoiserSpec")
    taken = [n for n, rows in ((name, BLOCKS), (denoiser, DENOISERS)) if n in rows]
    if taken and not replace:
        raise ConfigError(
            f"There is a row of {' and '.join(map(str, taken))} already. Pass replace=True to "
            "replace it."
        )
    BLOCKS[name] = spec
    if denoiser is not None:
        DENOISERS[denoiser] = denoiser_spec or DenoiserSpec()


def _check(argument: str, value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind) or value == "":
        raise ConfigError(f"{argument} is {what}; {value!r} was given.")


def unregister_block(name: str, *, denoiser: str | None = None) -> None:
    """Forget what :func:`register_block` taught; a shipped row that it replaced comes back.

    Raises:
        ConfigError: There is no row of that name.
    """
    for key, rows, shipped in (
        (name, BLOCKS, SHIPPED_BLOCKS),
        (denoiser, DENOISERS, SHIPPED_DENOISERS),
    ):
        if key is None:
            continue
        if key not in rows:
            raise ConfigError(f"There is no row of {key}.")
        rows.pop(key)
        if key in shipped:
            rows[key] = shipped[key]  # type: ignore[assignment]
