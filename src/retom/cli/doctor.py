"""``retom doctor``: versions, devices, extras, and whether merging will pay here."""

from __future__ import annotations

import argparse
import json
import sys

from retom.errors import ConfigError


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``retom doctor`` its arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="where to time a layer: cpu, cuda, mps, xpu; by default the accelerator if there is "
        "one, else the CPU",
    )
    parser.add_argument("--no-timing", action="store_true", help="time nothing")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(options: argparse.Namespace) -> None:
    """Look, and print it.

    Raises:
        ConfigError: The device is not there, or nothing is to be timed on it.
    """
    if options.no_timing and options.device is not None:
        raise ConfigError("--device says where to time, and --no-timing not to. Leave one out.")

    from retom.diagnosis.doctor import doctor

    diagnosis = doctor(device=options.device or "auto", timing=not options.no_timing)
    if options.json:
        json.dump(diagnosis.to_dict(), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    else:
        print(diagnosis)
