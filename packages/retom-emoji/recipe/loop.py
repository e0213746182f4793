"""The parts all training stages share: a time budget, progress lines, checkpoints and resuming.

Budgets are in minutes of training, not in steps, because the machine decides how far a step goes.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .ema import Ema
from .optimizers import Together

LOG_SECONDS = 15.0
SAVE_SECONDS = 180.0


class Loop:
    """Counts, logs and saves one stage.

    Args:
        name: Name of the stage, also of its log and checkpoint.
        work: The work folder.
        minutes: Budget; time spent before an interruption counts.
        modules: What is trained and saved, by name.
        optimizer: Its state is saved too.
        ema: Saved too.
        deadline: Reading of ``time.monotonic`` at which to stop for now.
    """

    def __init__(
        self,
        name: str,
        work: Path,
        *,
        minutes: float,
        modules: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer | Together,
        ema: Ema,
        deadline: float = math.inf,
    ) -> None:
        self.name = name
        self.minutes = minutes
        self.deadline = deadline
        self.modules = modules
        self.optimizer = optimizer
        self.ema = ema
        self.step = 0
        self.samples = 0
        self.file = work / f"{name}.pt"
        self.log = work / f"{name}.jsonl"
        self._before = 0.0
        self._start = time.monotonic()
        self._saved = self._logged = self._start
        self._window: list[float] = []
        self._window_samples = 0

    @property
    def seconds(self) -> float:
        """Seconds trained, over all interruptions."""
        return self._before + time.monotonic() - self._start

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, at most 1."""
        return min(1.0, self.seconds / (60 * self.minutes))

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.seconds >= 60 * self.minutes

    @property
    def done(self) -> bool:
        """Whether to stop, for good or for now."""
        return self.finished or time.monotonic() >= self.deadline

    def restore(self) -> bool:
        """Continue from the checkpoint if there is one; say whether there was."""
        if not self.file.exists():
            return False
        saved: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        for key, value in self.ema.shadow.items():
            value.copy_(saved["ema"][key])
        self.ema.updates = saved["updates"]
        self.step, self.samples, self._before = saved["step"], saved["samples"], saved["seconds"]
        self._start = self._saved = self._logged = time.monotonic()
        print(f"{self.name}: resumed at step {self.step}, {self.seconds / 60:.1f} min", flush=True)
        return True

    def save(self) -> None:
        """Write the checkpoint; a reader sees either the old or the new one, never half."""
        if self._window:
            self._report()
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow,
            "updates": self.ema.updates,
            "step": self.step,
            "samples": self.samples,
            "seconds": self.seconds,
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.file)
        self._saved = time.monotonic()

    def tick(self, loss: float, samples: int) -> bool:
        """Count one step, log and save when it is time.

        Args:
            loss: Loss of the step.
            samples: Pictures in the step.

        Returns:
            Whether a checkpoint was written.
        """
        if not math.isfinite(loss):
            msg = f"{self.name}: the loss is {loss} at step {self.step}"
            raise FloatingPointError(msg)
        self.step += 1
        self.samples += samples
        self._window.append(loss)
        self._window_samples += samples
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._report()
        if now - self._saved >= SAVE_SECONDS:
            self.save()
            return True
        return False

    def _report(self) -> None:
        """Log and print the means since the last report."""
        now = time.monotonic()
        rate = self._window_samples / (now - self._logged)
        mean = sum(self._window) / len(self._window)
        left = max(0.0, self.minutes - self.seconds / 60)
        line = {"step": self.step, "samples": self.samples, "loss": round(mean, 5)}
        line |= {"rate": round(rate, 1), "seconds": round(self.seconds, 1)}
        line |= {"lr": round(self.optimizer.param_groups[0]["lr"], 7)}
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        print(
            f"{self.name}: step {self.step} loss {mean:.4f} {rate:.1f} img/s left {left:.1f} min",
            flush=True,
        )
        self._window, self._window_samples, self._logged = [], 0, now


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module; the libraries' own ``to`` are typed for other arguments.

    On an accelerator its convolutions get the memory layout that the matrix units want.
    """
    layout = torch.channels_last if device.type != "cpu" else torch.preserve_format
    module.to(device=device, memory_format=layout)


def set_rate(
    optimizer: torch.optim.Optimizer | Together,
    *,
    step: int,
    fraction: float,
    warmup: int,
    final: float = 0.05,
) -> None:
    """Set learning rates: a linear warm-up in steps, then a cosine over the time budget.

    Args:
        optimizer: Its groups carry a ``peak`` rate each.
        step: Steps made.
        fraction: Share of the budget used.
        warmup: Steps of warm-up.
        final: Share of the peak rate left at the end.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * fraction))
    scale = min(1.0, (step + 1) / warmup) * (final + (1 - final) * cosine)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
