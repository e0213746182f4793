"""What stands for downloads and data sets where ``real_weights.py`` is rehearsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retom.metrics.adapters import InceptionFeatures


def networks() -> tuple[InceptionFeatures, nn.Module, Any]:
    """Random networks of the right kind, so that nothing is downloaded."""
    from transformers import CLIPConfig, CLIPModel

    class Means(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            x = pictures / 255
            return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)

    def processor(*, text: list[str], images: list[Any], **_: object) -> dict[str, torch.Tensor]:
        ids = torch.tensor([[2 + ord(word[0]) % 30, 3 + len(word) % 30, 1] for word in text])
        pixels = torch.stack([torch.from_numpy(image.copy()).movedim(-1, 0) for image in images])
        small = nn.functional.interpolate(pixels.float() / 255, (8, 8))
        return {"input_ids": ids, "pixel_values": small}

    torch.manual_seed(0)
    layer = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = {**layer, "num_attention_heads": 2, "vocab_size": 40, "eos_token_id": 1}
    vision = {**layer, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return InceptionFeatures(Means(), "means of the channels"), CLIPModel(config), processor


def data(folder: Path, protocol: str) -> tuple[Path, Path]:
    """A file of classes or captions, and a folder of pictures that stand for real ones."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    captions = [{"image_id": i, "caption": f"picture {i}"} for i in range(4)]
    texts = folder / ("classes.txt" if protocol == "imagenet" else "captions.json")
    written = "lemon\ncherry\n" if protocol == "imagenet" else json.dumps(
        {"annotations": captions}
    )  # fmt: skip
    texts.write_text(written, encoding="utf-8")
    real = folder / "real"
    real.mkdir(exist_ok=True)
    for place in range(16):
        Image.new("RGB", (40, 30), (15 * place, 90, 220 - 10 * place)).save(real / f"{place}.png")
    return texts, real
