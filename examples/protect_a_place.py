"""Keep the tokens of one place out of merging, and show that they stayed.

python examples/protect_a_place.py [OUTPUT.png]
"""

import sys

import numpy as np
import retom_emoji
import torch
from diffusers import DiffusionPipeline

import retom
from retom import viz

pipe = DiffusionPipeline.from_pretrained(retom_emoji.folder())
pipe.set_progress_bar_config(disable=True)

# White is kept: the middle quarter of the picture. Any resolution will do, also a PIL picture.
mask = np.zeros((256, 256), dtype=bool)
mask[64:192, 64:192] = True

with retom.applied(pipe, ratio=0.5) as handle, viz.record(handle) as recording:
    handle.protect(mask)
    image = pipe(
        "a cat face, fluent 3d emoji",
        num_inference_steps=8,
        generator=torch.Generator().manual_seed(0),
    ).images[0]

look = recording.look()
kept = (look.joined == torch.arange(look.grid.num_tokens)).reshape(
    look.grid.height, look.grid.width
)
inside = kept[16:48, 16:48].float().mean()
print(f"kept: {kept.float().mean():.0%} of all tokens, {inside:.0%} of the protected ones")

output = sys.argv[1] if sys.argv[1:] else "protected.png"
viz.to_picture(viz.drawn(look, "groups"), image).save(output)
print(f"Saved what merged to {output}")
