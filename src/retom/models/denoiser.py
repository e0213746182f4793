"""What a transformer's class tells as a whole: where its grid and its noise level are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from retom.models.grids import FeatureMap, GridRule
from retom.models.layout import Timestep


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserSpec:
    """One row: a transformer class.

    Args:
        grid: How the token grid is read from its arguments.
        timestep: How it is told the noise level.
        distilled_timestep: The same where its configuration has ``guidance_embeds``, if otherwise.
        packed: The argument whose tokens are those of the picture and then those of its references;
            None where there are no references.
        packed_last: Whether the picture's tokens are the last of ``packed`` instead of the first.
        context: The argument with a list of feature maps of reference pictures, whose tokens follow
            those of the picture in every block; None where there is none.
        picture: The argument with the picture that is drawn, where neither ``grid`` nor ``packed``
            reads it.
        without: First parts of the names of modules whose blocks hold no image tokens.
        unless: A switch of its configuration with which nothing may merge, and why.
        family: What people call it, for the documents.
    """

    grid: GridRule = field(default_factory=FeatureMap)
    timestep: Timestep = field(default_factory=Timestep)
    distilled_timestep: Timestep | None = None
    packed: str | None = None
    packed_last: bool = False
    context: str | None = None
    picture: str | None = None
    without: tuple[str, ...] = ()
    unless: tuple[str, str] | None = None
    family: str = ""
