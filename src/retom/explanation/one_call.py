"""The arguments of one call of a model at a size: what its class, its folder and the user say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retom.errors import ConfigError
from retom.explanation.inputs import family_of, latent_size, make_inputs

if TYPE_CHECKING:
    from retom.explanation.subject import Subject


def one_call(
    subject: Subject,
    height: int | None = None,
    width: int | None = None,
    text_tokens: int | None = None,
    *,
    batch: int = 1,
) -> tuple[tuple[int, int], tuple[int, str], dict[str, Any]]:
    """Size in pixels, length of the text and why, and the arguments of the call.

    Args:
        subject: What is called.
        height: Of the picture in pixels; the model's default if neither side is given.
        width: Of the picture in pixels.
        text_tokens: Length of the text; the model's own if not given.
        batch: Pictures in the call.

    Returns:
        The arguments are tensors on the meta device, positions on the CPU.

    Raises:
        ConfigError: The picture does not divide into tokens, or nothing tells its size.
        UnsupportedModelError: How to call the model is not known.
    """
    family = family_of(subject.denoiser)
    height, width = width if height is None else height, height if width is None else width
    if height is None or width is None:
        if subject.size is None:
            raise ConfigError(
                f"{subject.name} names no size of its own; give height and width in pixels."
            )
        height, width = subject.size
    if any(type(side) is not int for side in (height, width)):
        raise ConfigError(
            f"height and width are whole numbers of pixels; {height!r} and {width!r} were given."
        )
    stride = subject.pixels_per_latent or family.pixels_per_latent
    if text_tokens is not None:
        if type(text_tokens) is not int or text_tokens < 1:
            raise ConfigError(
                f"text_tokens is a whole number of at least 1; {text_tokens!r} was given."
            )
        text = text_tokens, "given"
    elif subject.text_tokens is not None:
        text = subject.text_tokens, subject.text_tokens_from
    else:
        text = family.text_tokens, family.text_tokens_from
    latent = latent_size(family, height, width, stride)
    return (
        (height, width),
        text,
        make_inputs(subject.denoiser, family, latent, text[0], batch=batch),
    )
