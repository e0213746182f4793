"""What a benchmark cannot time rightly, each refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.errors import ConfigError
from retom.evaluation.tomesd import Tomesd
from retom.models import is_unet

if TYPE_CHECKING:
    from torch import nn

    from retom.config import Config
    from retom.evaluation.contenders import Contender


def refuse_transformers(denoiser: nn.Module) -> None:
    """For tomesd, which merges in UNets alone."""
    if not is_unet(denoiser):
        raise ConfigError(
            f"tomesd merges in the blocks of UNets alone; this is a {type(denoiser).__name__}."
        )


def refuse_noise(config: Config) -> None:
    """For the oracle, which every row is compared to."""
    if not config.steady:
        raise ConfigError(
            "The oracle, which efficiency is measured against, merges in every call, and this "
            "configuration at some noise alone. Time it over a picture's steps with retom eval or "
            "retom check."
        )


def refuse_reuse(contender: Contender | None) -> None:
    """For a call that is made over and over."""
    if contender is None or isinstance(contender.merging, Tomesd):
        return
    if contender.merging.refresh is not None:
        raise ConfigError(
            "refresh reuses plans from one timestep to the next, which a call at one timestep over "
            "and over does not tell; use part picture."
        )
