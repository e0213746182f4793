"""Lumina 2 and Z-Image: no patch point inside, so layers are object patches of the MODEL.

ComfyUI puts an object patch into the module when it loads the patched model and takes it out
again when it loads another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from retom import BlockSpec, ConfigError, ShapeError

from .blocks import rotary_of
from .running import KEY, Running

if TYPE_CHECKING:
    from torch import Tensor


class MergedLayer(nn.Module):
    """A layer of NextDiT that runs on merged image tokens.

    It shares the layer's parameters and modules under the same names, so that weights load, move
    and take LoRA as before.

    Args:
        layer: The layer.
        patch: Latents a side of a token.
        multiple: The image's tokens are filled up to a multiple of this.
    """

    def __init__(self, layer: nn.Module, patch: int, multiple: int) -> None:
        super().__init__()
        self.__dict__["_merged_layer"] = layer  # not a submodule: names stay as they are
        self._parameters = layer._parameters
        self._buffers = layer._buffers
        self._modules = layer._modules
        self.training = layer.training
        self.patch = patch
        self.multiple = multiple

    def __getattr__(self, name: str) -> Any:
        """What the layer itself has."""
        return getattr(self.__dict__["_merged_layer"], name)

    def forward(
        self,
        x: Tensor,
        x_mask: Tensor | None,
        freqs_cis: Tensor,
        adaln_input: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Text, image and filling (B, S, C) through the layer."""
        layer = self.__dict__["_merged_layer"]
        running: Running | None = (kwargs.get("transformer_options") or {}).get(KEY)
        if running is None:
            return layer(x, x_mask, freqs_cis, adaln_input, **kwargs)
        grid = running.grid(self.patch)
        if not running.call.merges_on(running.level_of(grid)):
            return layer(x, x_mask, freqs_cis, adaln_input, **kwargs)
        self._check(x, x_mask, kwargs, grid.num_tokens)
        rotary = rotary_of("freqs_cis", freqs_cis, x.shape[1])
        arguments = {"x": x, "freqs_cis": freqs_cis}

        def run(merged: dict[str, Any]) -> Tensor:
            return layer(merged["x"], x_mask, merged["freqs_cis"], adaln_input, **kwargs)

        spec = BlockSpec(tokens="x", at="last", rotary=rotary)
        filling = -grid.num_tokens % self.multiple
        return running.call.run_block(spec, arguments, run, grid, references=filling)

    def _check(
        self, x: Tensor, mask: Tensor | None, kwargs: dict[str, Any], num_tokens: int
    ) -> None:
        if mask is not None:
            raise ConfigError(
                "ReToM cannot merge here: this version of the model masks its sequence, with the "
                "image at another place in each item of the batch. Update ComfyUI, or draw one "
                "picture at a time without a negative prompt of another length."
            )
        if kwargs.get("timestep_zero_index") is not None:
            raise ConfigError(
                "ReToM cannot merge here: reference pictures are modulated by another timestep, "
                "and the model says by position which tokens they are. Use no references."
            )
        if x.shape[1] < num_tokens:
            raise ShapeError(
                f"A layer got {x.shape[1]} tokens where the picture alone has {num_tokens}. "
                "Another node changes the tokens; leave one of them out."
            )
