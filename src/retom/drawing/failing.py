"""Say in a sentence that a pipeline failed while it drew."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from retom.errors import ModelError, RetomError, first_line

if TYPE_CHECKING:
    from collections.abc import Generator

# What a pipeline with settings that do not fit each other raises, besides the builtin errors'
# own subclasses. Anything else, such as a caller's wish to stop, passes through.
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_NO_MEMORY = re.compile("can't allocate memory|not enough memory|Storage size calculation overflow")
"""What torch says on a CPU, in an error without a class of its own."""


@contextmanager
def failures_of(model: str) -> Generator[None]:
    """Turn what a pipeline raises in a ``with`` block into an error that names it.

    A folder can load and still not draw: a scheduler, for one, reads its settings only when the
    first picture begins.

    Args:
        model: Name of the model, for the sentence.

    Raises:
        ModelError: The pipeline failed; the cause is chained. Errors of retom's own pass through.
        torch.OutOfMemoryError: It failed because the memory is full, of whatever device.
    """
    try:
        yield
    except (RetomError, torch.OutOfMemoryError):
        raise
    except MemoryError as error:
        raise torch.OutOfMemoryError(str(error)) from error
    except _FAILURES as error:
        if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)):
            raise torch.OutOfMemoryError(str(error)) from error
        reason = first_line(error) or "no reason given"
        raise ModelError(
            f"{model} failed while it drew ({type(error).__name__}: {reason}); check the settings "
            "in its folder, its scheduler's first."
        ) from error
