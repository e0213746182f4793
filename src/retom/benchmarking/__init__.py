"""How fast and how large: `retom bench`, and what it is made of.

Nothing is imported here, so that each part loads only what it needs: ``retom.bench`` and
``from retom.benchmarking.scaling import scale``.
"""
