"""Connect the command line to the stages; heavy imports happen only for the stage that runs."""

from __future__ import annotations

import argparse

import torch

from . import download, preset, render


def run(stage: str, options: argparse.Namespace) -> None:
    """Run one stage.

    Args:
        stage: Its name.
        options: The parsed command line.
    """
    settings = preset.load(options.preset)
    device = torch.device(options.device)
    torch.set_num_threads(settings.threads)
    if stage == "download":
        download.run(options.work)
    elif stage == "render":
        render.run(options.work, settings.concepts)
    elif stage == "autoencoder":
        from . import autoencoder

        autoencoder.run(settings, options.work, device, minutes=options.minutes)
    elif stage == "text":
        from . import text

        text.run(settings, options.work, device, minutes=options.minutes)
    elif stage == "denoiser":
        from . import denoiser

        denoiser.run(settings, options, device)
    elif stage == "export":
        from . import export

        export.run(settings, options)
    else:
        from . import samples

        samples.run(settings, options)
