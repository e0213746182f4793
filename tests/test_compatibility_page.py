"""docs/compatibility.md is what its generator prints."""

import compatibility_page


def test_the_page_is_what_the_generator_prints():
    page = compatibility_page.PAGE.read_text(encoding="utf-8")
    assert compatibility_page.generated_part(page) == compatibility_page.tables()
