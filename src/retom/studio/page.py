"""The page: its parts in their places, and which event goes where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from retom.studio import form, history
from retom.studio.handlers import Handlers, told
from retom.studio.request import NAMES
from retom.studio.view import add_view

if TYPE_CHECKING:
    from retom.studio.studio import Studio

_STATE_SECONDS = 1800
"""How long pictures and recordings of a page that is left alone stay in memory."""
_FILES = (600, 3600)
"""How often, in seconds, files of pictures are looked through, and how old they may get."""
_SELECT_RUN = """element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-run]');
  if (card) trigger('click', {run: Number(card.dataset.run)});
});"""
# Components refuse what they do not know in words of their own, or end in an error of Python's; so
# what arrives is passed on as it is, and read where every refusal says what is allowed.
_HIDDEN: dict[str, Any] = {"preprocess": False, "show_progress": "hidden"}
_PRIVATE: dict[str, Any] = {**_HIDDEN, "api_visibility": "private"}
_HEAD = "<h1>retom studio</h1><p>See what token merging does to a picture, and what it saves.</p>"


class _Page(gr.Blocks):
    """Refuses an event with too few values in a sentence; gradio tells a client nothing."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:  # noqa: ANN401 - gradio's
        if len(inputs) < len(block_fn.inputs):
            raise told(
                f"{len(inputs)} values are too few for this event; gradio_api/info lists what it "
                "takes."
            )


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio, not served yet."""
    with _Page(
        title="retom studio", analytics_enabled=False, fill_width=True, delete_cache=_FILES
    ) as page:
        gr.HTML(_HEAD, elem_id="retom-head")
        with gr.Row(elem_id="retom-main"):
            with gr.Column(elem_id="retom-ask"):
                fields = form.add_prompt(studio)
                with gr.Row(elem_id="retom-buttons"):
                    draw = gr.Button("Draw both", variant="primary", elem_id="retom-draw")
                    stop = gr.Button("Stop", variant="stop", visible=False, elem_id="retom-stop")
            with gr.Column(elem_id="retom-result"):
                view = add_view()
            with gr.Column(elem_id="retom-settings"):
                fields |= form.add_settings(studio)
        with gr.Column(elem_id="retom-past"):
            with gr.Row(elem_id="retom-past-head"):
                gr.HTML("<h2>Your runs</h2>")
                clear = gr.Button("Clear", size="sm", min_width=70, elem_id="retom-clear")
            past = gr.HTML(history.strip([]), js_on_load=_SELECT_RUN, elem_id="retom-runs")
        store = gr.BrowserState([], storage_key="retom-studio-runs", secret="retom-studio")
        states = [gr.State(None, time_to_live=_STATE_SECONDS) for _ in range(3)]
        handlers = Handlers(studio, view, draw, stop, *states)
        _connect_work(page, handlers, fields)
        _connect_fields(handlers, fields)
        _connect_history(page, handlers, fields, (store, past, clear))
    return page


def _connect_work(page: gr.Blocks, handlers: Handlers, fields: form.Fields) -> None:
    view = handlers.view
    inputs = [fields[name] for name in NAMES]
    pictures = [view.slider, view.numbers, view.python, view.json, view.difference]
    places = [*pictures, view.note, view.stage, view.results, view.looked, view.look, view.looking]
    buttons = [handlers.draw_button, handlers.stop_button]
    gr.on(
        [handlers.draw_button.click, fields["prompt"].submit],
        handlers.draw,
        [*inputs, handlers.drawn],
        [*places, *buttons, handlers.drawn, handlers.fresh, handlers.looked],
        api_name="draw",
        **_HIDDEN,
    )
    view.look.click(
        handlers.look,
        handlers.drawn,
        [
            *(view.legend, view.overlay, view.shown, view.layer, view.step),
            *(view.looked, view.look, view.looking, *buttons, handlers.looked),
        ],
        **_PRIVATE,
    )
    gr.on(
        [view.shown.input, view.layer.input, view.step.release],
        handlers.show,
        [handlers.looked, view.shown, view.layer, view.step],
        [view.overlay, view.legend],
        **_PRIVATE,
    )
    handlers.stop_button.click(handlers.stop, api_name="stop", queue=False)
    page.unload(handlers.stop)


def _connect_fields(handlers: Handlers, fields: form.Fields) -> None:
    merging = [fields[name] for name in ("method", "ratio", "window", "scope", "whole_below")]
    fields["preset"].input(handlers.choose_preset, fields["preset"], merging, **_PRIVATE)
    fields["method"].input(handlers.choose_method, fields["method"], merging[1:3], **_PRIVATE)
    own = form.defaults(next(iter(handlers.studio.models.values())), handlers.studio.limits)
    fields["model"].input(
        handlers.choose_model,
        fields["model"],
        [fields[name] for name in own],
        **_PRIVATE,
    )


def _connect_history(
    page: gr.Blocks, handlers: Handlers, fields: form.Fields, parts: tuple[Any, Any, Any]
) -> None:
    store, past, clear = parts
    page.load(history.strip, store, past, **_PRIVATE)
    handlers.fresh.change(handlers.remember, [handlers.fresh, store], [store, past], **_PRIVATE)
    past.click(handlers.again, store, [fields[name] for name in NAMES], **_PRIVATE)

    def nothing() -> tuple[list[history.Entry], str]:
        return [], history.strip([])

    clear.click(nothing, None, [store, past], **_PRIVATE)
