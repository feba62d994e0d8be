"""The page of a run in headless Chromium: light and dark, wide and narrow, by keyboard."""

import re
from typing import Any

import pytest
from browser import browser, needs_browser, resize
from run_folder import make_run

from ulmpipe.reports.page import write_report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("browser")
    path = write_report(make_run(folder / "imdb"))
    with browser(folder) as driver:
        driver.get(path.as_uri())
        yield driver


def contrast(page: Any, selector: str) -> float:
    """Of an element's text with the page behind it, as WCAG counts it: 1 to 21."""
    script = "const c = e => getComputedStyle(e); return [c(document.querySelector(arguments[0])).color, c(document.body).backgroundColor]"
    lights = []
    for colour in page.execute_script(script, selector):
        parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_light_and_dark(page: Any, dark: bool):
    resize(page, 1000, dark=dark)
    for selector in ("p.quiet", "caption", "td", "nav a", "svg text"):
        assert contrast(page, selector) >= 4.5, selector


def test_dark_is_dark(page: Any):
    found = []
    for dark in (False, True):
        resize(page, 1000, dark=dark)
        found.append(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert found == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


@pytest.mark.parametrize("width", [1000, 360])
def test_nothing_sticks_out(page: Any, width: int):
    resize(page, width)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width, f"the page is {wide} wide"
    assert page.execute_script("return [...document.querySelectorAll('svg.chart')].every(e => e.getBoundingClientRect().height > 50)")  # fmt: skip


def test_every_part_can_be_reached_by_keyboard(page: Any):
    from selenium.webdriver.common.keys import Keys

    resize(page, 1000)
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("href").endswith("#training")
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.execute_script("return location.hash") == "#training"


def test_the_console_is_silent_and_nothing_is_fetched(page: Any):
    assert not page.get_log("browser")
    asked = [entry["message"] for entry in page.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert not [message for message in asked if '"url":"http' in message]
