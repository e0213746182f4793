"""docs/models.md is what its generator prints, and every transformer row has a proof in it."""

import models_page

from retom.models.registry import DENOISERS


def test_every_transformer_with_a_row_is_proved():
    # Sana has no row of a block; tests/test_transformers.py tests its attention, and
    # tests/test_transformer_controlnets.py that of its ControlNet.
    assert set(DENOISERS) - models_page.proved_denoisers() == {
        "SanaTransformer2DModel",
        "SanaControlNetModel",
    }


def test_the_page_is_what_the_generator_prints():
    page = models_page.PAGE.read_text(encoding="utf-8")
    assert models_page.generated_part(page) == models_page.table()
