"""What can go wrong, as a small tree.

```
RetomError
├── ConfigError            (ValueError)  an option that is unknown or out of its range
│   └── BudgetError                      a ratio that the windows of a grid cannot reach
├── BlockSpecError         (AssertionError) a row that does not describe its block
├── ShapeError             (ValueError)  tokens and grid disagree
├── MetricError           (ValueError)  samples that a metric cannot measure
├── UnsupportedModelError  (TypeError)   nothing in this object can merge tokens
├── AlreadyAppliedError    (RuntimeError) merging is already on, or the handle is spent
├── ModelError                           a pipeline cannot be found, loaded or drawn with
├── OutputError            (OSError)     a file cannot be written where the user wants it
└── MissingExtraError      (ImportError) packages of an extra are not installed
```

Every message is a sentence: what was given, what is allowed, what to do next.
"""


class RetomError(Exception):
    """Base of every error that retom raises on purpose."""


class ConfigError(RetomError, ValueError):
    """An option is unknown, of the wrong type, or out of its range."""


class BudgetError(ConfigError):
    """The ratio asks for more tokens than the windows of a grid can give up."""


class BlockSpecError(RetomError, AssertionError):
    """A row of :class:`retom.BlockSpec` does not describe its block."""


class ShapeError(RetomError, ValueError):
    """A tensor does not have the tokens that its grid or plan speaks of."""


class MetricError(RetomError, ValueError):
    """Samples that a metric cannot measure: too few, not comparable, or without variance."""


class UnsupportedModelError(RetomError, TypeError):
    """Nothing in the given object is a place where retom can merge tokens."""


class AlreadyAppliedError(RetomError, RuntimeError):
    """Merging is already applied to this denoiser, or this handle was removed."""


class ModelError(RetomError):
    """A model cannot be found or loaded, or is not a text-to-image pipeline."""


class OutputError(RetomError, OSError):
    """A file cannot be written where the user wants it."""


class MissingExtraError(RetomError, ImportError):
    """Packages of an optional extra are not installed."""


def first_line(error: BaseException) -> str:
    """What another library's error says first, without its full stop; empty if it says nothing.

    :meta private:
    """
    return str(error).strip().split("\n")[0].rstrip(".")
