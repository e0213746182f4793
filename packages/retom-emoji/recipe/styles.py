"""The styles of the art, one row a style, and how each set files its pictures."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import download
from .concepts import bare
from .download import Archive


@dataclass(frozen=True)
class Style:
    """One set of pictures.

    Attributes:
        key: Short name, also of the style's folder in the art file.
        words: What captions call it.
        archive: Where the pictures are: WebP files named by codepoint, or icons in one JSON file.
        index: The icon set that says which codepoints count, and under which name.
        licence: SPDX identifier of the art.
    """

    key: str
    words: str
    archive: Archive
    index: Archive
    licence: str

    @property
    def is_raster(self) -> bool:
        """Whether the set is of pictures rather than of drawings."""
        return self.archive is download.FLUENT_3D


STYLES = (
    # The 3d set carries pictures of unknown origin; the flat set of the same designer lists the
    # known ones. The first Noto set has names only, which are those of the later one.
    Style("fluent-3d", "fluent 3d emoji", download.FLUENT_3D, download.FLUENT_FLAT, "MIT"),
    Style("fluent-flat", "fluent flat emoji", download.FLUENT_FLAT, download.FLUENT_FLAT, "MIT"),
    Style("noto", "noto emoji", download.NOTO, download.NOTO, "Apache-2.0"),
    Style("noto-v1", "noto blob emoji", download.NOTO_V1, download.NOTO, "Apache-2.0"),
    Style("twemoji", "twemoji", download.TWEMOJI, download.TWEMOJI, "CC-BY-4.0"),
)


def by_keys(keys: tuple[str, ...]) -> tuple[Style, ...]:
    """Look styles up.

    Raises:
        ValueError: There is no such style.
    """
    rows = {style.key: style for style in STYLES}
    if unknown := [key for key in keys if key not in rows]:
        msg = f"unknown styles {', '.join(unknown)}; there are {', '.join(rows)}"
        raise ValueError(msg)
    return tuple(rows[key] for key in keys)


def archives(styles: tuple[Style, ...]) -> tuple[Archive, ...]:
    """Return the archives some styles need, each once."""
    needed = dict.fromkeys(a for style in styles for a in (style.archive, style.index))
    return tuple(needed)


def sources(style: Style, work: Path) -> dict[str, bytes]:
    """Read a style's pictures as published: WebP bytes, or an SVG document of the icon.

    Returns:
        The source of each picture by its codepoints without variation selectors.
    """
    chars: dict[str, str] = download.read_json(style.index, work, "chars.json")
    names = {bare(code): name for code, name in chars.items()}
    if style.is_raster:
        return {code: data for code, data in _rasters(style, work) if code in names}
    icons = download.read_json(style.archive, work, "icons.json")
    return {
        code: svg(icons, name).encode()
        for code, name in names.items()
        if resolve(icons, name) is not None
    }


def _rasters(style: Style, work: Path) -> list[tuple[str, bytes]]:
    out: list[tuple[str, bytes]] = []
    with tarfile.open(download.path(style.archive, work)) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.name.endswith(".webp") else None
            if stream is not None:
                out.append((bare(Path(member.name).stem), stream.read()))
    return out


def resolve(icons: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Find an icon in an icon set, by its name or by an alias of it."""
    alias = icons.get("aliases", {}).get(name, {})
    return icons["icons"].get(name) or icons["icons"].get(alias.get("parent"))


def svg(icons: dict[str, Any], name: str) -> str:
    """Write the SVG document of one icon, centred in a square.

    Raises:
        KeyError: The set has no such icon.
    """
    icon = resolve(icons, name)
    if icon is None:
        msg = f"icon set {icons['prefix']} has no icon {name}"
        raise KeyError(msg)
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    edge = max(width, height)
    left = icon.get("left", 0) - (edge - width) / 2
    top = icon.get("top", 0) - (edge - height) / 2
    body = re.sub(r"\s+", " ", icon["body"])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left:g} {top:g} {edge:g} {edge:g}">{body}</svg>'
    )
