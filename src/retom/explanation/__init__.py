"""What a model would gain from merging, counted before it runs, without its weights."""

from retom.explanation.explain import explain
from retom.explanation.known import known_models
from retom.explanation.result import Ceiling, Explanation, Flops, LayerCost

__all__ = ["Ceiling", "Explanation", "Flops", "LayerCost", "explain", "known_models"]
