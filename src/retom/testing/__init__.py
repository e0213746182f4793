"""Proving a :class:`retom.BlockSpec` on a small model: for users' own blocks, and for retom's rows.

Four things are looked at, each of which catches a mistake that gets past the others:

- *permutation*: the image tokens of every block are put in a random order on entry and back on
  exit, with everything that is aligned with them. The model's output stays the same if and only if
  the row names all of it.
- *residual*: a block whose parameters are all zero gives its tokens back. Only then may its
  un-merged output be added to the full tokens.
- *place*: with all blocks of zeros, so that tokens pass them as they are, another picture changes
  every token where the row says that the image stands, and no other.
- *merging*: a real run with fewer tokens is finite, of the right shape, and reaches every block.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from retom.calls import Args, Kwargs, read_path
from retom.config import Config
from retom.errors import BlockSpecError
from retom.handle import Handle, applied
from retom.methods import ReToM
from retom.span import find_span
from retom.testing.permutation import Permutation
from retom.testing.place import check_place
from retom.testing.runs import plain_run, randomise_zeros, relative, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from retom.models.layout import Site


@dataclass(frozen=True, slots=True)
class Proof:
    """What :func:`check_block_spec` measured.

    Attributes:
        blocks: Blocks that merged.
        unmerged: Blocks that run un-merged because they are not residual in their input.
        permutation_error: Relative L2 error of the model's output under permutation.
        residual_error: Largest relative L2 error of a block of zeros against its input.
        tokens: Image tokens, N.
        kept: Image tokens in the merging run, K.
        changed: Relative L2 distance between merged and un-merged output, for information.
    """

    blocks: int
    unmerged: int
    permutation_error: float
    residual_error: float
    tokens: int
    kept: int
    changed: float


@torch.no_grad()
def check_block_spec(
    denoiser: nn.Module,
    arguments: Mapping[str, Any],
    *,
    ratio: float = 0.5,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Proof:
    """Prove the rows of a denoiser's blocks on one call.

    The model is copied, in float32; parameters that are all zero are made random, because gates of
    zero would hide every mistake. Give several blocks, batches above 1, grids that are not square,
    and masks that are not all ones: what the call does not bring is not proved.

    Args:
        denoiser: A small model of the class, with random weights.
        arguments: Keyword arguments of one call of it, in float32.
        ratio: Fraction of the tokens to remove in the merging run.
        tolerance: Largest relative L2 error. Sums in another order cost about 1e-6.
        seed: Of the permutation and of parameters that were zero.

    Returns:
        What was measured.

    Raises:
        BlockSpecError: A row does not describe its block; the message says which check failed.
        UnsupportedModelError: retom finds no block in the model.
    """
    model = copy.deepcopy(denoiser).float().eval()
    randomise_zeros(model, seed)
    plain, calls = plain_run(model, arguments)
    config = Config(method=Permutation(seed=seed), scope="block", levels="all")
    with applied(model, config) as handle:
        shuffled = run(model, arguments)
        _check_reached(handle)
        layout = handle._layout
    permutation_error = relative(shuffled, plain)
    if not permutation_error <= tolerance:
        raise BlockSpecError(
            f"Permuting the image tokens of every block changed the output by "
            f"{permutation_error:.1e}, more than {tolerance:.0e}: something that is aligned with "
            "the tokens is missing in the row, or stands along another axis or at another end."
        )
    tokens, kept, references, merged, sites = _merging_run(model, arguments, ratio)
    if merged.shape != plain.shape or not bool(merged.isfinite().all()):
        raise BlockSpecError(
            f"Merging gave an output of shape {tuple(merged.shape)}, finite: "
            f"{bool(merged.isfinite().all())}; un-merged it is {tuple(plain.shape)}."
        )
    residual_error = max(
        _residual_error(site, calls[site.block], tokens, references) for site in sites
    )
    if not residual_error <= tolerance:
        raise BlockSpecError(
            "A block whose parameters are all zero does not give its tokens back (relative error "
            f"{residual_error:.1e}): it is not residual in them, and adding its un-merged output "
            "to the full tokens would be wrong. Name it with unmerged_if."
        )
    check_place(model, arguments, sites, layout, (tokens, references))
    return Proof(
        blocks=len(sites),
        unmerged=len(layout.unmerged),
        permutation_error=permutation_error,
        residual_error=residual_error,
        tokens=tokens,
        kept=kept,
        changed=relative(merged, plain),
    )


def _merging_run(
    model: nn.Module, arguments: Mapping[str, Any], ratio: float
) -> tuple[int, int, int, Tensor, tuple[Site, ...]]:
    """Merge in earnest, and see for every block that as many tokens went as were to go."""
    reached: dict[str, int] = {}

    def count(site: Site) -> Any:  # noqa: ANN401 - a hook
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert site.spec is not None
            tokens = read_path(site.parameters, args, kwargs, (site.spec.tokens,))
            reached[site.name] = cast("Tensor", tokens).shape[site.spec.axis]

        return hook

    with applied(model, Config(method=ReToM(ratio=ratio), scope="block", levels="all")) as handle:
        sites = handle._layout.sites
        before = _counted(sites, count, lambda: _run_off(handle, model, arguments), reached)
        output: list[Tensor] = []
        after = _counted(sites, count, lambda: output.append(run(model, arguments)), reached)
        grid, references = handle._state.seen[0], handle._state.references
        assert grid is not None
        removed = handle.config.method.num_removed(grid)
    wrong = [n for n in before if before[n] - after[n] != removed]
    if wrong or not removed:
        raise BlockSpecError(
            f"{removed} tokens were to go, but not so many went in "
            f"{', '.join(wrong) or 'any block'}."
        )
    return grid.num_tokens, grid.num_tokens - removed, references, output[0], sites


def _counted(
    sites: tuple[Site, ...],
    count: Callable[[Site], Any],
    act: Callable[[], None],
    reached: dict[str, int],
) -> dict[str, int]:
    hooks = [s.block.register_forward_pre_hook(count(s), with_kwargs=True) for s in sites]
    try:
        reached.clear()
        act()
        return dict(reached)
    finally:
        for hook in hooks:
            hook.remove()


def _run_off(handle: Handle, model: nn.Module, arguments: Mapping[str, Any]) -> None:
    handle.enabled = False
    run(model, arguments)
    handle.enabled = True


def _check_reached(handle: Handle) -> None:
    missed = [site.name for site in handle._layout.sites if site.name not in handle._state.calls]
    if missed:
        raise BlockSpecError(
            f"{', '.join(missed)} did not merge in this call. If no image tokens pass through it, "
            "leave it out with DenoiserSpec(without=...)."
        )


def _residual_error(site: Site, call: tuple[Args, Kwargs], tokens: int, references: int) -> float:
    """How far a block of zeros is from giving its image tokens back."""
    assert site.spec is not None
    for parameter in site.block.parameters():
        parameter.zero_()
    given = cast("Tensor", read_path(site.parameters, *call, (site.spec.tokens,)))
    total = given.shape[site.spec.axis]
    span = find_span(site.spec, site.parameters, call, tokens, references)
    output = site.block(*call[0], **call[1])
    if site.spec.output is not None and not isinstance(output, Tensor):
        output = output[site.spec.output]
    found = output.transpose(0, 1) if site.spec.axis == 0 else output
    assert found.shape[1] == total
    found = span.arranged(found)
    return relative(found[:, span.start : span.start + tokens], span.image)


__all__ = ["Permutation", "Proof", "check_block_spec"]
