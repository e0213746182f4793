"""Command line of the recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

STAGES = ("download", "render", "autoencoder", "text", "denoiser", "export", "samples")


def main(arguments: list[str] | None = None) -> None:
    """Run one stage, or all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m recipe", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--preset", default="cpu", help="a file of recipe/presets")
    parser.add_argument("--work", type=Path, required=True, help="downloads, checkpoints, logs")
    parser.add_argument("--minutes", type=float, help="training budget of the stage, or of a phase")
    parser.add_argument("--phase", help="only this phase of the denoiser stage")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--init", type=Path, help="continue from this exported model folder")
    parser.add_argument("--out", type=Path, help="folder the export stage writes")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    options.work.mkdir(parents=True, exist_ok=True)

    from . import stages

    for stage in STAGES if options.stage == "all" else (options.stage,):
        stages.run(stage, options)


if __name__ == "__main__":
    main()
