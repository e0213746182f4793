"""Runs that a visitor's browser keeps: their settings, numbers and a thumbnail.

They lie in the browser's own storage and nowhere else. What comes back from there is read like
anything else that a visitor sends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from retom.studio import facts, markup
from retom.studio.request import NAMES
from retom.studio.thumbnail import data_uri, is_data_uri

if TYPE_CHECKING:
    from retom.studio.studio import Drawn

LENGTH = 24
"""Runs that are kept."""

Entry = dict[str, Any]


def entry_of(drawn: Drawn) -> Entry:
    """A run as plain data."""
    numbers = facts.facts_of(drawn)
    return {
        "values": dict(drawn.request.values),
        "thumbnail": data_uri(drawn.result.merged.image),
        "speedup": numbers.speedup,
        "psnr": numbers.psnr,
        "setting": facts.setting(drawn.request),
    }


def added(entry: Entry, stored: object) -> list[Entry]:
    """A run before those of before, the oldest dropped once there are :data:`LENGTH`."""
    return [entry, *read(stored)][:LENGTH]


def read(stored: object) -> list[Entry]:
    """The runs in what a browser kept; what is no run is left out."""
    entries = cast("list[object]", stored) if isinstance(stored, list) else []
    return [cast("Entry", entry) for entry in entries[:LENGTH] if _is_entry(entry)]


def strip(stored: object) -> str:
    """Markup of all runs, each a button that says its number in ``data-run``."""
    entries = read(stored)
    if not entries:
        return (
            '<p class="retom-hint">Every picture that you draw is kept here, in this browser '
            "alone. Choose one to get its settings back.</p>"
        )
    cards = "".join(_card(place, entry) for place, entry in enumerate(entries))
    return f'<div class="retom-runs">{cards}</div>'


def _card(place: int, entry: Entry) -> str:
    values = entry["values"]
    psnr = "identical" if entry["psnr"] is None else f"{entry['psnr']:.1f} dB"
    prompt = markup.text(values["prompt"])
    return (
        f'<button type="button" data-run="{place}" title="{prompt}: use these settings again">'
        f'<img src="{entry["thumbnail"]}" alt="{prompt}">'
        f"<b>{prompt}</b>"
        f"<span>{markup.text(entry['setting'])}</span>"
        f"<span>{entry['speedup']:.2f}× · {psnr}</span></button>"
    )


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, Mapping):
        return False
    data = cast("Mapping[str, Any]", entry)
    values = data.get("values")
    return (
        isinstance(values, Mapping)
        and set(cast("Mapping[str, Any]", values)) <= set(NAMES)
        and isinstance(cast("Mapping[str, Any]", values).get("prompt"), str)
        and is_data_uri(data.get("thumbnail"))
        and isinstance(data.get("setting"), str)
        and _is_number(data.get("speedup"))
        and (data.get("psnr") is None or _is_number(data["psnr"]))
    )


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e9  # also False for nan
        and math.isfinite(value)
    )
