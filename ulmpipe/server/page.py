"""The page on which a person tries a text: one HTML document that needs nothing else, and the policy that holds it to that.

    page.html + page.css + marks.css + page.js + what the model is -> HTML, Content-Security-Policy

The same for every request. Colours are those of a training's report (reports/page.html); a test compares them.
"""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..reports import MARKS

if TYPE_CHECKING:
    from .app import About

FOLDER = Path(__file__).parent


def make_page(about: "About") -> tuple[str, str]:
    """The page of a model, and its policy: this style and this script, by their digests, and requests to this server."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    style, marks, script = (
        path.read_text(encoding="utf-8") for path in (FOLDER / "page.css", MARKS, FOLDER / "page.js")
    )
    html = environment.get_template("page.html").render(about=about, style=marks + style, script=script)
    policy = {
        "default-src": "'none'",
        "style-src": digest(marks + style),
        "script-src": digest(script),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, "; ".join(f"{what} {allowed}" for what, allowed in policy.items())


def digest(text: str) -> str:
    """An inline text as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
