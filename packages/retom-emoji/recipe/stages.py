"""Connect the command line to the stages; heavy imports happen only for the stage that runs."""

from __future__ import annotations

import argparse
import os
from importlib import import_module

import torch

from . import download, preset, render, styles


def run(stage: str, options: argparse.Namespace) -> None:
    """Run one stage.

    Args:
        stage: Its name.
        options: The parsed command line.
    """
    settings = preset.load(options.preset or ("gpu" if stage == "pack" else "cpu"))
    device = torch.device(options.device)
    torch.set_num_threads(min(settings.threads, os.cpu_count() or 1))
    if stage in ("download", "render"):
        chosen = styles.by_keys(settings.styles)
        download.run(options.work, styles.archives(chosen) + download.WORDS)
        if stage == "render":
            render.run(settings, options.work)
    elif stage == "verify":
        render.verify(settings, options.work)
    elif stage == "pack":
        from . import pack

        pack.run(settings, options.work, options.out or options.work / "pack")
    elif stage == "autoencoder":
        from . import autoencoder

        autoencoder.run(settings, options.work, device, minutes=options.minutes)
    elif stage == "text":
        from . import text

        text.run(settings, options.work, device, minutes=options.minutes)
    elif stage == "denoiser":
        from . import denoiser

        denoiser.run(settings, options, device)
    else:
        import_module(f".{stage}", __package__).run(settings, options)
