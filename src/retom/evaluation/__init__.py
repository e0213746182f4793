"""Evaluation of merging methods on a model: `retom eval`, `retom check` and what they are made of.

``evaluate`` compares methods, ratios and scopes on prompts and seeds; ``check`` is the short form
on a user's own pipeline. Nothing is imported here, so that each part loads only what it needs:
``from retom.evaluation.study import evaluate`` and ``retom.check``.
"""
