"""The right side of the page: pictures, numbers, what merged, and the same as code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from retom.studio import overlay as overlay_words
from retom.studio import stage
from retom.viz import MAPS

_SIDES = '<p class="retom-sides"><span>un-merged</span><span>merged</span></p>'
_COPY = """async (code) => {
  const done = () => { const b = document.querySelector('#retom-copy'); const was = b.textContent;
    b.textContent = 'Copied'; setTimeout(() => { b.textContent = was; }, 1500); };
  try { await navigator.clipboard.writeText(code); done(); return; } catch {}
  const area = document.createElement('textarea');
  area.value = code; document.body.append(area); area.select();
  document.execCommand('copy'); area.remove(); done();
}"""
_DOWNLOAD = """(json) => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([json], {type: 'application/json'}));
  link.download = 'retom-config.json';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


@dataclass(frozen=True, slots=True)
class View:
    """Components of the right side."""

    note: Any
    stage: Any
    results: Any
    slider: Any
    difference: Any
    numbers: Any
    look: Any
    looking: Any
    looked: Any
    shown: Any
    layer: Any
    step: Any
    overlay: Any
    legend: Any
    python: Any
    json: Any


def add_view() -> View:
    """Build the right side."""
    note = gr.HTML(visible=False, elem_id="retom-note")
    waiting = gr.HTML(stage.empty(), elem_id="retom-stage")
    with gr.Column(visible=False, elem_id="retom-results") as results:
        with gr.Tabs():
            with gr.Tab("Compare"):
                gr.HTML(_SIDES)
                slider = gr.ImageSlider(
                    type="pil",
                    format="png",
                    interactive=False,
                    show_label=False,
                    container=False,
                    max_height=520,
                    buttons=["download", "fullscreen"],
                    elem_id="retom-slider",
                )
            with gr.Tab("Difference"):
                difference = gr.Image(
                    format="png",
                    interactive=False,
                    show_label=False,
                    container=False,
                    buttons=["download", "fullscreen"],
                    elem_id="retom-difference",
                )
                gr.HTML(
                    '<p class="retom-hint retom-under">Mean absolute difference of the '
                    "channels, ten times enlarged: black is equal, pale yellow a tenth of the "
                    "range or more.</p>"
                )
            with gr.Tab("What merged"):
                look = gr.Button("Show what merged", elem_id="retom-look")
                looking = gr.HTML(overlay_words.HINT, elem_id="retom-looking")
                with gr.Column(visible=False, elem_id="retom-looked") as looked:
                    shown = gr.Radio(list(MAPS), value="groups", show_label=False, container=False)
                    overlay = gr.Image(
                        format="png",
                        interactive=False,
                        show_label=False,
                        container=False,
                        buttons=["download", "fullscreen"],
                        elem_id="retom-overlay",
                    )
                    legend = gr.HTML(elem_id="retom-legend")
                    with gr.Row():
                        step = gr.Slider(1, 2, value=1, step=1, label="Step", min_width=180)
                        layer = gr.Dropdown([], label="Layer", min_width=180)
            with gr.Tab("Code"):
                with gr.Row():
                    copy = gr.Button("Copy as Python", size="md", elem_id="retom-copy")
                    download = gr.Button("Download JSON config", size="md", elem_id="retom-json")
                python = gr.Code(
                    language="python", label="Python", interactive=False, elem_id="retom-python"
                )
                json = gr.Code(
                    language="json",
                    label="Configuration",
                    interactive=False,
                    elem_id="retom-config",
                )
                copy.click(None, python, None, js=_COPY, api_visibility="private")
                download.click(None, json, None, js=_DOWNLOAD, api_visibility="private")
        numbers = gr.HTML(elem_id="retom-numbers")
    return View(
        note=note,
        stage=waiting,
        results=results,
        slider=slider,
        difference=difference,
        numbers=numbers,
        look=look,
        looking=looking,
        looked=looked,
        shown=shown,
        layer=layer,
        step=step,
        overlay=overlay,
        legend=legend,
        python=python,
        json=json,
    )
