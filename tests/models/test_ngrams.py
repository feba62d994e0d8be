"""Scores of n-grams are those of a loop over sets, alone as in a batch; the network beside them is added to, not changed."""

from typing import Any

import pytest
import torch
from reference import ngram_logits
from torch import Tensor

from ulmpipe.models import CLASSIFIER_DROPOUTS, SIZES, TextClassifier, scaled_dropouts
from ulmpipe.models.explain import log_odds, own_logits, word_scores
from ulmpipe.models.heads import NETWORK_SHARE
from ulmpipe.models.inference import classify
from ulmpipe.models.ngrams import NGramScores, ngram_rows, only_words
from ulmpipe.models.quantize import quantized

V, C, PAD_ID, N_BUCKETS, N_SPECIALS = 30, 3, 1, 64, 5
SHAPE: dict[str, Any] = {"n_buckets": N_BUCKETS, "n_specials": N_SPECIALS}


def fitted(ngrams: NGramScores) -> NGramScores:
    """Any numbers, some rows unknown: zeros."""
    torch.manual_seed(0)
    ngrams.table.normal_()
    ngrams.table[:, -1].square_()
    ngrams.table[::3] = 0
    ngrams.bias.normal_()
    return ngrams


@pytest.fixture
def ngrams() -> NGramScores:
    return fitted(NGramScores(V, C, **SHAPE))


@pytest.fixture
def model() -> TextClassifier:
    model = TextClassifier(V, C, **SIZES["tiny"], bptt=8, **SHAPE).eval()
    assert model.ngrams is not None
    fitted(model.ngrams)
    return model


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    ids = torch.full((len(lengths), max(1, *lengths)), PAD_ID)
    for row, n in zip(ids, lengths, strict=True):
        row[:n] = torch.randint(2, V, (n,))
    return ids, torch.tensor(lengths)


@pytest.mark.parametrize("lengths", [[0, 0], [1, 1], [2, 0], [5, 90, 1, 33], list(range(40))])
def test_scores_are_those_of_a_loop(ngrams: NGramScores, lengths: list[int]):
    ids, n_words = batch(lengths)
    ref = [ngram_logits(ids[i, :n].tolist(), ngrams.table, ngrams.bias, V, N_SPECIALS) for i, n in enumerate(lengths)]
    torch.testing.assert_close(ngrams(ids, n_words), torch.tensor(ref, dtype=torch.float32), rtol=1e-5, atol=1e-5)


def test_how_often_an_ngram_comes_and_where_changes_nothing(ngrams: NGramScores):
    ids = torch.tensor([[7, 6, 7, 6, 7, 6], [6, 7, 6, 7, 1, 1]])  # the same words, the same pairs
    comp = ngrams(ids, torch.tensor([6, 4]))
    assert torch.equal(comp[0], comp[1])


def test_special_tokens_do_not_part_words(ngrams: NGramScores):
    ids = torch.tensor([[2, 7, 3, 3, 8, 4], [7, 8, 1, 1, 1, 1], [7, 9, 8, 1, 1, 1]])
    comp = ngrams(ids, torch.tensor([6, 2, 3]))
    assert torch.equal(comp[0], comp[1]) and not torch.equal(comp[0], comp[2])
    words, lengths, places = only_words(ids, torch.tensor([6, 2, 3]), N_SPECIALS)
    assert words[0, :2].tolist() == [7, 8] and places[0, :2].tolist() == [1, 4] and lengths.tolist() == [2, 2, 3]


def test_rows_of_pairs_are_behind_those_of_words_and_hear_of_order():
    ids = torch.randint(0, V, (4, 200))
    words, pairs = ngram_rows(ids, V, N_BUCKETS).split([200, 199], dim=1)
    assert torch.equal(words, ids)
    assert pairs.min() >= V and pairs.max() < V + N_BUCKETS and len(pairs.unique()) > 0.9 * N_BUCKETS
    assert ngram_rows(torch.tensor([[3, 4]]), V, 4096)[0, 2] != ngram_rows(torch.tensor([[4, 3]]), V, 4096)[0, 2]


