"""Text in markup: whatever a visitor wrote stays text."""

from __future__ import annotations

from html import escape

# Gradio reads ${...} and {{...}} in templates; a prompt must not be able to write one.
_MORE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})


def text(words: object) -> str:
    """Words for an element or an attribute in quotes."""
    return escape(str(words), quote=True).translate(_MORE)
