"""ReToM: token merging that makes text-to-image diffusion models cheaper to run, without training.

```python
import retom

handle = retom.apply(pipe, ratio=0.5)  # a diffusers pipeline or its denoiser
image = pipe("a red apple").images[0]  # nothing else changes
print(handle.summary())
handle.remove()
```
"""

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
    "handle_of",
    "methods",
    "register_block",
    "unregister_block",
]