@pytest.mark.parametrize("n_buckets", [1 << 12, 1 << 20])
def test_pairs_are_spread_evenly_over_the_buckets(n_buckets: int):
    """As by chance: 2 n_buckets different pairs leave e^-2 of the buckets empty."""
    a, b = torch.meshgrid(torch.arange(2 * n_buckets // 512), torch.arange(512), indexing="ij")
    pairs = ngram_rows(torch.stack([a.flatten(), b.flatten()], dim=1), 60_000, n_buckets)[:, 2]
    assert len(pairs.unique()) / n_buckets > 0.8


@pytest.mark.parametrize("n", [1, 2, 17])
def test_what_words_add_makes_up_the_logits(ngrams: NGramScores, n: int):
    ids = torch.randint(2, 9, (1, n))  # special tokens among them
    comp = ngrams.word_logits(ids[0])
    assert comp.shape == (n, C)
    assert (comp[ids[0] < N_SPECIALS] == 0).all()
    torch.testing.assert_close(comp.sum(dim=0) + ngrams.bias, ngrams(ids, torch.tensor([n]))[0], rtol=1e-5, atol=1e-5)


def test_no_bucket_is_refused():
    with pytest.raises(ValueError, match="n_buckets is 0, expected at least 1"):
        NGramScores(V, C, n_buckets=0)


# ---- beside the network ---------------------------------------------------------------------------------------------


def test_classifier_adds_them_where_it_predicts_and_is_trained_without():
    model = TextClassifier(V, C, **SIZES["tiny"], bptt=8, **SHAPE, **scaled_dropouts(CLASSIFIER_DROPOUTS, 0), head_p=0)  # fmt: skip
    assert model.ngrams is not None
    fitted(model.ngrams)
    ids, lengths = batch([7, 0, 30])
    with torch.no_grad():
        alone = model.train()(ids, lengths)
        torch.testing.assert_close(model.eval()(ids, lengths), NETWORK_SHARE * alone + model.ngrams(ids, lengths))
    torch.testing.assert_close(alone, model.head(model.encoder(ids, lengths), lengths))


def test_they_are_not_trained_and_are_saved(model: TextClassifier):
    assert not any("ngrams" in name for name, _ in model.named_parameters())
    assert {"ngrams.table", "ngrams.bias"} <= set(model.state_dict())
    assert TextClassifier(V, C, **SIZES["tiny"]).ngrams is None


@pytest.mark.parametrize("lengths", [[1], [0, 5], [3, 150, 2, 70]])
def test_inference_and_int8_have_them_too(model: TextClassifier, lengths: list[int]):
    ids, n_words = batch(lengths)
    with torch.no_grad():
        ref = model(ids, n_words)
    torch.testing.assert_close(classify(model, ids, n_words), ref, rtol=0, atol=1e-5)
    assert (classify(quantized(model), ids, n_words) - ref).abs().max() < 0.1


def test_explanation_counts_them_at_their_words(model: TextClassifier):
    """The scores with n-grams less those without are what the words add to the logits, through the slope of the log-odds."""
    ids, lengths = batch([6, 0, 9])
    classes = torch.tensor([0, 2, 1])
    ngrams = model.ngrams
    assert ngrams is not None
    comp = word_scores(model, ids, lengths, classes, odds=own_logits)
    model.ngrams = None
    ref = NETWORK_SHARE * word_scores(model, ids, lengths, classes, odds=own_logits)
    for row, (n, c) in enumerate([(6, 0), (0, 2), (9, 1)]):
        torch.testing.assert_close((comp - ref)[row, :n], ngrams.word_logits(ids[row, :n])[:n, c], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(word_scores(model, ids, lengths, classes, odds=log_odds)).all()
