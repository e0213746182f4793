"""Draw one prompt at several ratios, and print time and closeness: how much is safe here?

python examples/which_ratio.py [MODEL]
"""

import sys
import time

import numpy as np
import retom_emoji
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import retom
from retom.metrics import psnr

PROMPT = "a hamburger, fluent 3d emoji, on a green background"


def draw(pipe: DiffusionPipeline) -> tuple[Image.Image, float]:
    """One picture from a fixed seed, and the seconds it took."""
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    image = pipe(PROMPT, num_inference_steps=8, generator=generator).images[0]
    return image, time.perf_counter() - began


def as_tensor(image: Image.Image) -> torch.Tensor:
    """RGB of 8 bits as float32 (3, height, width) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


pipe = DiffusionPipeline.from_pretrained(sys.argv[1] if sys.argv[1:] else retom_emoji.folder())
pipe.set_progress_bar_config(disable=True)
draw(pipe)  # the first picture reads weights and picks kernels
unmerged, seconds = draw(pipe)
print(f"un-merged  {seconds:5.2f} s")

with retom.applied(pipe, ratio=0.3) as handle:
    for ratio in (0.3, 0.5, 0.7):
        handle.update(ratio=ratio)
        merged, merged_seconds = draw(pipe)
        close = psnr(as_tensor(merged), as_tensor(unmerged)).item()
        faster = seconds / merged_seconds
        print(f"ratio {ratio}  {merged_seconds:5.2f} s, {faster:.2f}x as fast, PSNR {close:.1f} dB")
