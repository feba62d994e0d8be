import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folder import make_run

from ulmpipe.errors import StoreError, UlmpipeError
from ulmpipe.reports.facts import Facts
from ulmpipe.reports.page import check_runs, compare_page, one_page, read_run, write_report


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_needs_nothing_else(tmp_path: Path):
    """No script, no address of another file: a mail client shows it, and nobody is told."""
    page = one_page(read_run(make_run(tmp_path / "imdb")))
    seen = Seen(page)
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "iframe", "object", "form", "base"}
    for tag, attributes in seen.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href") and value:
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
    assert not re.search(r"@import|url\((?!#)", page)


@pytest.mark.parametrize("name", ["metrics.jsonl", "steps.jsonl", "layers.jsonl"])
@pytest.mark.parametrize(
    "line", [b"5", b"\xff", b"[1]", b'{"phase": "a", "step": "x", "loss": "y", "lr": [], "seconds": {}}']
)
def test_logs_that_no_training_writes_are_one_line(tmp_path: Path, name: str, line: bytes):
    folder = make_run(tmp_path / "imdb")
    (folder / name).write_bytes(line + b"\n" + line + b"\n")
    with pytest.raises(StoreError, match="has a report.json, or curves, that no training writes"):
        one_page(read_run(folder))


def test_what_files_say_is_escaped(tmp_path: Path):
    page = one_page(read_run(make_run(tmp_path / "imdb")))
    assert "<script" not in page and page.count("alert(1)") > 8  # it is all there, as text


def test_a_page_says_what_there_is(tmp_path: Path):
    seen = Seen(one_page(read_run(make_run(tmp_path / "imdb"))))
    for told in ("imdb", "0.9123", "12,345", "1 min 1 s", "dull", "' '", "75.0 %", "loss 3.50"):
        assert told in seen.text, told
    marks = [attributes for tag, attributes in seen.tags if tag == "mark"]
    assert [m["class"] for m in marks] == ["for", "against", "for", "against"]  # the legend, and two words: not "the"
    charts = [attributes["aria-label"] for tag, attributes in seen.tags if tag == "svg"]
    assert len(charts) == 3 and all(charts)
    bold = seen.tags[[attributes.get("class") for _, attributes in seen.tags].index("changed")]
    assert bold[0] == "tr"
    ids = {attributes["id"] for _, attributes in seen.tags if "id" in attributes}
    assert {str(a["href"])[1:] for tag, a in seen.tags if tag == "a"} <= ids


def test_tables_and_pictures_can_be_read_aloud(tmp_path: Path):
    seen = Seen(one_page(read_run(make_run(tmp_path / "imdb"))))
    tags = [tag for tag, _ in seen.tags]
    assert tags.count("table") == tags.count("caption")
    assert all(a.get("scope") for tag, a in seen.tags if tag == "th")
    assert all(a.get("alt") for tag, a in seen.tags if tag == "img")
    assert dict(seen.tags)["html"]["lang"] == "en"


def test_the_page_of_a_run_is_written_beside_its_files_and_is_the_same_each_time(tmp_path: Path):
    folder = make_run(tmp_path / "imdb")
    first = write_report(folder).read_bytes()
    assert write_report(folder) == folder / "report.html" and (folder / "report.html").read_bytes() == first


def test_a_part_of_a_run_has_both_names(tmp_path: Path):
    make_run(tmp_path / "imdb")
    assert read_run(make_run(tmp_path / "imdb/lm")).name == "imdb/lm"
    assert read_run(tmp_path / "imdb").name == "imdb"


def test_little_is_a_page_too(tmp_path: Path):
    Facts("language model", "a.txt", {}, "ulmpipe pretrain a.txt", {}).save(tmp_path)
    assert "The same again" in Seen(one_page(read_run(tmp_path))).text


def test_runs_are_compared_by_what_differs(tmp_path: Path):
    one = make_run(tmp_path / "one", options={"seed": 1, "bptt": 70})
    two = make_run(tmp_path / "two", options={"seed": 2, "bptt": 70}, results={"accuracy": 0.5, "f1_macro": 0.25})
    seen = Seen(compare_page(check_runs([one, two])))
    assert all(told in seen.text for told in ("2 runs compared", "0.9123", "0.25", "seed"))
    assert "bptt" not in seen.text


def test_runs_of_one_name_are_told_apart(tmp_path: Path):
    runs = [make_run(tmp_path / parent / "imdb") for parent in ("a", "b")]
    assert all(str(run) in Seen(compare_page(check_runs(runs))).text for run in runs)


def test_what_is_no_run_is_named_all_at_once(tmp_path: Path):
    with pytest.raises(UlmpipeError, match=r"first.*has no report.json.*second"):
        check_runs([tmp_path / "first", make_run(tmp_path / "good"), tmp_path / "second"])


@pytest.mark.parametrize("data", [b"<svg onload=alert(1)>", b""])
def test_a_picture_that_is_none_is_refused(tmp_path: Path, data: bytes):
    (make_run(tmp_path) / "batch.png").write_bytes(data)
    with pytest.raises(StoreError, match="is no PNG"):
        one_page(read_run(tmp_path))


def test_a_picture_that_is_a_link_elsewhere_is_not_read(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    (tmp_path / "secret").write_text("secret")
    (folder / "batch.png").unlink()
    (folder / "batch.png").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="is no PNG"):
        one_page(read_run(folder))
