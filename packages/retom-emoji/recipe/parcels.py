"""Put a model folder into a few files that each may leave a machine with narrow rules."""

from __future__ import annotations

import tarfile
from pathlib import Path

LARGEST = 16 * 2**20
"""Most bytes of one file."""
MOST = 8
"""Most files."""
ROOM = LARGEST - 2**20
"""What is put into one tar at most; its headers take some of the rest."""


def bins(sizes: dict[str, int], room: int) -> list[list[str]]:
    """Distribute named sizes over as few bins as first fit, largest first, finds.

    >>> bins({"a": 3, "b": 5, "c": 2}, room=5)
    [['b'], ['a', 'c']]

    Raises:
        ValueError: One is larger than a bin.
    """
    out: list[list[str]] = []
    left: list[int] = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] > room:
            msg = f"{name} has {sizes[name]} bytes, a parcel takes {room}"
            raise ValueError(msg)
        place = next((i for i, free in enumerate(left) if free >= sizes[name]), None)
        if place is None:
            place = len(out)
            out.append([])
            left.append(room)
        out[place].append(name)
        left[place] -= sizes[name]
    return out


def write(folder: Path, target: Path) -> None:
    """Write ``model-1.tar`` and so on; unpacking all of them in one place restores the folder.

    Args:
        folder: The model.
        target: Where the tars go; those of an earlier call are replaced.
    """
    for old in target.glob("model-*.tar"):
        old.unlink()
    files = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    sizes = {name: file.stat().st_size for name, file in files.items()}
    for number, names in enumerate(bins(sizes, ROOM), start=1):
        with tarfile.open(target / f"model-{number}.tar", "w") as tar:
            for name in names:
                tar.add(files[name], arcname=f"{folder.name}/{name}")


def check(target: Path) -> None:
    """Check that everything in a folder may leave.

    Raises:
        ValueError: There are too many files, or one is too large.
    """
    sizes = {file.name: file.stat().st_size for file in target.iterdir()}
    large = [name for name, size in sizes.items() if size > LARGEST]
    if large or len(sizes) > MOST:
        msg = (
            f"{len(sizes)} files, of which too large: {', '.join(large) or 'none'};"
            f" at most {MOST} files of {LARGEST} bytes may leave"
        )
        raise ValueError(msg)
    for name, size in sorted(sizes.items()):
        print(f"gpu: {name}, {size / 1e6:.2f} MB", flush=True)
