"""Which labels are used, how layers are unfrozen, what is warned of. What a classifier learns is in test_finetune.py."""

from pathlib import Path

import numpy as np
import pytest
from learnable import TINY_CLASSIFIER, Trained

from ulmpipe.config import FinetuneConfig
from ulmpipe.errors import SourceError
from ulmpipe.tasks.classify import choose_labelled, classifier_phases, compare_with_chance
from ulmpipe.tasks.corpus import Corpus
from ulmpipe.tasks.finetune import finetune
from ulmpipe.text.store import TokenStore

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


# ---- phases ---------------------------------------------------------------------------------------------------------


def test_classifier_is_unfrozen_from_the_top():
    phases = classifier_phases(FinetuneConfig(classifier_lr=0.04, unfrozen_lr=0.01, layer_factor=2.0, epochs=3), 4)
    assert [(p.n_epochs, p.freeze_to) for p in phases] == [(1, -1), (1, -2), (3, 0)]
    assert [p.lrs[-1] for p in phases] == [0.04, 0.02, 0.01]
    assert phases[-1].lrs == pytest.approx((0.00125, 0.0025, 0.005, 0.01))


def test_without_gradual_unfreezing_all_layers_have_as_many_epochs():
    gradual = classifier_phases(FinetuneConfig(epochs=3), 4)
    (at_once,) = classifier_phases(FinetuneConfig(epochs=3, gradual=False), 4)
    assert at_once.n_epochs == sum(p.n_epochs for p in gradual) == 5
    assert (at_once.lrs, at_once.freeze_to) == (gradual[-1].lrs, 0)


def test_accuracy_of_chance_is_warned_of(trained: Trained, capsys: pytest.CaptureFixture[str]):
    store = TokenStore(trained.store)
    corpus = Corpus(store, np.arange(4), store, np.arange(store.n_docs))
    compare_with_chance(0.5, corpus)
    assert "accuracy 0.500 is no better than always giving the most frequent label (0.500)" in capsys.readouterr().err
    compare_with_chance(0.51, corpus)
    assert capsys.readouterr().err == ""


def test_few_documents_get_smaller_batches(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finetune(trained.train, tmp_path / "clf", from_model=str(trained.lm), **{**TINY_CLASSIFIER, "batch_size": 64})
    assert "180 labelled documents are few: batches of 8 instead of 64" in capsys.readouterr().err
