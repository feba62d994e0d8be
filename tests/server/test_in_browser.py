"""The page in headless Chromium, with a server behind it: by keyboard, hostile texts, light and dark, wide and narrow."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser import browser, needs_browser, resize
from learnable import BAD, GOOD
from serving import Served

pytestmark = needs_browser

TEXT = "What a dull film! Its plot is tedious."
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> <b>dull</b> &lt; tedious plot <script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def page(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(autouse=True)
def _fresh(page: Any, served: Served) -> Iterator[None]:
    """A page of its own for each test, which says nothing to the console and asks nobody else."""
    resize(page, 1000)
    page.get(served.url)
    yield
    assert not [entry for entry in page.get_log("browser") if "/predict - Failed to load" not in entry["message"]]
    asked = [entry["message"] for entry in page.get_log("performance") if 'requestWillBeSent"' in entry["message"]]
    assert not [message for message in asked if '"url":"http' in message and f'"url":"{served.url}/' not in message]


def type_in(page: Any, *keys: str) -> None:
    page.switch_to.active_element.send_keys(*keys)


def wait_for(page: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 20, 0.05).until(lambda driver: driver.execute_script(f"return {script}"))


def answer(page: Any) -> str:
    return wait_for(page, "!document.getElementById('answer').hidden && document.getElementById('said').textContent")


def test_text_is_judged_by_keyboard_alone(page: Any, served: Served):
    from selenium.webdriver.common.keys import Keys

    type_in(page, TEXT, Keys.TAB)
    assert page.switch_to.active_element.text == "Predict"
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    type_in(page, Keys.ENTER)
    assert answer(page) == "neg"
    ref = served.ask(text=TEXT, explain=True).json()
    rows = page.execute_script("return [...document.querySelectorAll('#labels tr')].map(row => [row.className, row.innerText.split('\\t').map(t => t.trim())])")  # fmt: skip
    percents = [f"{100 * ref['probabilities'][label]:.1f} %" for label in ("neg", "pos")]
    assert [(given, cells[0], cells[-1]) for given, cells in rows] == [("given", "neg", percents[0]), ("", "pos", percents[1])]  # fmt: skip
    wide, narrow = page.execute_script("return [...document.querySelectorAll('td.bar div div')].map(e => e.getBoundingClientRect().width / e.parentNode.getBoundingClientRect().width)")  # fmt: skip
    assert wide == pytest.approx(ref["probabilities"]["neg"], abs=0.01) and narrow < 0.5
    assert page.switch_to.active_element.text == "Predict"  # the focus stays where it was


def test_words_that_mattered_are_marked(page: Any, served: Served):
    from selenium.webdriver.common.keys import Keys

    type_in(page, TEXT, Keys.CONTROL, Keys.ENTER)
    answer(page)
    words = served.ask(text=TEXT, explain=True).json()["words"]
    assert page.execute_script("return document.getElementById('words').textContent.trim()") == " ".join(word for word, _ in words)  # fmt: skip
    most = max(abs(score) for _, score in words)
    ref = [(word, "for" if score > 0 else "against") for word, score in words if abs(score) >= 0.2 * most]
    comp = page.execute_script("return [...document.querySelectorAll('#words mark')].map(e => [e.textContent, e.className])")  # fmt: skip
    assert [tuple(found) for found in comp] == ref and ("tedious", "for") in ref
    strength = page.execute_script("return [...document.querySelectorAll('#words mark')].map(e => +e.style.getPropertyValue('--strength'))")  # fmt: skip
    assert max(strength) == 1 and page.execute_script("return document.querySelector('#words mark').title").endswith("% for it")  # fmt: skip
    assert page.execute_script("return [...document.querySelectorAll('#words small')].map(e => e.textContent)")[0] == "xxbos"  # fmt: skip


def test_hostile_text_stays_text(page: Any):
    from selenium.webdriver.common.keys import Keys

    type_in(page, HOSTILE, Keys.CONTROL, Keys.ENTER)
    answer(page)
    shown = page.execute_script("return document.getElementById('words').textContent")
    assert "< img" in shown or "<img" in shown
    assert page.execute_script("return document.querySelectorAll('main img, main b, main script').length") == 0
    assert page.title == "clf, a text classifier"


def test_policy_holds_even_where_a_script_gets_in(page: Any):
    """What the page's own script never does is done here: what it would bring is not run."""
    page.execute_script("document.body.insertAdjacentHTML('beforeend', `<p style=\"color: red\" id=in>x</p><img src=x onerror=\"document.title='owned'\">`)")  # fmt: skip
    assert page.execute_script("return getComputedStyle(document.getElementById('in')).color") != "rgb(255, 0, 0)"
    assert page.title == "clf, a text classifier"
    assert [entry for entry in page.get_log("browser") if "Content Security Policy" in entry["message"]]


def test_refusal_is_shown_and_the_next_text_answered(page: Any):
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.getElementById('text').value = 'a'.repeat(20001)")
    type_in(page, Keys.CONTROL, Keys.ENTER)
    said = wait_for(page, "document.getElementById('error').textContent")
    assert said == "text has 20,001 characters, expected 20,000 at most"
    page.execute_script("document.getElementById('text').value = 'A superb film'")
    type_in(page, Keys.CONTROL, Keys.ENTER)
    assert answer(page) == "pos" and not page.execute_script("return document.getElementById('error').textContent")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1000, 320])
def test_it_can_be_read_light_and_dark_wide_and_narrow(page: Any, width: int, dark: bool):
    from selenium.webdriver.common.keys import Keys

    resize(page, width, dark=dark)
    type_in(page, f"{' '.join((*GOOD, *BAD))} {'long' * 60}", Keys.CONTROL, Keys.ENTER)
    answer(page)
    page.execute_script("document.querySelector('details').open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")  # fmt: skip
    heights = page.execute_script("return [...document.querySelectorAll('#labels tr')].map(e => e.getBoundingClientRect().height)")  # fmt: skip
    assert max(heights) < 40  # a label is not broken into letters
    page.execute_script(CONTRAST)
    for selector in ("p.quiet", "h2", "#labels td", "#words", "#words small", "button", "textarea", "summary", "pre", "details a"):  # fmt: skip
        assert page.execute_script("return contrast(arguments[0])", selector) >= 4.5, selector
    marks = page.execute_script("return [...document.querySelectorAll('#words mark')].map(contrast)")
    assert marks and min(marks) >= 4.5


# Of an element's text with what lies behind it, translucent layers and all, as WCAG counts it: 1 to 21.
CONTRAST = """
const parts = colour => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [[r, g, b], a] };
const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
window.contrast = found => {
  const element = typeof found === "string" ? document.querySelector(found) : found, layers = [];
  for (let e = element; e; e = e.parentElement) layers.unshift(parts(getComputedStyle(e).backgroundColor));
  const behind = layers.reduce((under, [rgb, a]) => rgb.map((v, i) => a * v + (1 - a) * under[i]), [255, 255, 255]);
  const lights = [light(parts(getComputedStyle(element).color)[0]), light(behind)].sort((a, b) => b - a);
  return (lights[0] + 0.05) / (lights[1] + 0.05);
};"""
