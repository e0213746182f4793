"""Transformers (SD3, Flux, Qwen-Image): whole blocks merge, in ``patches_replace["dit"]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retom import Along, BlockSpec, ConfigError, ShapeError

from .running import KEY, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

MASKS = (Along("attn_mask", axis=-1, at="last"), Along("attn_mask", axis=-2, at="last"))


@dataclass(frozen=True)
class MergeBlock:
    """In place of a block: the block itself on merged image tokens, and what it adds spread back.

    Attributes:
        patch: Latents a side of a token.
        single: Whether the block takes text and image as one sequence.
        previous: What another node had put in the block's place; it gets the merged tokens.
    """

    patch: int
    single: bool
    previous: Any = None

    def __call__(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        """ComfyUI's replacement of a block: its arguments, and how to run the original."""
        block: Callable[[dict[str, Any]], dict[str, Any]] = extra["original_block"]
        if self.previous is not None:
            previous, original = self.previous, block

            def block(args: dict[str, Any]) -> dict[str, Any]:
                return previous(args, {**extra, "original_block": original})

        options = args.get("transformer_options")
        if options is None:
            raise ConfigError(
                "This ComfyUI does not hand transformer_options to the blocks of this model, by "
                "which ReToM knows the picture's size. Update ComfyUI."
            )
        running: Running | None = options.get(KEY)
        if running is None:
            return block(args)
        grid = running.grid(self.patch)
        if not running.call.merges_on(running.level_of(grid)):
            return block(args)
        check_modulation(args.get("vec"), args["img"].shape[0])
        references = self._references(running, args, grid.num_tokens)
        args = _with_batched_mask(args)
        given: dict[str, Any] = {}

        def run(merged: dict[str, Any]) -> Tensor:
            given.update(block(merged))
            return given["img"]

        spec = self._spec(args)
        image = running.call.run_block(spec, args, run, grid, references=references)
        return {**given, "img": image}

    def _references(self, running: Running, args: dict[str, Any], num_tokens: int) -> int:
        """Tokens of reference pictures; the blocks that see text and image apart tell."""
        tokens = args["img"].shape[1]
        if not self.single:
            running.text = args["txt"].shape[1]
            running.references = tokens - num_tokens
        if running.references is None or running.text is None:
            raise ConfigError(
                "ReToM met a single block before any double block, and cannot tell where the text "
                "ends. Another node leaves blocks out; apply it without ReToM."
            )
        if running.references < 0:
            raise ShapeError(
                f"A block got {tokens} image tokens where the picture alone has {num_tokens}. "
                "Another node changes the tokens; leave one of them out."
            )
        return running.references

    def _spec(self, args: dict[str, Any]) -> BlockSpec:
        at = "last" if self.single else "first"
        text = 0 if self.single else args["txt"].shape[1]
        rotary = rotary_of("pe", args.get("pe"), text + args["img"].shape[1])
        return BlockSpec(tokens="img", at=at, rotary=rotary, masks=MASKS)


def rotary_of(name: str, table: Tensor | None, tokens: int) -> tuple[Along, ...]:
    """Which dimension of a rotary table runs over the tokens; it differs between versions."""
    if table is None:
        return ()
    for axis in (1, 2):
        if table.shape[axis] == tokens:
            return (Along(name, axis=axis, at="last"),)
    raise ShapeError(
        f"A block of {tokens} tokens got a rotary table of shape {tuple(table.shape)}, in which "
        "ReToM finds no dimension of the tokens. This version of the model is not known to it."
    )


def check_modulation(vec: Any, batch: int) -> None:
    """Refuse modulation that differs between the tokens of a picture."""
    for tensor in _tensors(vec):
        if tensor.shape[0] not in (1, batch) or (tensor.ndim == 3 and tensor.shape[1] != 1):
            raise ConfigError(
                "ReToM cannot merge here: this model modulates the tokens of reference pictures "
                "by another timestep (reference_latents_method index_timestep_zero), and says by "
                "position which they are. Use another method for the references."
            )


def _tensors(nest: Any) -> Iterator[Tensor]:
    if nest is None:
        return
    if isinstance(nest, (tuple, list)):
        for item in nest:
            yield from _tensors(item)
    elif hasattr(nest, "shape"):
        yield nest
    else:
        yield from _tensors(list(vars(nest).values()))


def _with_batched_mask(args: dict[str, Any]) -> dict[str, Any]:
    """A mask of (queries, keys) gets a batch dimension, as plans differ between pictures."""
    mask = args.get("attn_mask")
    if mask is None or mask.ndim > 2:
        return args
    return {**args, "attn_mask": mask[None]}
