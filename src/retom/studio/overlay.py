"""What merged, drawn over the picture, with its legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from retom import viz
from retom.errors import ConfigError
from retom.studio import stage
from retom.studio.request import shortened, whole

if TYPE_CHECKING:
    from PIL.Image import Image

    from retom.studio.studio import Looked
    from retom.viz import Map

HINT = (
    '<p class="retom-hint">Which tokens became one, in each layer and step: groups with the token '
    "that stands for them, windows, similarity, error. The picture is drawn once more for it, and "
    "recorded.</p>"
)
_OF_WINDOWS = {"windows", "coherence"}


def maps_of(looked: Looked) -> list[str]:
    """Maps that there are for the method."""
    has_windows = looked.recording.looks[0].window is not None
    return [name for name in viz.MAPS if has_windows or name not in _OF_WINDOWS]


def layers_of(looked: Looked) -> list[tuple[str, str]]:
    """A short label and the name of each layer that merged."""
    return [(_label(name), name) for name in looked.recording.layers]


def of(looked: Looked, show: object, layer: object, step: object) -> tuple[Image, str]:
    """One map over the picture, and what it means.

    Args:
        looked: What was recorded.
        show: Which of :data:`retom.viz.MAPS`.
        layer: Name of a layer that merged.
        step: Call of the denoiser, from 1.

    Raises:
        ConfigError: There is no such map, layer or step, or nothing merges in it.
    """
    call = whole("step", step, 1, looked.recording.calls) - 1
    name = str(shortened(layer))
    merged = [look.call for look in looked.recording.of_layer(name)]
    if call not in merged:
        steps = ", ".join(str(other + 1) for other in merged)
        raise ConfigError(
            f"These settings leave step {call + 1} whole: nothing merges in it. Steps that merge: "
            f"{steps}."
        )
    look = looked.recording.look(name, call)
    drawing = viz.drawn(look, cast("Map", shortened(show)))
    words = (
        f"{look.grid.num_tokens} tokens to {look.num_kept} · {look.grid} grid · "
        f"step {look.call + 1} of {looked.recording.calls}"
    )
    return viz.to_picture(drawing, looked.image), stage.legend(drawing, words)


def _label(name: str) -> str:
    words = name.removesuffix(".attn1").replace(".transformer_blocks.", " · block ")
    return words.replace(".attentions.", " · attention ")
