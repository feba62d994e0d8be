"""A notebook's ten lines: train on a table, look at what came of it, predict, and see why."""

import re
from pathlib import Path
from typing import Any

import pytest
from learnable import BAD, TINY_CLASSIFIER, Trained, make_docs, write_csv

import ulmpipe
from ulmpipe.errors import UlmpipeError
from ulmpipe.tasks.predict import Prediction, shares, strongest

pytestmark = pytest.mark.usefixtures("one_thread")

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCK = r"^    from ulmpipe import evaluate, finetune, strongest\n(?:^    .*\n|^\n)*"


def test_the_ten_lines_run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", make_docs(200))
    write_csv(tmp_path / "new.csv", make_docs(40, seed=5))
    (block,) = re.findall(BLOCK, README, re.MULTILINE)
    script = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    names: dict[str, Any] = {"options": {**TINY_CLASSIFIER, "from_model": str(trained.lm)}}
    exec(script.replace('finetune("reviews.csv")', 'finetune("reviews.csv", **options)'), names)
    first, *_, bad, good = capsys.readouterr().out.splitlines()
    assert first.endswith("['neg', 'pos']") and bad.startswith("neg") and good.startswith("pos")
    assert names["result"].out == "models/reviews" and names["judged"].n == 40 and names["judged"].accuracy > 0.9
    (told,) = names["model"].predict(["Its plot is tedious."], explain=True)
    assert strongest(told.words, n=1)[0][0] in BAD
    again = ulmpipe.from_pretrained("models/reviews").predict([told.text])[0]
    assert again.probabilities == pytest.approx(told.probabilities, abs=1e-5)


def test_a_language_model_alone_predicts_nothing(trained: Trained, tmp_path: Path):
    done = ulmpipe.finetune(trained.train, tmp_path / "out", from_model=str(trained.lm), stage="lm", workers=1, batch_size=8, bptt=20, max_steps=1, lm_epochs=0)  # fmt: skip
    with pytest.raises(UlmpipeError, match="predict needs a classifier, and this is a language model"):
        done.predictor()


# ---- how a notebook shows a prediction ------------------------------------------------------------------------------


def html(*words: tuple[str, float], **others: Any) -> str:
    about: dict[str, Any] = {"label": "pos", "probability": 0.9, "probabilities": {"pos": 0.9}, "text": "x < y", "labels": ["pos"]}  # fmt: skip
    return Prediction(**about | others, words=list(words) or None)._repr_html_()


def test_words_that_mattered_are_marked():
    shown = html(("a", 0.1), ("good", 3.0), ("bore", -1.5))
    assert re.findall(r'<mark class="(\w+)"[^>]*title="([^"]*)">(\w+)</mark>', shown) == [("for", "+65.2% for it", "good"), ("against", "-32.6% against it", "bore")]  # fmt: skip
    assert "<b>pos</b> 0.900" in shown and "x &lt; y" not in shown


def test_a_prediction_without_words_shows_its_text():
    assert "x &lt; y" in html() and "<mark" not in html()
    assert "<b>none (nearest: pos)</b>" in html(labels=[])


def test_whatever_is_in_a_text_is_no_markup():
    shown = html(("<script>", 1.0), ("&", -1.0), labels=["<img>"]) + html(text="<script>")
    assert "<script>" not in shown and "<img>" not in shown and "&lt;script&gt;" in shown


def test_shares_are_of_all_that_was_done():
    assert shares([("a", 1.0), ("b", -3.0)]) == [("a", 0.25), ("b", -0.75)] and shares([("a", 0.0)]) == [("a", 0.0)]
