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
        max_downsample: Its own option, instead of the one that ``num_levels`` amounts to. Its
            default is 1, which reaches no layer of SDXL.
        seed: Of its draws. Left alone it forks torch's default generator, whose state depends on
            what ran before.
    """

    name: ClassVar[str] = TOMESD

    use_rand: bool = True
    ratio: float = 0.5
    num_levels: int | None = 1
    max_downsample: int | None = None
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
        known = not options.keys() - {"use_rand", "max_downsample"}
        draws, reach = options.get("use_rand", True), options.get("max_downsample", 1)
        if not known or type(draws) is not bool or type(reach) is not int or reach < 1:
            raise ConfigError(
                "tomesd takes use_rand=true or use_rand=false, and max_downsample=1, 2, 4 or 8; "
                f"{options!r} was given."
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
        options = [] if self.use_rand else ["use_rand=false"]
        if self.max_downsample is not None:
            options.append(f"max_downsample={self.max_downsample}")
        return TOMESD + (":" + ",".join(options) if options else "")

    def to_dict(self) -> dict[str, Any]:
        """Everything that its pictures depend on, as plain data."""
        version = importlib.metadata.version(TOMESD)
        reach = {} if self.max_downsample is None else {"max_downsample": self.max_downsample}
        return {
            "name": TOMESD,
            "version": version,
            "use_rand": self.use_rand,
            "ratio": self.ratio,
            "num_levels": self.num_levels,
            "seed": self.seed,
            **reach,
        }

    @contextmanager
    def applied(self, pipe: object) -> Generator[None]:
        """Merge inside a ``with`` block, and remove all of it at the end."""
        remove = self.apply(find_denoiser(pipe))
        try:
            yield
        finally:
            remove()

    def apply(self, unet: nn.Module, device: torch.device | None = None) -> Any:  # noqa: ANN401
        """Make a UNet merge in place, its draws seeded.

        Args:
            unet: Without merging.
            device: Where it draws; that of the first weights for None.

        Returns:
            What removes it again: a function without arguments.
        """
        package: Any = import_module(TOMESD)
        reach = self.max_downsample
        if reach is None:
            levels = len(layout_of(unet).levels) if self.num_levels is None else self.num_levels
            reach = downsample_of(unet, levels - 1)
        package.apply_patch(unet, ratio=self.ratio, max_downsample=reach, use_rand=self.use_rand)
        device = next(unet.parameters()).device if device is None else device
        draws = torch.Generator(device).manual_seed(self.seed)
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
