"""The arguments of one call of a model at a size: what its class, its folder and the user say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from retom.errors import ConfigError, UnsupportedModelError
from retom.explanation.families import FAMILIES
from retom.explanation.inputs import latent_size, make_inputs

if TYPE_CHECKING:
    from retom.explanation.arguments import Inputs
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
        ConfigError: The picture does not divide into tokens, or nothing tells its size; the model
            does not take texts of that length.
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
    known = None if family.packs else subject.pixels_per_latent
    stride = known or family.pixels_per_latent
    text = _text(subject, family, text_tokens)
    latent = latent_size(family, height, width, stride)
    return (
        (height, width),
        text,
        make_inputs(subject.denoiser, family, latent, text[0], batch=batch),
    )


def family_of(denoiser: object) -> Inputs:
    """The row of a denoiser's class.

    Raises:
        UnsupportedModelError: There is none.
    """
    for cls in type(denoiser).__mro__:
        if cls.__name__ in FAMILIES:
            return FAMILIES[cls.__name__]
    raise UnsupportedModelError(
        f"retom.explain does not know how {type(denoiser).__name__} is called; it knows "
        f"{', '.join(FAMILIES)}. Pass the arguments of one call for one picture as inputs={{...}}."
    )


def _text(subject: Subject, family: Inputs, asked: int | None) -> tuple[int, str]:
    """Length of the text, and why that."""
    if asked is not None and (type(asked) is not int or asked < 1):
        raise ConfigError(f"text_tokens is a whole number of at least 1; {asked!r} was given.")
    if family.text_parts:
        config = cast("Any", subject.denoiser).config
        only = sum(int(getattr(config, part)) for part in family.text_parts)
        if asked not in (None, only):
            raise ConfigError(
                f"{subject.name} takes texts of {only} tokens alone, to which shorter ones are "
                f"padded; {asked} was given. Leave text_tokens out."
            )
        known = subject.text_tokens == only
        return only, subject.text_tokens_from if known else family.text_tokens_from
    if asked is not None:
        return asked, "given"
    if subject.text_tokens is not None:
        return subject.text_tokens, subject.text_tokens_from
    return family.text_tokens, family.text_tokens_from
