"""Markup of everything that is told while there is no picture to show, and of its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.studio import facts
from retom.studio.job import Waiting, Working
from retom.studio.markup import text
from retom.studio.thumbnail import data_uri

if TYPE_CHECKING:
    from retom.drawing.loading import Model
    from retom.studio.facts import Facts
    from retom.studio.studio import Drawn
    from retom.viz.shapes import Colour, Drawing

_PREVIEW_SIDE = 256
_LABELS = {
    "warming up": "Warming up",
    "un-merged": "Un-merged",
    "merged": "Merged",
    "recorded": "Merged, and recorded",
}


def empty() -> str:
    """Before the first picture."""
    return (
        '<div class="retom-stage"><div class="retom-frame"><div class="retom-grid"></div></div>'
        "<p>One prompt, one seed, two pictures: as the model draws it, and with tokens merged. "
        "Drag the handle between them to compare.</p></div>"
    )


def underway(event: Waiting | Working, preview: str | None) -> str:
    """While a picture waits or is drawn, with how it looked at last."""
    picture = (
        f'<img src="{preview}" alt="The picture so far">'
        if preview
        else '<div class="retom-grid retom-busy"></div>'
    )
    return (
        f'<div class="retom-stage"><div class="retom-frame">{picture}</div>{_progress(event)}</div>'
    )


def progress(event: Waiting | Working) -> str:
    """The same without a picture."""
    return f'<div class="retom-stage">{_progress(event)}</div>'


def preview_of(event: Working) -> str | None:
    """The preview of an event, if it has one."""
    return None if event.preview is None else data_uri(event.preview, _PREVIEW_SIDE)


def note(words: str) -> str:
    """Something to know."""
    return f'<p class="retom-note" role="status">{text(words)}</p>' if words else ""


def failure(sentence: str) -> str:
    """What went wrong."""
    return f'<p class="retom-failure" role="alert">{text(sentence)}</p>'


def numbers(drawn: Drawn, model: Model) -> str:
    """Times, speed-up and closeness of a picture both ways."""
    known = facts.facts_of(drawn)
    seconds, denoiser = known.seconds, known.denoiser_seconds
    cells = [
        ("Speed", f"{known.speedup:.2f}×", f"{seconds[0]:.2f} s to {seconds[1]:.2f} s", "lead"),
        (
            "Denoiser alone",
            f"{known.denoiser_speedup:.2f}×",
            f"{denoiser[0]:.2f} s to {denoiser[1]:.2f} s",
            "",
        ),
        ("PSNR", known.closeness, "to the un-merged picture", ""),
        ("SSIM", f"{known.ssim:.3f}", "1 is identical", ""),
        _tokens(known),
    ]
    boxes = "".join(
        f'<div class="{kind}"><dt>{text(name)}</dt><dd>{text(value)}</dd>'
        f"<small>{text(more)}</small></div>"
        for name, value, more, kind in cells
    )
    values = drawn.request.values
    about = (
        f"{facts.picture(values)} · {facts.setting(drawn.request)} · one pair after a "
        "warm-up, previews not counted: other work on this machine moves the times · "
        f"{facts.where(model)}"
    )
    slower = (
        note(
            "Merging took longer than it saved here: few tokens leave little to gain. Larger "
            "pictures gain more."
        )
        if known.speedup < 1 and known.tokens
        else ""
    )
    return f'<dl class="retom-numbers">{boxes}</dl>{slower}<p class="retom-hint">{text(about)}</p>'


def legend(drawing: Drawing, words: str) -> str:
    """What the colours of an overlay mean, and what it shows."""
    marks = "".join(
        f'<li><i style="background:{_css(colour)}"></i>{text(label)}</li>'
        for label, colour in drawing.legend
    )
    return f'<ul class="retom-legend">{marks}</ul><p class="retom-hint">{text(words)}</p>'


def _progress(event: Waiting | Working) -> str:
    if isinstance(event, Waiting):
        share, label, detail = 0.0, "In line", _ahead(event.ahead)
    else:
        share = event.done / event.total if event.total else 0.0
        label = _LABELS.get(event.label, event.label)
        detail = f"step {event.done} of {event.total}" if event.total else ""
    return (
        f'<p role="status"><b>{text(label)}</b> <span>{text(detail)}</span></p>'
        f'<div class="retom-bar"><i style="width:{100 * share:.0f}%"></i></div>'
    )


def _tokens(known: Facts) -> tuple[str, str, str, str]:
    if not known.tokens:
        return "Tokens", "all", "nothing merged", ""
    (before, after), *more = known.tokens
    others = f", and {len(more)} smaller grids" if more else ""
    return "Tokens", f"{after}", f"of {before} on the largest grid{others}", ""


def _ahead(count: int) -> str:
    if count == 0:
        return "it is your turn"
    return f"{count} picture{'s' if count > 1 else ''} before yours"


def _css(colour: Colour) -> str:
    red, green, blue, opacity = colour
    return f"rgba({red},{green},{blue},{opacity / 255:.2f})"
