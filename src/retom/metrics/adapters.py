"""The field's standard numbers, for users who have their packages and weights.

Nothing here is a dependency of retom, nor is any of it run by CI with the real weights, which are
downloads. Every function takes a network that is ready, or loads the standard one, which its
package then downloads.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import interpolate

from retom.errors import MetricError, MissingExtraError
from retom.metrics.pictures import in_batches, to_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from retom.metrics.pictures import Pictures


class ModuleExtractor:
    """Makes an extractor of any network that gives one vector a picture, of timm or open_clip, say.

    Pictures are resized by bicubic interpolation with antialiasing, and normalised by channel.

    Args:
        module: From float32 (B, 3, height, width) to (B, d). Put into evaluation mode.
        name: Stands in results: name the weights, not only the architecture.
        size: (height, width) that the network reads, pixels.
        mean: Of the channels, subtracted from values in [0, 1].
        std: Of the channels, divided by.
        device: Where the network is moved.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Tensor],
        name: str,
        *,
        size: tuple[int, int],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(module, torch.nn.Module):
            module = module.to(device).eval()
        self.name = name
        self._module = module
        self._size = size
        self._mean = torch.tensor(mean, device=device).reshape(3, 1, 1)
        self._std = torch.tensor(std, device=device).reshape(3, 1, 1)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Give (B, d) for (B, 3, H, W) in [0, 1]."""
        x = pictures.to(self._mean.device)
        x = interpolate(x, self._size, mode="bicubic", antialias=True, align_corners=False)
        return self._module((x.clamp(0, 1) - self._mean) / self._std)  # bicubic overshoots


class InceptionFeatures:
    """The features of FID: the 2,048 of torchmetrics' Inception-v3, which is the original network.

    For :func:`retom.metrics.fid`, which gives an interval where :func:`inception_fid` gives none.

    Args:
        network: Instead of Inception: from uint8 (B, 3, H, W) to (B, d), with a name of its own.
        name: Stands in results.
        device: Where the network runs.

    Raises:
        MissingExtraError: ``torchmetrics[image]`` is not installed.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        name: str = "Inception-v3 (torchmetrics)",
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if network is None:
            network = _frechet_inception(feature=2048).inception
        self.name = name
        self._network = cast("nn.Module", network).to(device).eval()
        self._device = device

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Give (B, d) for (B, 3, H, W) in [0, 1], which the network gets in 8 bits."""
        return self._network((255 * pictures).round().byte().to(self._device))


def inception_fid(
    pictures: Pictures,
    reference: Pictures,
    *,
    network: nn.Module | None = None,
    batch_size: int = 32,
) -> float:
    """FID of torchmetrics on Inception features: Heusel et al. 2017, arXiv:1706.08500.

    Args:
        pictures: At least 2048 by convention; the bias is large below, and n belongs to the number.
        reference: The pictures they should look like.
        network: Computes features instead of Inception, from floats in [0, 1]; then the result is
            a Fréchet distance on its features, and no FID.
        batch_size: Pictures at a time.

    Raises:
        MissingExtraError: ``torchmetrics[image]`` is not installed.
        ShapeError: What was given is no set of pictures.
    """
    metric = _frechet_inception(feature=2048 if network is None else network, normalize=True)
    metric.set_dtype(torch.float64)
    for given, real in ((reference, True), (pictures, False)):
        for batch in in_batches(given, batch_size):
            metric.update(batch, real=real)
    return float(metric.compute())


def clip_score(
    pictures: Pictures,
    prompts: Sequence[str],
    *,
    model: str | nn.Module = "openai/clip-vit-base-patch16",
    processor: Callable[..., Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """CLIP score of transformers' CLIP, 100 max(cosine, 0): Hessel et al. 2021, arXiv:2104.08718.

    Without that paper's factor 2.5, on the scale that torchmetrics and most tables use. Prompts are
    cut at the length that CLIP reads.

    Args:
        pictures: n pictures.
        prompts: Theirs, n.
        model: A ``CLIPModel``, or the name of one, which transformers loads from its cache or
            the hub. The number depends on it: name it with the number.
        processor: The ``CLIPProcessor`` of a given model; needed with one.
        batch_size: Pictures at a time.

    Returns:
        float32 (n,).

    Raises:
        MissingExtraError: transformers is not installed.
        MetricError: There are not as many prompts as pictures, or a model without a processor.
        ShapeError: What was given is no set of pictures.
    """
    if isinstance(model, str):
        transformers = _import("transformers", "The CLIP score", "transformers")
        processor = processor or transformers.CLIPProcessor.from_pretrained(model)
        model = cast("nn.Module", transformers.CLIPModel.from_pretrained(model))
    if processor is None:
        raise MetricError("A CLIPModel comes with its CLIPProcessor: give processor as well.")
    model.eval()
    device = next(model.parameters()).device
    scores: list[Tensor] = []
    start = 0
    for batch in in_batches(pictures, batch_size):
        texts = list(prompts[start : start + len(batch)])
        start += len(batch)
        if len(texts) < len(batch):
            break
        images = list((255 * batch).round().byte().movedim(1, -1).cpu().numpy())
        options: dict[str, Any] = {"padding": True, "truncation": True, "return_tensors": "pt"}
        inputs = processor(text=texts, images=images, **options)
        with torch.no_grad():
            outputs: Any = model(**{name: value.to(device) for name, value in inputs.items()})
        image, text = outputs.image_embeds.float(), outputs.text_embeds.float()
        cosine = torch.nn.functional.cosine_similarity(image, text, dim=1)
        scores.append(100 * cosine.clamp_min(0).cpu())
    if start != len(prompts):
        raise MetricError(f"Each picture has a prompt; {len(prompts)} prompts do not fit.")
    return torch.cat(scores)


def lpips(
    pictures: Pictures,
    reference: Pictures,
    *,
    network: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """LPIPS of the package lpips, lower is closer: Zhang et al. 2018, arXiv:1801.03924.

    Args:
        pictures: n pictures.
        reference: The n pictures they are compared with, of the same size.
        network: An ``lpips.LPIPS``, or what takes two batches in [-1, 1] as it does; the one with
            AlexNet, version 0.1, if not given.
        batch_size: Pictures at a time.

    Returns:
        float32 (n,).

    Raises:
        MissingExtraError: lpips is not installed.
        ShapeError: What was given is no set of pictures, or shapes differ.
    """
    x, y = to_pair(pictures, reference)
    if network is None:
        package = _import("lpips", "LPIPS", "lpips")
        made: nn.Module = package.LPIPS(net="alex", verbose=False)
        network = made.eval()
    parts = zip(in_batches(x, batch_size), in_batches(y, batch_size), strict=True)
    with torch.no_grad():
        found = [network(2 * a - 1, 2 * b - 1).reshape(len(a)).float() for a, b in parts]
    return torch.cat(found)


def _frechet_inception(**options: Any) -> Any:  # noqa: ANN401 - torchmetrics' own
    """The FID of torchmetrics, which loads Inception unless it is given a network."""
    module = _import("torchmetrics.image.fid", "FID", "torchmetrics[image]")
    try:
        return module.FrechetInceptionDistance(**options)
    except ModuleNotFoundError as error:
        raise _missing("FID", "torchmetrics[image]", error) from error


def _import(module: str, what: str, package: str) -> Any:  # noqa: ANN401 - a module
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(what, package, error) from error


def _missing(what: str, package: str, error: ModuleNotFoundError) -> MissingExtraError:
    return MissingExtraError(
        f"{what} needs {package}, which is not installed or not complete ({error}). Install it "
        f'with pip install "{package}", or use the metrics of retom that need no download.'
    )
