"""Draw a ComfyUI workflow as SVG: ``python draw.py WORKFLOW.json WORKFLOW_API.json OUT.svg``.

The file that the editor saves tells where the boxes stand and what is joined; the one in the
format of the API tells the names of the settings. The picture shows these files and nothing else.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

ROW, HEAD, MARGIN = 20, 30, 24
COLOURS = {
    "MODEL": "#7a5cc0",
    "CLIP": "#b58a00",
    "VAE": "#c0392b",
    "CONDITIONING": "#c06020",
    "LATENT": "#b03a8c",
    "IMAGE": "#2f74c0",
}
OURS = "ReToM"


def draw(workflow: dict[str, Any], api: dict[str, Any]) -> str:
    """A workflow, in both of its formats, as the text of an SVG file."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    right = max(node["pos"][0] + node["size"][0] for node in nodes.values()) + MARGIN
    bottom = max(node["pos"][1] + node["size"][1] for node in nodes.values()) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{right}" height="{bottom}" fill="#ffffff"/>',
    ]
    parts += [_wire(nodes, link) for link in workflow["links"]]
    parts += [_box(node, api[str(number)]["inputs"]) for number, node in nodes.items()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _wire(nodes: dict[int, Any], link: list[Any]) -> str:
    _, source, output, target, slot, kind = link
    x1, y1 = nodes[source]["pos"][0] + nodes[source]["size"][0], _row(nodes[source], output)
    x2, y2 = nodes[target]["pos"][0], _row(nodes[target], slot)
    bend = max(30, abs(x2 - x1) // 2)
    path = f"M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return f'<path d="{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2"/>'


def _box(node: dict[str, Any], inputs: dict[str, Any]) -> str:
    (x, y), (width, height) = node["pos"], node["size"]
    ours = node["type"].startswith(OURS)
    fill, edge = ("#efe9fb", "#7a5cc0") if ours else ("#f5f5f5", "#8a8a8a")
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" '
        f'stroke="{edge}" stroke-width="{2 if ours else 1}"/>',
        f'<text x="{x + 10}" y="{y + 19}" font-weight="bold">{escape(node["title"])}</text>',
    ]
    for slot, entry in enumerate(node["inputs"]):
        row, colour = _row(node, slot), COLOURS[entry["type"]]
        parts.append(f'<circle cx="{x}" cy="{row}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10}" y="{row + 4}">{escape(entry["name"])}</text>')
    for slot, entry in enumerate(node["outputs"]):
        row, colour = _row(node, slot), COLOURS[entry["type"]]
        end = x + width
        parts.append(f'<circle cx="{end}" cy="{row}" r="4" fill="{colour}"/>')
        name = escape(entry["name"])
        parts.append(f'<text x="{end - 10}" y="{row + 4}" text-anchor="end">{name}</text>')
    first = HEAD + ROW * max(len(node["inputs"]), len(node["outputs"]))
    settings = {name: value for name, value in inputs.items() if not isinstance(value, list)}
    for number, (name, value) in enumerate(settings.items()):
        row = y + first + ROW * number + 14
        text = escape(f"{name}: {value}")
        parts.append(f'<text x="{x + 10}" y="{row}" fill="#555555">{text}</text>')
    return "\n".join(parts)


def _row(node: dict[str, Any], slot: int) -> int:
    return node["pos"][1] + HEAD + ROW * slot + ROW // 2


if __name__ == "__main__":
    *files, drawn = (Path(argument) for argument in sys.argv[1:4])
    read = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    drawn.write_text(draw(*read), encoding="utf-8")
