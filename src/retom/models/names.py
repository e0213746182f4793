"""Recognising classes by name, so that no model library is loaded and absent ones do no harm."""

from __future__ import annotations

import inspect


def class_names(module: object) -> tuple[str, ...]:
    """Names of the module's class and of all its bases, its own first."""
    return tuple(cls.__name__ for cls in type(module).__mro__)


def forward_parameters(module: object) -> tuple[str, ...]:
    """Names of the parameters of the class's forward in order, without self."""
    forward = inspect.signature(type(module).forward)  # type: ignore[attr-defined]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in forward.parameters.values() if p.kind in positional)[1:]
