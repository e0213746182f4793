"""How the page looks: gradio's plain theme, the system's own fonts, and :file:`page.css`.

Nothing is fetched from another host.
"""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, Font, sizes


def head() -> str:
    """The style sheet of the page, for its head."""
    sheet = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return f"<style>{sheet}</style>"


def theme() -> Base:
    """The theme of the page."""
    return Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size=sizes.radius_md,
        spacing_size=sizes.spacing_md,
        text_size=sizes.text_md,
        font=[Font("system-ui"), Font("-apple-system"), Font("Segoe UI"), Font("sans-serif")],
        font_mono=[Font("ui-monospace"), Font("Menlo"), Font("Consolas"), Font("monospace")],
    ).set(
        body_background_fill="*neutral_50",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill="transparent",
        block_title_text_weight="600",
        block_padding="0px",
        block_info_text_size="*text_xs",
        panel_border_width="0px",
        layout_gap="14px",
        body_text_color_subdued="*neutral_500",
        button_secondary_background_fill="*neutral_100",
        button_secondary_border_color="*neutral_200",
        input_background_fill="*neutral_50",
        input_border_width="1px",
        input_border_color="*neutral_200",
    )
