"""ReToM: token merging that makes text-to-image diffusion models cheaper to run, without training.

```python
import retom

handle = retom.apply(pipe, ratio=0.5)  # a diffusers pipeline or its denoiser
image = pipe("a red apple").images[0]  # nothing else changes
print(handle.summary())
handle.remove()
```
"""

import typing as _typing

from retom import methods
from retom.config import Config
from retom.errors import (
    AlreadyAppliedError,
    BlockSpecError,
    BudgetError,
    ConfigError,
    MissingExtraError,
    ModelError,
    OutputError,
    RetomError,
    ShapeError,
    UnsupportedModelError,
)
from retom.explanation import Explanation, explain
from retom.grid import Grid
from retom.handle import Handle, applied, apply, handle_of
from retom.methods import ReToM
from retom.models.denoiser import DenoiserSpec
from retom.models.grids import FeatureMap, Ids, Shapes
from retom.models.layout import Timestep
from retom.models.registry import register_block, unregister_block
from retom.models.spec import Along, BlockSpec, Refusal
from retom.plan import Plan
from retom.rules import Rule
from retom.summary import Summary

if _typing.TYPE_CHECKING:
    from retom.benchmarking.bench import bench
    from retom.diagnosis.doctor import doctor
    from retom.evaluation.checking import check
    from retom.tuning.tune import tune

__version__ = "0.1.0"

__all__ = [
    "Along",
    "AlreadyAppliedError",
    "BlockSpec",
    "BlockSpecError",
    "BudgetError",
    "Config",
    "ConfigError",
    "DenoiserSpec",
    "Explanation",
    "FeatureMap",
    "Grid",
    "Handle",
    "Ids",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "Plan",
    "ReToM",
    "Refusal",
    "RetomError",
    "Rule",
    "ShapeError",
    "Shapes",
    "Summary",
    "Timestep",
    "UnsupportedModelError",
    "applied",
    "apply",
    "bench",
    "check",
    "doctor",
    "explain",
    "handle_of",
    "methods",
    "register_block",
    "tune",
    "unregister_block",
]

_LATER = {
    "bench": "retom.benchmarking.bench",
    "check": "retom.evaluation.checking",
    "doctor": "retom.diagnosis.doctor",
    "tune": "retom.tuning.tune",
}
"""Functions that are loaded when they are first named, so that importing retom stays light."""


def __getattr__(name: str) -> object:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'retom' has no attribute {name!r}")
