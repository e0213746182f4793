"""Train everything on one accelerator, in one call or in several, and always leave a model behind.

Each call works until its minutes are over, writes the model so far with its sample sheets, and
says whether there is more to do. What came first is not repeated: stages that ended are marked in
the work folder, the one that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from . import concepts, curves, parcels, render, sentences
from . import preset as presets
from .preset import Preset

MINUTES = 25.0
REST_SECONDS = 90.0
"""Kept of a call's minutes for export and sample sheets."""
DRY_MINUTES = 0.7
"""What a dry run on an accelerator trains, all stages together."""
DRY_LIMIT = 300
"""Pictures a dry run on an accelerator draws."""
DRY_SHOWN = 2
"""Pictures of each kind on a dry run's sheets."""
SHOWN = 40

Stage = Callable[[float], bool]


class Course:
    """One call of the ``gpu`` command.

    Args:
        options: The command line: work and out folders, minutes, dry run, preset.
        device: Where to train.

    Attributes:
        preset: Its settings, shortened for a dry run.
        work: The work folder; a dry run has one of its own inside it.
    """

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.device = device
        self.preset = choose(options.preset, device, dry_run=options.dry_run)
        self.shown = DRY_SHOWN if options.dry_run else SHOWN
        self.source: Path = options.work
        self.work: Path = options.work / "dry" if options.dry_run else options.work
        if options.dry_run:
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
        self.options = argparse.Namespace(
            work=self.work, init=None, phase=None, minutes=None, out=self.work / "model"
        )

    def art(self, _: float) -> bool:
        """Draw the pictures from the art file, and say whether they are those of the list."""
        expected = set((self.source / render.HASHES).read_text("utf-8").splitlines())
        chosen = render.thin(concepts.load(self.source), self.preset.limit)
        sources = self.source / render.SOURCES
        render.draw(chosen, sources, self.work, workers=self.preset.threads)
        drawn = set((self.work / render.HASHES).read_text("utf-8").splitlines())
        other = len(drawn - expected)
        print(f"gpu: {len(drawn)} pictures drawn, {other} differ from the list", flush=True)
        concepts.store(chosen, self.work)
        if self.work != self.source:
            shutil.copy(self.source / sentences.FILE, self.work)
        return True

    def text(self, deadline: float) -> bool:
        """Warm up the text encoder."""
        from . import text

        return text.run(self.preset, self.work, self.device, minutes=None, deadline=deadline)

    def autoencoder(self, deadline: float) -> bool:
        """Train the autoencoder."""
        from . import autoencoder

        return autoencoder.run(self.preset, self.work, self.device, minutes=None, deadline=deadline)

    def denoiser(self, deadline: float) -> bool:
        """Train all phases of the denoiser."""
        from . import denoiser

        return denoiser.run(self.preset, self.options, self.device, deadline=deadline)

    def train(self, deadline: float) -> bool:
        """Run the stages that are left until the deadline, and say whether all ended."""
        stages: tuple[Stage, ...] = (self.art, self.text, self.autoencoder, self.denoiser)
        for stage in stages:
            marker = self.work / f"{stage.__name__}.done"
            if marker.exists():
                continue
            print(f"gpu: {stage.__name__}", flush=True)
            if not stage(deadline):
                return False
            marker.touch()
        return True

    def leave(self, out: Path) -> None:
        """Write everything worth taking away: model, sheets, curves and logs."""
        from . import export, samples

        curves.write(self.work, out)
        if (self.work / "unet").exists():
            export.run(self.preset, self.options)
            parcels.write(self.options.out, out)
            pipe = samples.load(self.options.out).to(self.device)
            samples.write(pipe, self.preset, concepts.load(self.work), out, shown_each=self.shown)
        parcels.check(out)


def choose(name: str | None, device: torch.device, *, dry_run: bool) -> Preset:
    """Return the preset of a call.

    A dry run on a CPU uses tiny networks. On an accelerator it uses the real ones, because memory
    is what could be wrong there, on a few pictures and for a short time.
    """
    if dry_run and device.type == "cpu":
        return presets.load("dry")
    preset = presets.load(name or "gpu")
    if not dry_run:
        return preset
    phases = sum(phase.minutes for phase in preset.denoiser.phases)
    total = preset.text.minutes + preset.autoencoder.minutes + phases
    return dataclasses.replace(presets.shortened(preset, DRY_MINUTES / total), limit=DRY_LIMIT)


def find_device(*, dry_run: bool) -> torch.device:
    """Return the accelerator, or the CPU for a dry run where there is none.

    Raises:
        RuntimeError: A real run needs an accelerator.
    """
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        return torch.device("cuda")
    if dry_run:
        return torch.device("cpu")
    msg = "torch sees no CUDA device; use --dry-run to rehearse on a CPU, or preset cpu-full"
    raise RuntimeError(msg)


def run(options: argparse.Namespace) -> int:
    """Work through the course as far as the minutes reach.

    Args:
        options: The command line: ``work`` holds what ``recipe pack`` made, ``out`` receives at
            most eight files, ``minutes`` ends this call.

    Returns:
        Exit status: 0 all done, 1 a stage failed, 3 the same command will go on from here.
    """
    start = time.monotonic()
    minutes = MINUTES if options.minutes is None else options.minutes
    device = find_device(dry_run=options.dry_run)
    out: Path = options.out or options.work / "out"
    out.mkdir(parents=True, exist_ok=True)
    course = Course(options, device)
    torch.set_num_threads(min(course.preset.threads, os.cpu_count() or 1))
    print(f"gpu: on {device}, {minutes:.1f} minutes, torch {torch.__version__}", flush=True)
    status = 3
    try:
        if course.train(start + 60 * minutes - REST_SECONDS):
            status = 0
    except Exception:  # whatever happened, the last checkpoint is worth taking away
        traceback.print_exc()
        status = 1
        if (course.work / "autoencoder.done").exists():
            course.denoiser(deadline=0.0)
    course.leave(out)
    outcome = {0: "all done", 1: "failed, see above", 3: "to be continued by the same command"}
    print(f"gpu: {outcome[status]} after {(time.monotonic() - start) / 60:.1f} min", flush=True)
    return status
