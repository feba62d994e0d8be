from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_fscore_support

from ulmpipe.config import PretrainConfig
from ulmpipe.errors import StoreError
from ulmpipe.reports.facts import Facts, Judged, Mistake, changed_options, histogram, judged_by

FACTS = Facts("classifier", "a.csv", {"accuracy": 0.5}, "ulmpipe finetune a.csv", {"seed": 0})


@given(hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 5000)))
def test_a_histogram_counts_each_document_once(lengths: np.ndarray):
    found = histogram(lengths, "tokens")
    edges, n = found["edges"], found["n"]
    assert sum(n) == len(lengths) and edges == sorted(set(edges))
    for left, right, count in zip(edges, edges[1:], n, strict=False):
        assert count == sum(
            left <= max(1, length) < right or right == edges[-1] == max(1, length) for length in lengths
        )
    assert found["quartiles"][-1] == max(1, *lengths.tolist())


def test_a_histogram_of_nothing_is_none():
    assert sum(histogram(np.empty(0, np.int64), "tokens")["n"]) == 0


@given(st.data())
def test_scores_are_those_of_scikit_learn(data: st.DataObject):
    n_classes = data.draw(st.integers(2, 5))
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, n_classes - 1)] * 2), min_size=1, max_size=50))
    confusion = np.zeros((n_classes, n_classes), np.int64)
    for truth, said in pairs:
        confusion[truth, said] += 1
    judged = judged_by(confusion, [f"class {i}" for i in range(n_classes)])
    truth, said = zip(*pairs, strict=True)
    expected: Any = precision_recall_fscore_support(truth, said, labels=range(n_classes), zero_division=0)  # pyright: ignore[reportArgumentType]
    for name, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        assert [score[name] for score in judged.scores] == pytest.approx(list(values))
    assert judged.n == len(pairs) and judged.confusion == confusion.tolist()
    assert sum(n for *_, n in judged.confused) == sum(t != s for t, s in pairs)
    assert [n for *_, n in judged.confused] == sorted((n for *_, n in judged.confused), reverse=True)


def test_many_classes_have_no_table_of_all_against_all():
    judged = judged_by(np.eye(50, k=1, dtype=np.int64) * 3, [str(i) for i in range(50)])
    assert judged.confusion is None and judged.confused[0] == ("0", "1", 3) and len(judged.confused) == 20


def test_facts_are_read_as_they_were_written(tmp_path: Path):
    judged = Judged(2, ["a", "b"], [{"f1": 0.5}], [[1, 0], [1, 0]], [("b", "a", 1)])
    facts = Facts(**{**vars(FACTS), "judged": judged, "mistakes": [Mistake("a", "b", 0.9, 2.3, [("x", -0.5)])]})
    facts.save(tmp_path)
    found = Facts.load(tmp_path)
    assert found.judged is not None and found.judged.confusion == judged.confusion
    assert found.mistakes[0].words == [["x", -0.5]] and found.results == facts.results


def test_a_folder_without_facts_says_so(tmp_path: Path):
    with pytest.raises(StoreError, match="has no report.json: a training"):
        Facts.load(tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/b.png", ""])
def test_pictures_lie_in_the_run_folder(tmp_path: Path, name: str):
    Facts(**{**vars(FACTS), "pictures": {name: "a secret"}}).save(tmp_path)
    with pytest.raises(StoreError, match="no file of ours"):
        Facts.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": 1}', "nonsense", '{"kind": "a", "source": "", "results": {}, "command": "", "options": {}, "judged": 3}'])  # fmt: skip
def test_what_is_no_report_is_refused(tmp_path: Path, text: str):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(StoreError):
        Facts.load(tmp_path)


def test_changed_options_are_those_that_are_not_the_default():
    assert changed_options({"seed": 3, "bptt": PretrainConfig().bptt, "unheard": 1}, PretrainConfig) == ["seed"]
