"""Options of a configuration that do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.methods import Method


def check_against_scope(
    scope: str, *, score: str, size_weighted: object, methods: Sequence[Method]
) -> None:
    """Refuse options that would do nothing in a scope, or cannot be had there."""
    if size_weighted is True and scope == "block":
        raise ConfigError(
            "size_weighted changes self-attention alone and is not offered for "
            "scope='block'. Use scope='attention', or size_weighted=False."
        )
    if score == "keys" and scope == "block":
        raise ConfigError(
            "score='keys' reads the input of self-attention, which scope='block' merges before. "
            "Use score='input', or scope='attention' on a model that takes it."
        )
    if scope == "kv" and any(
        getattr(method, "unmerge", "copy") not in ("auto", "copy") for method in methods
    ):
        raise ConfigError(
            "scope='kv' merges keys and values alone, and nothing is un-merged. Use "
            "unmerge='auto', or another scope."
        )
