"""``retom studio`` in a real Chromium: draw, compare, stop, wrong input, two users, a phone."""

import os
import re
import shutil

import pytest
from tiny import sd_pipeline

import retom
from retom.drawing.loading import as_model
from retom.studio import Limits
from retom.studio.serving import served
from retom.studio.studio import Studio

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
sync_api = pytest.importorskip("playwright.sync_api", reason="scripts/test-browser installs it")

SECONDS = 1000
PATIENCE = 120 * SECONDS
LAPTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def address():
    studio = Studio({"tiny": as_model(sd_pipeline())}, Limits(side=128, steps=400, queue=4))
    with served(studio) as page:
        yield page.local_url
    studio.close()


@pytest.fixture(scope="module")
def browser():
    executable = os.environ.get("RETOM_CHROMIUM") or shutil.which("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def user(browser, address):
    """A function that opens the page as a new user; other hosts must not be asked for anything."""
    contexts, foreign, failures = [], [], []

    def arrive(**options):
        context = browser.new_context(**{**LAPTOP, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        allowed = (address.rstrip("/"), "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(allowed) else foreign.append(r.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#retom-draw")
        return page

    yield arrive
    for context in contexts:
        context.close()
    assert foreign == []
    assert failures == []


def field(page, label):
    return page.get_by_label(label, exact=True).first


def ask(page, prompt="red", *, steps="2", seed="0"):
    page.fill("#retom-prompt textarea", prompt)
    for label, value in (("Height", "64"), ("Width", "64"), ("Steps", steps), ("Seed", seed)):
        field(page, label).fill(value)
    page.click("#retom-draw")


def result(page):
    page.wait_for_selector("#retom-results")
    page.wait_for_function("!document.querySelector('#retom-draw').disabled")
    return page.locator("#retom-numbers dd").all_inner_texts()


def test_drawing_shows_progress_then_both_pictures_and_numbers(user):
    page = user()
    assert page.locator("#retom-results").count() == 0
    ask(page, steps="60")
    page.wait_for_selector(".retom-frame img")
    assert re.search(r"step \d+ of 60", page.inner_text("#retom-stage"))
    assert page.is_disabled("#retom-draw")
    speed, _, psnr, ssim, tokens = result(page)
    assert re.fullmatch(r"\d+\.\d\d×", speed)
    assert re.fullmatch(r"\d+\.\d dB", psnr)
    assert 0.5 < float(ssim) <= 1
    assert tokens == "32"
    assert page.locator("#retom-slider img").count() == 2
    assert page.locator("#retom-stop").count() == 0


def test_the_handle_between_the_pictures_can_be_dragged(user):
    page = user()
    ask(page)
    result(page)
    inner = page.locator("#retom-slider .inner").first
    box, handle = page.locator("#retom-slider").bounding_box(), inner.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, y, steps=5)
    page.mouse.up()
    moved = inner.bounding_box()
    assert moved["x"] < handle["x"] - box["width"] * 0.2


def test_stop_ends_a_picture_and_the_next_one_works(user):
    page = user()
    ask(page, steps="400")
    page.click("#retom-stop")
    page.wait_for_selector("text=Stopped.")
    page.wait_for_function("!document.querySelector('#retom-draw').disabled")
    ask(page)
    assert len(result(page)) == 5


@pytest.mark.parametrize(
    ("prompt", "steps", "words"),
    [
        ("", "2", "The prompt is empty; write what to draw."),
        ("red", "401", "steps is a whole number from 1 to 400 here; 401 was given."),
        ("red", "1.5", "1.5 was given"),
    ],
)
def test_wrong_input_is_a_sentence_on_the_page(user, prompt, steps, words):
    page = user()
    ask(page, prompt, steps=steps)
    page.wait_for_selector("#retom-note [role=alert]")
    assert words in page.inner_text("#retom-note")
    page.wait_for_function("!document.querySelector('#retom-draw').disabled")
    assert "Traceback" not in page.inner_text("body")


def test_two_users_see_their_own_pictures_alone(user):
    first, second = user(), user()
    ask(first, "red", steps="40", seed="1")
    ask(second, "blue", steps="3", seed="2")
    second.wait_for_selector("text=before yours")
    result(first)
    result(second)
    for page, own, other in ((first, "red", "blue"), (second, "blue", "red")):
        page.wait_for_selector("[data-run]")
        assert page.locator("[data-run] b").all_inner_texts() == [own]
        page.get_by_role("tab", name="Code").click()
        code = page.inner_text("#retom-python")
        assert f"'{own}'" in code
        assert other not in code


def test_a_reload_keeps_the_history_and_gives_settings_back(user):
    page = user()
    nasty = "<b>x</b> ${1+1} {{2}}"
    ask(page, nasty, seed="77")
    result(page)
    page.wait_for_selector("[data-run]")
    page.reload()
    page.wait_for_selector("[data-run]")
    assert page.locator("[data-run] b").all_inner_texts() == [nasty]
    page.click("[data-run]")
    page.wait_for_function("document.querySelector('#retom-seed input').value === '77'")
    assert page.input_value("#retom-prompt textarea") == nasty
    page.click("#retom-clear")
    page.wait_for_selector("text=Every picture that you draw is kept here")
    page.reload()
    page.wait_for_selector("#retom-draw")
    assert page.locator("[data-run]").count() == 0


def test_what_merged_is_drawn_over_the_picture(user):
    page = user()
    ask(page, steps="3")
    result(page)
    page.get_by_role("tab", name="What merged").click()
    page.click("#retom-look")
    page.wait_for_selector("#retom-overlay img")
    # of 64 tokens 23 go as queries, whose groups are drawn, and 41 as keys: 32 in the mean
    # the last step that merged: of DDIM's three the timesteps are 667, 334 and 1
    assert "64 tokens to 41 · 8x8 grid · step 2 of 3" in page.inner_text("#retom-legend")
    before = page.get_attribute("#retom-overlay img", "src")
    page.get_by_text("similarity", exact=True).click()
    page.wait_for_function(
        "before => document.querySelector('#retom-overlay img').src !== before", arg=before
    )
    page.get_by_role("tab", name="Difference").click()
    page.wait_for_selector("#retom-difference img")


def test_the_configuration_is_downloaded_and_the_code_copied(user, tmp_path):
    page = user(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("radio", name="quality").check()
    page.wait_for_function(
        "document.querySelector('#retom-ratio input[type=number]').value === '0.3'"
    )
    ask(page)
    result(page)
    page.get_by_role("tab", name="Code").click()
    with page.expect_download() as download:
        page.click("#retom-json")
    download.value.save_as(tmp_path / "config.json")
    assert download.value.suggested_filename == "retom-config.json"
    assert retom.Config.load(tmp_path / "config.json") == retom.Config.preset("quality")
    page.click("#retom-copy")
    page.wait_for_selector("text=Copied")
    assert "retom.ReToM(ratio=0.3)" in page.evaluate("navigator.clipboard.readText()")


def test_a_phone_shows_everything_within_its_width(user):
    page = user(**PHONE)
    ask(page)
    result(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [
        page.locator(name).bounding_box()["y"]
        for name in ("#retom-ask", "#retom-result", "#retom-settings", "#retom-past")
    ]
    assert tops == sorted(tops)
    for name in ("#retom-draw", "#retom-slider", "#retom-numbers", "#retom-preset"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert page.locator("#retom-draw").bounding_box()["height"] >= 40


def test_the_first_screen_of_a_laptop_has_prompt_button_and_place_of_the_picture(user):
    page = user()
    for name in ("#retom-prompt", "#retom-draw", "#retom-stage"):
        box = page.locator(name).bounding_box()
        assert box["y"] + box["height"] <= 800
