"""Command line of the recipe."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

STAGES = ("render", "autoencoder", "text", "denoiser", "export", "samples")
OTHERS = (
    "all",
    "download",
    "verify",
    "pack",
    "gpu",
    "decoder",
    "words",
    "references",
    "head",
    "evaluate",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one stage, or all of them in order, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipe", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, *OTHERS))
    parser.add_argument("--preset", help="a file of recipe/presets; cpu, or gpu for pack and gpu")
    parser.add_argument("--work", type=Path, required=True, help="downloads, checkpoints, logs")
    parser.add_argument(
        "--minutes", type=float, help="training budget of the stage, or of a phase, or of the call"
    )
    parser.add_argument("--phase", help="only this phase of the denoiser stage")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="not for gpu")
    parser.add_argument(
        "--init", type=Path, help="an exported model to go on from, or to draw with"
    )
    parser.add_argument("--out", type=Path, help="folder that a stage writes its results to")
    parser.add_argument("--dry-run", action="store_true", help="gpu: all stages in a minute")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    options.work.mkdir(parents=True, exist_ok=True)

    from . import stages

    if options.stage == "gpu":
        from . import gpu

        return gpu.run(options)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        stages.run(stage, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
