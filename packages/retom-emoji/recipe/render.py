"""Gather the art in one small file, and draw it into one array of RGBA pictures.

The small file holds what the sets publish, WebP pictures and SVG drawings: a third of the size of
the pictures drawn from it. It can be drawn again wherever it is taken, and the list of
hashes that goes with it says whether that gave the same pixels.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import multiprocessing
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import concepts, styles
from .concepts import Concept
from .preset import Preset

SIZE = 256
"""Edge of the pictures in pixels; the 3d art is published at it."""
SOURCES = "art.tar.xz"
PICTURES = "art.npy"
HASHES = "art.sha256"


class ArtError(RuntimeError):
    """The pictures are not the ones this recipe was written against."""


@dataclass(frozen=True)
class Art:
    """The pictures and what they show.

    Attributes:
        concepts: One entry a picture.
        rgba: ``(n, 256, 256, 4)`` pictures, straight alpha; read from the disk as needed.
    """

    concepts: tuple[Concept, ...]
    rgba: npt.NDArray[np.uint8]

    def rows(self, split: concepts.Split) -> npt.NDArray[np.int64]:
        """Return the places of the pictures of one split."""
        keep = [i for i, c in enumerate(self.concepts) if c.split == split]
        return np.array(keep, dtype=np.int64)

    def subset(self, split: concepts.Split) -> Art:
        """Return only the pictures of one split, in memory."""
        keep = self.rows(split)
        return Art(tuple(self.concepts[i] for i in keep), self.rgba[keep])


def member(concept: Concept) -> str:
    """Return the name of a concept's picture in the art file and in the list of hashes."""
    key = next(style.key for style in styles.STYLES if style.words == concept.style)
    return f"{key}/{concept.code}"


def gather(preset: Preset, work: Path) -> tuple[Concept, ...]:
    """Write the art file and the list of concepts, style by style.

    Raises:
        ValueError: A concept of the preset's list lacks art in one of the styles. Without a list,
            each style brings what it has.
    """
    labels = concepts.wanted(preset.concepts) if preset.concepts else None
    entries = concepts.entries(work, labels)
    chosen: list[Concept] = []
    sources: list[bytes] = []
    for style in styles.by_keys(preset.styles):
        published = styles.sources(style, work)
        missing = [c.label for c in entries if c.code not in published]
        if labels and missing:
            msg = f"style {style.key} has no usable art for: {', '.join(missing)}"
            raise ValueError(msg)
        for concept in entries:
            if concept.code in published:
                chosen.append(
                    Concept(concept.code, concept.label, concept.tags, concept.split, style.words)
                )
                sources.append(published[concept.code])
    _write_sources(work / SOURCES, [member(c) for c in chosen], sources)
    concepts.store(tuple(chosen), work)
    return tuple(chosen)


def _write_sources(file: Path, names: list[str], sources: list[bytes]) -> None:
    """Write a tar whose bytes depend on nothing but its contents."""
    with lzma.open(file, "wb", preset=9) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in zip(names, sources, strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def read_sources(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the source of each picture, in the order of the concepts."""
    with lzma.open(file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            data = tar.extractfile(info)
            if data is not None:
                yield info.name, data.read()


def picture(source: bytes) -> npt.NDArray[np.uint8]:
    """Draw one source as ``(256, 256, 4)`` 8-bit RGBA."""
    if source.startswith(b"<svg"):
        import resvg_py

        png = resvg_py.svg_to_bytes(svg_string=source.decode(), width=SIZE, height=SIZE)
        source = bytes(png)
    with Image.open(io.BytesIO(source)) as image:
        return np.asarray(image.convert("RGBA").resize((SIZE, SIZE)))


def thin(chosen: tuple[Concept, ...], limit: int) -> tuple[Concept, ...]:
    """Keep so many concepts, spread evenly over the list; 0 keeps all."""
    if not 0 < limit < len(chosen):
        return chosen
    return tuple(chosen[i * len(chosen) // limit] for i in range(limit))


def draw(chosen: tuple[Concept, ...], sources: Path, work: Path, *, workers: int) -> str:
    """Draw the pictures of some concepts and write them, with their hashes.

    Args:
        chosen: One a picture, in the order of the art file; others in the file are skipped.
        sources: The art file.
        work: Where the array and the list of hashes go.
        workers: Processes that draw; with 1 it happens in this one.

    Returns:
        The digest of the list of hashes, which stands for all pixels.
    """
    names = [member(concept) for concept in chosen]
    wanted = set(names)
    data = (source for name, source in read_sources(sources) if name in wanted)
    out = np.lib.format.open_memmap(
        work / PICTURES, mode="w+", dtype=np.uint8, shape=(len(names), SIZE, SIZE, 4)
    )
    lines: list[str] = []
    for i, (name, rgba) in enumerate(zip(names, _draw_all(data, workers), strict=True)):
        out[i] = rgba
        lines.append(f"{hashlib.sha256(out[i].tobytes()).hexdigest()}  {name}\n")
    out.flush()
    text = "".join(lines)
    (work / HASHES).write_text(text, "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _draw_all(sources: Iterator[bytes], workers: int) -> Iterator[npt.NDArray[np.uint8]]:
    if workers == 1:
        yield from map(picture, sources)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(picture, sources, chunksize=16)


def check(digest: str, preset: Preset) -> None:
    """Compare the digest of all pictures with the one the preset pins.

    Raises:
        ArtError: It differs. A preset that pins none is never refused.
    """
    if preset.art and digest != preset.art:
        msg = f"the pictures hash to {digest}, the preset expects {preset.art}"
        raise ArtError(msg)


def verify(preset: Preset, work: Path) -> None:
    """Check every drawn picture against the list of hashes, and the list against the preset.

    Raises:
        ArtError: A picture or the list differs; the message names the picture.
    """
    text = (work / HASHES).read_text("utf-8")
    pictures = load(work).rgba
    lines = text.splitlines()
    if len(lines) != len(pictures):
        msg = f"{HASHES} lists {len(lines)} pictures, {PICTURES} holds {len(pictures)}"
        raise ArtError(msg)
    for line, rgba in zip(lines, pictures, strict=True):
        digest, name = line.split("  ")
        if hashlib.sha256(rgba.tobytes()).hexdigest() != digest:
            msg = f"picture {name} is not the one that was drawn; run the render stage again"
            raise ArtError(msg)
    check(hashlib.sha256(text.encode()).hexdigest(), preset)
    print(f"verify: {len(lines)} pictures as expected", flush=True)


def run(preset: Preset, work: Path) -> None:
    """Gather and draw the art of a preset.

    Raises:
        ArtError: The pixels are not those the preset pins.
    """
    chosen = gather(preset, work)
    digest = draw(chosen, work / SOURCES, work, workers=preset.threads)
    trained = sum(c.split == "trained" for c in chosen)
    print(
        f"render: {trained} trained and {len(chosen) - trained} held-out pictures, {digest}",
        flush=True,
    )
    check(digest, preset)


def load(work: Path) -> Art:
    """Read what :func:`run` stored.

    Raises:
        FileNotFoundError: The render stage has not run in this work folder.
    """
    return Art(concepts.load(work), np.load(work / PICTURES, mmap_mode="r"))
