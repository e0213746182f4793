"""What happens when a visitor does something: between the page's components and the studio."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import gradio as gr

from retom.checks import check_choice
from retom.drawing.sheet import difference_map
from retom.errors import RetomError
from retom.studio import form, history, overlay, recipe, stage
from retom.studio.job import Event, Failed, Finished, Waiting, Working
from retom.studio.request import NAMES, read_request, shortened
from retom.studio.studio import Drawn, Looked, Studio

if TYPE_CHECKING:
    from retom.studio.job import Job
    from retom.studio.view import View

# Gradio reads the annotations of handlers, so what they name is imported here in earnest.

Update = dict[Any, Any]
"""What becomes of components."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """One method an event.

    Args:
        studio: Draws.
        view: What is updated.
        draw_button: Shown while nothing is drawn.
        stop_button: Shown while something is.
        drawn: State: the visitor's last picture.
        fresh: State: the same, while it is not in the history yet.
        looked: State: what merged in it.
    """

    studio: Studio
    view: View
    draw_button: Any
    stop_button: Any
    drawn: Any
    fresh: Any
    looked: Any

    def draw(  # noqa: PLR0913 - the names that a client of the page's interface sees
        self,
        model: object,
        prompt: object,
        negative_prompt: object,
        seed: object,
        steps: object,
        guidance: object,
        height: object,
        width: object,
        preset: object,
        method: object,
        ratio: object,
        window: object,
        scope: object,
        whole_below: object,
        last: Drawn | None,
        request: gr.Request,
    ) -> Generator[Update]:
        """Draw a prompt un-merged and merged."""
        given = (model, prompt, negative_prompt, seed, steps, guidance, height, width)
        given += (preset, method, ratio, window, scope, whole_below)
        values = form.given(dict(zip(NAMES, given, strict=True)))
        view = self.view
        yield self._buttons(busy=True) | {self.fresh: None, view.note: gr.update(visible=False)}
        preview = None
        for event in self._events(lambda: self.studio.draw(owner_of(request), values)):
            if isinstance(event, (Waiting, Working)):
                if isinstance(event, Working):
                    preview = stage.preview_of(event) or preview
                yield {
                    view.stage: gr.update(value=stage.underway(event, preview), visible=True),
                    view.results: gr.update(visible=False),
                }
            elif isinstance(event, Finished):
                yield self._buttons(busy=False) | self._result(cast("Drawn", event.value))
            else:
                yield self._buttons(busy=False) | self._ended(event, back=last is not None)
                _complain(event)

    def look(self, drawn: Drawn | None, request: gr.Request) -> Generator[Update]:
        """Draw the merged picture once more, and show what merged."""
        if drawn is None:
            raise told("Draw a picture first; then there is something to look into.")
        view = self.view
        yield self._buttons(busy=True) | {view.look: gr.update(interactive=False)}
        values = drawn.request.values
        for event in self._events(lambda: self.studio.look(owner_of(request), values)):
            if isinstance(event, (Waiting, Working)):
                yield {view.looking: stage.progress(event)}
                continue
            yield self._buttons(busy=False) | {view.look: gr.update(interactive=True)}
            if isinstance(event, Finished):
                yield self._look(cast("Looked", event.value))
            else:
                yield {view.looking: _words(event)}
                _complain(event)

    def show(
        self, looked: Looked | None, shown: object, layer: object, step: object
    ) -> tuple[Any, str]:
        """Another map, layer or step of what merged."""
        if looked is None:
            raise told("What merged is no longer in memory; show it again.")
        try:
            picture, legend = overlay.of(looked, shown, layer, step)
        except RetomError as error:
            return None, stage.failure(str(error))
        return picture, legend

    def stop(self, request: gr.Request) -> None:
        """Stop what this visitor has asked for."""
        self.studio.stop(owner_of(request))

    def remember(self, fresh: Drawn | None, stored: object) -> tuple[list[history.Entry], str]:
        """Add a new run to what the browser keeps."""
        entries = history.read(stored)
        if fresh is not None:
            entries = history.added(history.entry_of(fresh), entries)
        return entries, history.strip(entries)

    def again(self, stored: object, event: gr.EventData) -> list[Any]:
        """Put the settings of a run back into the form, in the order of :data:`NAMES`."""
        entries = history.read(stored)
        try:
            place = getattr(event, "run", None)
        except TypeError:  # what came with the click is no object
            place = None
        if type(place) is not int or not 0 <= place < len(entries):
            raise told("This run is no longer in the history.")
        with _refusals():
            values = form.given(entries[place]["values"])
            return form.filled(read_request(values, self.studio.models, self.studio.limits))

    def choose_preset(self, preset: object) -> list[Any]:
        """Fill in method, ratio, window, scope and noise."""
        with _refusals():
            return form.of_preset(preset)

    def choose_method(self, method: object) -> list[Any]:
        """Fill in ratio and window."""
        with _refusals():
            return form.of_method(method)

    def choose_model(self, model: object) -> list[Any]:
        """Fill in what depends on the model."""
        with _refusals():
            check_choice("model", shortened(model), tuple(self.studio.models))
            return form.of_model(self.studio.models[cast("str", model)], self.studio.limits)

    def _events(self, submit: Any) -> Generator[Event]:  # noqa: ANN401 - a function to a job
        try:
            job: Job = submit()
        except RetomError as error:
            yield Failed(str(error))
            return
        yield from job.events()

    def _buttons(self, *, busy: bool) -> Update:
        return {
            self.draw_button: gr.update(
                interactive=not busy, value="Drawing…" if busy else "Draw both"
            ),
            self.stop_button: gr.update(visible=busy),
        }

    def _result(self, drawn: Drawn) -> Update:
        view, request = self.view, drawn.request
        model = self.studio.models[request.model]
        unmerged, merged = drawn.images
        return {
            view.stage: gr.update(visible=False),
            view.results: gr.update(visible=True),
            view.note: gr.update(value=stage.note(drawn.note), visible=bool(drawn.note)),
            view.slider: (unmerged, merged),
            view.difference: difference_map(merged, unmerged),
            view.numbers: stage.numbers(drawn, model),
            view.python: recipe.as_python(model, request.settings, request.config),
            view.json: recipe.as_json(request.config),
            view.looked: gr.update(visible=False),
            view.look: gr.update(visible=True),
            view.looking: gr.update(value=overlay.HINT, visible=True),
            self.drawn: drawn,
            self.fresh: drawn,
            self.looked: None,
        }

    def _ended(self, event: Event, *, back: bool) -> Update:
        """Without a picture: back to the last one, if there is one."""
        view = self.view
        return {
            view.note: gr.update(value=_words(event), visible=True),
            view.stage: gr.update(value=stage.empty(), visible=not back),
            view.results: gr.update(visible=back),
        }

    def _look(self, looked: Looked) -> Update:
        view, recording = self.view, looked.recording
        layer, step = recording.layers[0], recording.of_layer(0)[-1].call + 1
        picture, legend = overlay.of(looked, "groups", layer, step)
        return {
            self.looked: looked,
            view.looked: gr.update(visible=True),
            view.look: gr.update(visible=False),
            view.looking: gr.update(visible=False),
            view.overlay: picture,
            view.legend: legend,
            view.shown: gr.update(choices=overlay.maps_of(looked), value="groups"),
            view.layer: gr.update(choices=overlay.layers_of(looked), value=layer),
            # A slider of gradio's needs two ends, where a picture of one step has one.
            view.step: gr.update(
                maximum=max(2, recording.calls), value=step, visible=recording.calls > 1
            ),
        }


def owner_of(request: gr.Request) -> str:
    """Whose work it is: one loaded page, or one client."""
    return request.session_hash or uuid4().hex


def _words(event: Event) -> str:
    """Why there is no picture."""
    return stage.failure(event.sentence) if isinstance(event, Failed) else stage.note("Stopped.")


def _complain(event: Event) -> None:
    """Tell a client too that there is no picture."""
    if isinstance(event, Failed):
        raise told(event.sentence)


def told(sentence: str) -> gr.Error:
    """What gradio shows a visitor, without a traceback in the owner's log."""
    return gr.Error(sentence, print_exception=False)


@contextmanager
def _refusals() -> Generator[None]:
    """Tell a visitor what retom refuses inside a ``with`` block."""
    try:
        yield
    except RetomError as error:
        raise told(str(error)) from None
