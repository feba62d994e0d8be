"""Which labels are used, which are warned of: what is said depends on counts alone."""

from pathlib import Path

import numpy as np
import pytest
from learnable import make_docs, write_csv

from ulmpipe.errors import SourceError
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.labels import (
    check_classes,
    choose_labelled,
    class_counts,
    compare_with_chance,
    say_how_sure,
    strata,
    warn_of_rare_classes,
)

# ---- classes, and what is none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "n", "found"),
    [
        ([f"{i / 7:.3f}" for i in range(21)], 5000, "21 different labels in 5,000 labelled documents, numbers"),
        ([str(i) for i in range(1001)], 9000, "1,001 different labels in 9,000 labelled documents, more than 1,000"),
        ([f"id{i}" for i in range(11)], 20, "11 different labels in 20 labelled documents, nearly one for each"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[str], n: int, found: str):
    with pytest.raises(SourceError, match=f"{found} .*regression is not done here; name another --label-column"):
        check_classes(labels, n)


@pytest.mark.parametrize(
    ("labels", "n"),
    [
        ([str(i / 2) for i in range(11)], 900),  # stars, in halves
        ([str(i) for i in range(1000)], 9000),
        (["a", "b"], 2),
        ([f"c{i}" for i in range(10)], 20),
    ],
)
def test_classes_are_classes(labels: list[str], n: int):
    check_classes(labels, n)


def test_column_of_numbers_is_refused_before_anything_is_trained(tmp_path: Path):
    docs = [(text, f"{i * 0.37:.2f}") for i, (text, _) in enumerate(make_docs(60))]
    source = write_csv(tmp_path / "prices.csv", docs)
    with pytest.raises(SourceError, match="60 different labels in 60 labelled documents, numbers .0.00, 0.37"):
        finetune(source, tmp_path / "out", from_model="none", size="tiny", workers=1)
    assert not (tmp_path / "out").exists()


# ---- the labels used ------------------------------------------------------------------------------------------------


def test_choose_labelled_takes_all_that_have_a_label():
    labels = np.array([0, -1, 1, 1, -1, 0])
    assert choose_labelled(labels, np.arange(1, 6), None, 0).tolist() == [2, 3, 5]


@pytest.mark.parametrize(("n", "ref"), [(3, [1, 1, 1]), (9, [3, 3, 3]), (10, [3, 3, 4]), (200, [40, 80, 80])])
def test_choose_labelled_deals_the_classes_out_in_turn(rng: np.random.Generator, n: int, ref: list[int]):
    labels = rng.permutation(np.repeat([-1, 0, 1, 2], [50, 80, 80, 40]))
    chosen = choose_labelled(labels, np.arange(250), n, seed=4)
    assert sorted(np.bincount(labels[chosen])) == ref
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_choose_labelled_is_a_function_of_the_seed():
    labels = np.arange(60) % 2
    draws = [tuple(choose_labelled(labels, np.arange(60), 10, seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("n_labels", [1, 61])
def test_choose_labelled_of_too_few_or_many_says_the_range(n_labels: int):
    with pytest.raises(
        SourceError, match=rf"--n-labels {n_labels}: expected from 2 \(one a class\) to 60 \(all there are\)"
    ):
        choose_labelled(np.arange(60) % 2, np.arange(60), n_labels, 0)


@pytest.mark.parametrize(("labels", "found"), [([1, 1, -1], "2 labelled documents with 1 label"), ([-1], "0 labelled")])
def test_choose_labelled_of_one_class_is_refused(labels: list[int], found: str):
    with pytest.raises(SourceError, match=f"{found}.*a classifier needs two labels at least"):
        choose_labelled(np.array(labels), np.arange(len(labels)), None, 0)


# ---- warnings -------------------------------------------------------------------------------------------------------


def test_class_counts_leave_out_what_has_no_label():
    assert class_counts(np.array([2, 0, -1, 2]), 4).tolist() == [1, 0, 2, 0]


def test_rare_classes_are_named(capsys: pytest.CaptureFixture[str]):
    warn_of_rare_classes(["a", "b", "c"], np.array([40, 4, 5]), np.array([9, 1, 0]))
    few, unseen = capsys.readouterr().err.splitlines()
    assert "1 of 3 classes have fewer than 5 labelled documents to learn from: b (4)" in few
    assert "1 of 3 classes never come among the validation documents" in unseen and unseen.endswith(": c")


def test_many_rare_classes_are_counted(capsys: pytest.CaptureFixture[str]):
    warn_of_rare_classes([str(i) for i in range(30)], np.ones(30, int), None)
    assert capsys.readouterr().err.rstrip().endswith("6 (1), 7 (1) and 22 more")


def test_classes_with_enough_documents_are_not_warned_of(capsys: pytest.CaptureFixture[str]):
    warn_of_rare_classes(["a", "b"], np.array([5, 900]), np.array([1, 90]))
    assert capsys.readouterr().err == ""


def test_accuracy_of_chance_is_warned_of(capsys: pytest.CaptureFixture[str]):
    labels = np.array([0, 1, -1, 0, 1])
    compare_with_chance(0.5, labels)
    assert "accuracy 0.500 is no better than always giving the most frequent label (0.500)" in capsys.readouterr().err
    compare_with_chance(0.51, labels)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("accuracy", "n_valid", "n_labelled", "of_source", "recommended"),
    [
        (0.9, 100, 999, True, True),
        (0.9, 100, 999, False, False),  # --folds and --valid do not go together
        (0.9, 400, 999, True, False),
        (0.9, 100, 1000, True, False),
        (1.0, 10, 100, True, False),
    ],
)
def test_standard_error_is_told_and_folds_recommended(
    capsys: pytest.CaptureFixture[str],
    accuracy: float,
    n_valid: int,
    n_labelled: int,
    of_source: bool,
    recommended: bool,
):
    say_how_sure(accuracy, n_valid, n_labelled, of_source=of_source)
    told = capsys.readouterr().err
    assert (
        f"standard error {(accuracy * (1 - accuracy) / n_valid) ** 0.5:.3f}, on {n_valid} validation documents" in told
    )
    assert ("--folds 5 judges by all" in told) == recommended


# ---- several labels -------------------------------------------------------------------------------------------------

SEVERAL = np.array([[1, 1, 0], [1, 0, 0], [-1, -1, -1], [0, 0, 0], [1, 0, 1]], np.int8)


def test_several_labels_are_counted_and_dealt_out_by_the_rarest():
    assert class_counts(SEVERAL, 3).tolist() == [3, 1, 1]
    assert strata(SEVERAL[[0, 1, 3, 4]]).tolist() == [1, 0, 3, 2]
    assert choose_labelled(SEVERAL, np.arange(5), None, 0).tolist() == [0, 1, 3, 4]
    with pytest.raises(SourceError, match="2 labelled documents with 1 label"):
        choose_labelled(SEVERAL[[1, 1]], np.arange(2), None, 0)


def test_chance_of_several_labels_is_their_most_frequent_set(capsys: pytest.CaptureFixture[str]):
    compare_with_chance(0.5, SEVERAL[[0, 1, 1, 2, 3]])
    assert "the most frequent label (0.500)" in capsys.readouterr().err


def test_many_labels_on_few_documents_are_classes_where_there_are_several():
    check_classes([str(i) for i in range(50)], 60, multi_label=True)
