"""The fields of the page: everything that a visitor can ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from retom.config import SCOPES
from retom.drawing.bundled import BUNDLED
from retom.drawing.generation import size_step
from retom.methods import METHODS
from retom.presets import PRESETS
from retom.studio.abilities import takes_negative_prompt
from retom.studio.request import NAMES, config_of, takes, window_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retom.drawing.loading import Model
    from retom.studio.limits import Limits
    from retom.studio.request import Request
    from retom.studio.studio import Studio

Fields = dict[str, Any]
"""Components by the names of a request."""

WINDOWS = ("auto", "2x2", "1x2", "2x1", "2x4", "4x2", "3x3", "4x4", "8x8")
EXAMPLES = (
    "a hamburger, fluent 3d emoji",
    "a red apple, fluent 3d emoji, on a blue background",
    "a mushroom, fluent 3d emoji, on a green background",
)
"""Prompts that the bundled models were trained for."""

_MOST_WHOLE = 0.6
_MOST_RATIO = 0.9
"""More leaves nothing to look at."""
_RANDOM_SEED = "() => Math.floor(Math.random() * 2 ** 32)"


def add_prompt(studio: Studio) -> Fields:
    """The prompt and, where there is a choice, the model."""
    name, model = next(iter(studio.models.items()))
    bundled = model.name in BUNDLED
    prompt = gr.Textbox(
        label="Prompt",
        value=EXAMPLES[0] if bundled else "",
        placeholder="What to draw",
        lines=1,
        max_lines=6,
        max_length=studio.limits.prompt,
        elem_id="retom-prompt",
    )
    models = gr.Dropdown(
        list(studio.models),
        value=name,
        label="Model",
        visible=len(studio.models) > 1,
        elem_id="retom-model",
    )
    if bundled:
        with gr.Row(elem_id="retom-examples"):
            for words in EXAMPLES:
                example = gr.Button(words.split(",")[0], size="sm", min_width=60)
                example.click(None, None, prompt, js=f"() => {words!r}", api_visibility="private")
    return {"prompt": prompt, "model": models}


def add_settings(studio: Studio) -> Fields:
    """How it merges, and what else is drawn."""
    model = next(iter(studio.models.values()))
    own = defaults(model, studio.limits)
    fields: Fields = {}
    fields["preset"] = gr.Radio(
        list(PRESETS), value="balanced", label="Preset", elem_id="retom-preset"
    )
    fields["ratio"] = gr.Slider(
        0,
        _MOST_RATIO,
        value=0.5,
        step=0.05,
        label="Ratio",
        info="Share of the tokens that are merged away",
        elem_id="retom-ratio",
    )
    with gr.Row(elem_id="retom-merging"):
        fields["method"] = gr.Dropdown(list(METHODS), value="retom", label="Method", min_width=90)
        fields["window"] = gr.Dropdown(list(WINDOWS), value="auto", label="Window", min_width=80)
        fields["scope"] = gr.Dropdown(list(SCOPES), value="auto", label="Scope", min_width=90)
    fields["whole_below"] = gr.Slider(
        0,
        _MOST_WHOLE,
        value=config_of({}).noise[0],
        step=0.05,
        label="Whole below noise",
        info="Leaves the last steps un-merged; 0 merges in all, 1 would be pure noise",
        elem_id="retom-whole",
    )
    with gr.Row(elem_id="retom-sampling"):
        for name, label in (
            ("height", "Height"),
            ("width", "Width"),
            ("steps", "Steps"),
            ("guidance", "Guidance"),
        ):
            fields[name] = gr.Number(label=label, min_width=60, **own[name])
    with gr.Row(elem_id="retom-seed-row"):
        fields["seed"] = gr.Number(0, label="Seed", min_width=80, elem_id="retom-seed")
        another = gr.Button("Another seed", size="md", min_width=110, elem_id="retom-new-seed")
        another.click(None, None, fields["seed"], js=_RANDOM_SEED, api_visibility="private")
    fields["negative_prompt"] = gr.Textbox(
        value="",
        label="Negative prompt",
        placeholder="What to steer away from",
        max_lines=4,
        max_length=studio.limits.prompt,
        **own["negative_prompt"],
    )
    return fields


def defaults(model: Model, limits: Limits) -> dict[str, dict[str, Any]]:
    """Properties of the fields that depend on the model."""
    step = size_step(model)
    largest = limits.side // step * step
    height, width = model.default_size or (largest, largest)
    # No minimum or maximum: a wrong value gets a sentence from the request, which says more.
    return {
        "height": {"step": step, "value": height},
        "width": {"step": step, "value": width},
        "steps": {"step": 1, "value": min(model.steps, limits.steps)},
        "guidance": {"step": 0.5, "value": model.guidance},
        "negative_prompt": {"visible": takes_negative_prompt(model)},
    }


def of_model(model: Model, limits: Limits) -> list[Any]:
    """Updates of the fields that depend on the model, in the order of :func:`defaults`."""
    return [gr.update(**properties) for properties in defaults(model, limits).values()]


def of_preset(preset: object) -> list[Any]:
    """Updates of method, ratio, window, scope and noise, once a preset was chosen.

    Raises:
        ConfigError: There is no such preset.
    """
    config = config_of({"preset": preset})
    options = _of_options(config.method.name, config.method)
    return [config.method.name, *options, config.scope, config.noise[0]]


def of_method(method: object) -> list[Any]:
    """Updates of ratio and window, once a method was chosen.

    Raises:
        ConfigError: There is no such method.
    """
    config = config_of({"method": method})
    return _of_options(config.method.name, config.method)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """A form's values as a request: what the method does not take is not shown, and not read."""
    method = values.get("method")
    known = {"ratio", "window"}
    if isinstance(method, str) and method in METHODS:
        known = takes(method)
    hidden = {"ratio", "window"} - known
    return {name: value for name, value in values.items() if name not in hidden}


def filled(request: Request) -> list[Any]:
    """Updates of all fields to what a request says, in the order of :data:`NAMES`."""
    values = dict(request.values)
    ratio, window = _of_options(values["method"], request.config.method)
    return [{"ratio": ratio, "window": window}.get(name, values[name]) for name in NAMES]


def _of_options(name: str, method: Any) -> list[Any]:  # noqa: ANN401 - of any class
    known = takes(name)
    ratio = gr.update(visible="ratio" in known, value=method.ratio)
    if "window" not in known:
        return [ratio, gr.update(visible=False)]
    return [ratio, gr.update(visible=True, value=window_words(method.window))]
