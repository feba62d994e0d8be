"""The page as a document: held to itself, what the model says of itself escaped, the colours those of a report."""

import re
from dataclasses import replace
from pathlib import Path

from ulmpipe import reports, server
from ulmpipe.server.app import About
from ulmpipe.server.page import digest, make_page

ABOUT = About("reviews", ["neg", "pos"], False, True, "0")
REPORT, SERVER = Path(reports.__path__[0]), Path(server.__path__[0])


def test_only_its_own_script_and_style_are_allowed():
    html, policy = make_page(ABOUT)
    (script,), (style,) = (re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("script", "style"))
    assert f"script-src {digest(script)}" in policy and f"style-src {digest(style)}" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert digest("alert(1)") == "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"


def test_nothing_is_fetched_and_no_text_becomes_html():
    html, _ = make_page(ABOUT)
    assert not re.findall(r"(?:src|href)=\"(?!data:,|openapi\.json)", html) and " style=" not in html and " on" + "click" not in html  # fmt: skip
    script = (SERVER / "page.js").read_text()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|setAttribute\(.on", script)


def test_names_are_escaped():
    hostile = "<script>alert(1)</script>"
    html, _ = make_page(replace(ABOUT, name=hostile, labels=[hostile, "{{ 7 * 7 }}"]))
    assert hostile not in html and html.count("&lt;script&gt;") == 3 and "{{ 7 * 7 }}" in html


def test_many_labels_are_counted():
    html, _ = make_page(replace(ABOUT, labels=[f"label{i}" for i in range(100)], multi_label=True))
    assert "any of label0, label1," in html and "label7 and 92 more" in html and "label8" not in html


def test_explanations_are_asked_for_where_there_are_any():
    assert 'data-explain="true"' in make_page(ABOUT)[0]
    assert 'data-explain="false"' in make_page(replace(ABOUT, can_explain=False))[0]


def test_colours_and_marks_are_those_of_a_report():
    ours, theirs = (SERVER / "page.css").read_text(), (REPORT / "page.html").read_text()
    for name in ("page", "ink", "quiet", "line", "soft", "link"):
        colours = [re.findall(rf"--{name}: ([^;]+);", text) for text in (ours, theirs)]
        assert colours[0] and colours[0] == colours[1], name
    (least,) = re.findall(r"LEAST_MARKED = ([\d.]+)", (SERVER / "page.js").read_text())
    assert f"LEAST_MARKED = {least} " in (REPORT / "page.py").read_text()
