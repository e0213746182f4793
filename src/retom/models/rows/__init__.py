"""The rows that come with retom: facts about the classes of diffusers, as data.

A file a group of families: ``crossed`` for image tokens alone, with text in attention only;
``joint`` for image and text side by side; ``packed`` for the relatives of Flux; ``sequences`` for
one sequence of both; ``controlnets`` for ControlNets of these. ``unsupported`` says why the others
have no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.models.rows import controlnets, crossed, joint, packed, sequences

if TYPE_CHECKING:
    from retom.models.denoiser import DenoiserSpec
    from retom.models.spec import BlockSpec

_GROUPS = (crossed, joint, packed, sequences, controlnets)

SHIPPED_BLOCKS: dict[str, BlockSpec] = {k: v for g in _GROUPS for k, v in g.BLOCKS.items()}
SHIPPED_DENOISERS: dict[str, DenoiserSpec] = {k: v for g in _GROUPS for k, v in g.DENOISERS.items()}

LINEAR_ATTENTION = frozenset({"SanaTransformerBlock"})
"""Blocks whose MLP looks at the picture's neighbourhoods, and whose self-attention (``attn1``) is
linear: merging is possible around the self-attention alone."""
