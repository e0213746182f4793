"""Merge more while the picture is noise and nothing at the end; save it as a configuration.

python examples/schedule.py [OUTPUT.json]
"""

import sys

import retom_emoji
import torch
from diffusers import DiffusionPipeline

import retom

pipe = DiffusionPipeline.from_pretrained(retom_emoji.folder())
pipe.set_progress_bar_config(disable=True)

config = retom.Config(
    method=retom.ReToM(ratio=0.5),
    noise=(0.2, 1.0),
    rules=(retom.Rule(method=retom.ReToM(ratio=0.7), noise=(0.7, 1.0)),),
)
output = sys.argv[1] if sys.argv[1:] else "schedule.json"
config.save(output)
print(f"Saved to {output}; retom generate --config {output} takes it.")

with retom.applied(pipe, retom.Config.load(output)) as handle:
    pipe(
        "a tree, fluent 3d emoji", num_inference_steps=8, generator=torch.Generator().manual_seed(0)
    )
    print(handle.summary())
