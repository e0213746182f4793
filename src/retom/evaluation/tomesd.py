"""The package tomesd as a contender, where it is installed: the authors' own token merging."""

from __future__ import annotations

import importlib.metadata
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from retom.errors import ConfigError, MissingExtraError
from retom.models import find_denoiser, layout_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import nn

    from retom.rules import Levels

TOMESD = "tomesd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tomesd:
    """How tomesd merges around self-attention.

    Attributes:
        use_rand: Its own option: a random destination in each cell of 2x2 tokens, or the first.
        ratio: Fraction of the tokens that go; over 0.75 it silently merges less.
        num_levels: Grids that merge, largest first; None for all.
        seed: Of its draws. Left alone it forks torch's default generator, whose state depends on
            what ran before.
    """

    name: ClassVar[str] = TOMESD

    use_rand: bool = True
    ratio: float = 0.5
    num_levels: int | None = 1
    seed: int = 0

    @staticmethod
    def of(options: dict[str, Any]) -> Tomesd:
        """From the options of a specification.

        Raises:
            MissingExtraError: The package is not installed.
            ConfigError: An option is unknown.
        """
        if not tomesd_installed():
            raise MissingExtraError(
                "tomesd is not installed: pip install tomesd==0.1.3, or leave it out. The method "
                "tome is the same matching, written from the paper."
            )
        if options.keys() - {"use_rand"} or type(options.get("use_rand", True)) is not bool:
            raise ConfigError(
                f"tomesd takes use_rand=true or use_rand=false; {options!r} was given."
            )
        return Tomesd(**options)

    def at(self, ratio: float, levels: Levels) -> Tomesd:
        """The same at another ratio, on these levels.

        Raises:
            ConfigError: It cannot merge on these levels and no larger one.
        """
        if levels != "all" and levels != tuple(range(len(levels))):
            raise ConfigError(
                f"tomesd merges on the largest grids, without a gap; levels {levels} were given. "
                "Use levels such as 0 or 0,1, or leave tomesd out."
            )
        return replace(self, ratio=ratio, num_levels=None if levels == "all" else len(levels))

    @property
    def method(self) -> str:
        """Its specification."""
        return TOMESD if self.use_rand else f"{TOMESD}:use_rand=false"

    def to_dict(self) -> dict[str, Any]:
        """Everything that its pictures depend on, as plain data."""
        version = importlib.metadata.version(TOMESD)
        return {
            "name": TOMESD,
            "version": version,
            "use_rand": self.use_rand,
            "ratio": self.ratio,
            "num_levels": self.num_levels,
            "seed": self.seed,
        }

    @contextmanager
    def applied(self, pipe: object) -> Generator[None]:
        """Merge inside a ``with`` block, and remove all of it at the end."""
        remove = self.apply(find_denoiser(pipe))
        try:
            yield
        finally:
            remove()

    def apply(self, unet: nn.Module) -> Any:  # noqa: ANN401 - what removes it
        """Make a UNet merge in place, its draws seeded.

        Returns:
            What removes it again: a function without arguments.
        """
        package: Any = import_module(TOMESD)
        levels = len(layout_of(unet).levels) if self.num_levels is None else self.num_levels
        package.apply_patch(
            unet,
            ratio=self.ratio,
            max_downsample=downsample_of(unet, levels - 1),
            use_rand=self.use_rand,
        )
        draws = torch.Generator(next(unet.parameters()).device).manual_seed(self.seed)
        info: Any = unet._tome_info
        info["args"]["generator"] = draws

        def remove() -> None:
            package.remove_patch(unet)
            for module in unet.modules():
                module.__dict__.pop("_tome_info", None)

        return remove


def tomesd_installed() -> bool:
    """Whether the package can be imported."""
    return find_spec(TOMESD) is not None


def downsample_of(unet: nn.Module, level: int) -> int:
    """Latent rows to a row of tokens on a level of retom: what tomesd's max_downsample counts."""
    rows = 1024
    grids_of_size = layout_of(unet).grids_of_size
    assert grids_of_size is not None  # tomesd patches UNets alone
    return rows // grids_of_size(rows, rows)[level].height
