"""What visitors of a studio may ask for at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from retom.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The owner's limits.

    Args:
        side: Height and width of a picture in pixels, each at most.
        steps: Denoising steps of a picture at most.
        prompt: Characters of a prompt, and of a negative prompt, at most.
        queue: Pictures that may wait while another is drawn.

    Raises:
        ConfigError: One is not a whole number of at least 1.
    """

    side: int = 512
    steps: int = 50
    prompt: int = 500
    queue: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f"The limit of {field.name} is a whole number of at least 1; {value!r} was "
                    "given."
                )
