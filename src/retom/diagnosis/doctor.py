"""``retom.doctor``: what is installed, what it runs on, and whether merging will pay."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import retom
from retom.diagnosis.devices import Device, devices
from retom.diagnosis.packages import Extra, bundled_model, extras, versions
from retom.diagnosis.paying import CHANNELS, GRID, HEADS, measure
from retom.drawing.loading import device_named

if TYPE_CHECKING:
    from retom.diagnosis.paying import Paying

FORMAT = 1
"""Version of the JSON form; it grows by keys alone as long as this stays."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found; ``print`` shows it.

    Attributes:
        python: Its version.
        system: Operating system and machine.
        versions: Of the packages that matter, None for those that are not installed.
        devices: The CPU and each kind of accelerator.
        extras: Those of this installation; None where retom is not installed as a package.
        bundled_model: Of both, ``found``, or what to do about it.
        paying: The measurement; None where none was asked.
    """

    python: str
    system: str
    versions: dict[str, str | None]
    devices: tuple[Device, ...]
    extras: tuple[Extra, ...] | None
    bundled_model: str
    paying: Paying | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = {"format": FORMAT, "retom": retom.__version__}
        data |= dataclasses.asdict(self)
        if self.extras is not None:
            data["extras"] = [
                {"name": e.name, "missing": list(e.missing), "command": e.command}
                for e in self.extras
            ]
        if self.paying is not None:
            data["paying"]["verdict"] = self.paying.verdict
        return data

    def __str__(self) -> str:
        packages = [f"{k} {v or 'not installed'}" for k, v in self.versions.items()]
        lines = [f"retom {retom.__version__}, Python {self.python}, {self.system}"]
        lines += [", ".join(packages), ""]
        lines += [_device_line(device) for device in self.devices]
        if len(self.devices) == 1:
            lines.append("no accelerator that this build of torch can use")
        lines.append("")
        if self.extras is None:
            lines.append("extras: retom is not installed as a package; pip install it to see them")
        else:
            lines += [_extra_line(extra) for extra in self.extras]
        lines.append(f"bundled models: {self.bundled_model}")
        if self.paying is not None:
            lines += ["", *_paying_lines(self.paying)]
        return "\n".join(lines)


def doctor(*, device: str = "auto", timing: bool = True) -> Diagnosis:
    """Look at the machine and the installation; needs torch alone.

    Args:
        device: Where to time a layer: ``auto`` for the accelerator if there is one, else the CPU.
        timing: Whether to; it takes a few seconds.

    Raises:
        ConfigError: The device is not there.

    Example:
        >>> print(retom.doctor(timing=False))  # doctest: +ELLIPSIS
        retom ...
    """
    place = device_named(device)
    found = extras()
    return Diagnosis(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        versions=versions(),
        devices=tuple(devices()),
        extras=None if found is None else tuple(found),
        bundled_model=bundled_model(),
        paying=measure(place) if timing else None,
    )


def _device_line(device: Device) -> str:
    facts = [device.name] if device.name != device.type else []
    facts += [device.build] if device.build else []
    facts += [f"{device.threads} threads"] if device.threads else []
    kernels = [
        name if masked else f"{name} (without the sizes of merged tokens)"
        for name, masked in device.kernels.items()
    ]
    words = f": {', '.join(facts)}" if facts else ""
    return f"{device.type}{words}; attention kernels: {', '.join(kernels) or 'none'}"


def _extra_line(extra: Extra) -> str:
    if not extra.missing:
        return f"extra {extra.name}: installed"
    return f"extra {extra.name}: {', '.join(extra.missing)} not installed; {extra.command}"


def _paying_lines(paying: Paying) -> list[str]:
    speedup, ceiling = paying.speedup, paying.ceiling
    return [
        f"One self-attention layer of {GRID} tokens, {CHANNELS} channels, {HEADS} heads, on "
        f"{paying.device} in {paying.dtype}, {speedup.n} rounds in turns:",
        f"  un-merged {paying.unmerged_ms:.1f} ms, merged {paying.merged_ms:.1f} ms",
        f"  speed-up {speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}], "
        f"free merging {ceiling.value:.2f} [{ceiling.low:.2f}, {ceiling.high:.2f}]",
        paying.verdict,
    ]
