"""What a block class tells the hooks, as data: one row a class, proved by ``retom.testing``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retom.errors import ConfigError

At = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Along:
    """An argument that has one entry for each token: rotary tables, a mask, modulation.

    At the kept tokens its entries are picked, never averaged. Absent arguments, and those with one
    entry for all tokens, stay as they are.

    Args:
        path: The argument, with dots into what it holds: ``"image_rotary_emb"``,
            ``"image_rotary_emb.0"``, ``"attention_kwargs.attention_mask"``. Where a tuple or list
            is found, such as (cos, sin), each of its tensors is taken.
        axis: Which of its dimensions runs over the tokens.
        at: Where it lines up with the block's tokens: ``first`` entry on the first token, or
            ``last`` on the last, as where text stands in front in the one and not in the other.
        batch: Which dimension is the batch; None where one table serves the whole batch. All
            pictures of a batch then share one plan.
    """

    path: str
    axis: int
    at: At = "first"
    batch: int | None = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """The path, split."""
        return tuple(self.path.split("."))


@dataclass(frozen=True, slots=True)
class Refusal:
    """An argument under which merging would be wrong: a call that brings it is refused.

    Args:
        path: The argument, as in :class:`Along`; attributes of objects count as entries.
        reason: What the message says.
        value: The value that is refused; None for any but None.
    """

    path: str
    reason: str
    value: object = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The path, split."""
        return tuple(self.path.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """One row: how a block class holds its image tokens, and what is aligned with them.

    The block runs on K instead of N image tokens, and each token x gets what the block added to the
    one that it joined: x + U(g(M x) - M x). That is right only if the block is residual in x.

    Args:
        tokens: The argument with the image tokens, (batch, tokens, channels).
        axis: Its token dimension: 1, or 0 for (tokens, batch, channels).
        at: Where the image stands among the tokens: ``first``, or ``last``, after the text. Tokens
            of reference pictures follow those of the picture that is drawn, and never merge.
        output: Which item of an output tuple holds the tokens; None where the output is they.
        rotary: Rotary tables.
        masks: Attention masks; one with two token dimensions has two entries.
        per_token: Anything else with an entry a token.
        ends_with: A mask (batch, tokens) of which tokens are there. Where a call brings it, the
            image is the last of them in each item, which may begin at another token than in others.
        refuse: Arguments under which merging would be wrong.
        unmerged_if: (attribute, reason): blocks that have this attribute, not None, are not
            residual in x and run un-merged.

    Raises:
        ConfigError: ``axis`` or ``at`` is none of those allowed.
    """

    tokens: str = "hidden_states"
    axis: int = 1
    at: At = "first"
    output: int | None = None
    rotary: tuple[Along, ...] = ()
    masks: tuple[Along, ...] = ()
    per_token: tuple[Along, ...] = ()
    ends_with: str | None = None
    refuse: tuple[Refusal, ...] = ()
    unmerged_if: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.axis not in (0, 1):
            raise ConfigError(
                "axis is 1 for tokens of (batch, tokens, channels) or 0 for (tokens, batch, "
                f"channels); {self.axis!r} was given."
            )
        for at in (self.at, *(along.at for along in self.aligned)):
            if at not in ("first", "last"):
                raise ConfigError(f"at is 'first' or 'last'; {at!r} was given.")

    @property
    def aligned(self) -> tuple[Along, ...]:
        """Every argument that is aligned with the tokens."""
        return (*self.rotary, *self.masks, *self.per_token)

    @property
    def shares_plan(self) -> bool:
        """Whether the pictures of a batch have to share one plan."""
        return any(along.batch is None for along in self.aligned)
