"""Batches cover the corpus as they say, go on where the last one ended, and depend on nothing but seed and epoch."""

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe.errors import SourceError
from ulmpipe.text.batches import (
    MIN_WINDOW,
    SPREAD,
    ClassifierBatches,
    Docs,
    LMBatches,
    batch_sizes,
    like_lengths,
    window_lengths,
)

PAD = 1
CORPUS = st.lists(st.lists(st.integers(2, 999), max_size=7), min_size=1, max_size=12)


def numbered(lengths: list[int]) -> list[list[int]]:
    """Documents in which no token comes twice, so that a token says where it stood; two or more of them."""
    ends = np.cumsum([2, *lengths])
    return [list(range(begin, end)) for begin, end in zip(ends[:-1], ends[1:], strict=True)]


def split_docs(docs: list[list[int]], n_segments: int, labels: list[int] | None = None) -> Docs:
    """The same documents spread over several arrays, as the record batches of a store are."""
    parts = [docs[len(docs) * i // n_segments : len(docs) * (i + 1) // n_segments] for i in range(n_segments)]
    arrays = [np.array([token for doc in part for token in doc], np.uint16) for part in parts]
    return Docs(arrays, [np.cumsum([0, *map(len, part)]) for part in parts], np.array(labels or [-1] * len(docs)))


# ---- language model -------------------------------------------------------------------------------------------------


@given(docs=CORPUS, n_segments=st.integers(1, 3), batch_size=st.integers(1, 9), bptt=st.integers(1, 9))
def test_lm_batches_equal_reference(docs: list[list[int]], n_segments: int, batch_size: int, bptt: int):
    if sum(map(len, docs)) < 2:
        return
    comp = LMBatches(split_docs(docs, n_segments), batch_size=batch_size, bptt=bptt, shuffle=False)
    n_streams = min(batch_size, max(1, (sum(map(len, docs)) - 1) // bptt))  # so that each has a window
    ref = reference.lm_batches(docs, list(range(len(docs))), n_streams, bptt)
    windows = list(comp.batches(0))
    assert len(comp) == len(windows) == len(ref)
    for (comp_x, comp_y), (ref_x, ref_y) in zip(windows, ref, strict=True):
        assert comp_x.dtype == comp_y.dtype == torch.int64
        np.testing.assert_array_equal(comp_x.numpy(), ref_x)
        np.testing.assert_array_equal(comp_y.numpy(), ref_y)
    assert sum(y.numel() for _, y in windows) == comp.n_tokens


def test_lm_shuffled_batches_equal_reference_in_the_epochs_order():
    docs = numbered([3, 0, 5, 1, 8, 2])
    comp = LMBatches(split_docs(docs, 2), batch_size=2, bptt=4, shuffle=True, seed=3)
    order = np.random.default_rng((3, 1)).permutation(6).tolist()
    for (comp_x, comp_y), (ref_x, ref_y) in zip(comp.batches(1), reference.lm_batches(docs, order, 2, 4), strict=True):
        assert (comp_x.tolist(), comp_y.tolist()) == (ref_x.tolist(), ref_y.tolist())


@pytest.mark.parametrize("variable", [False, True])
def test_lm_rows_go_on_where_they_ended(variable: bool, rng: np.random.Generator):
    docs = Docs.from_ids(numbered(rng.integers(0, 40, 50).tolist()))
    comp = LMBatches(docs, batch_size=4, bptt=20, shuffle=True, seed=1, variable_bptt=variable)
    windows = list(comp.batches(0))
    for x, y in windows:
        assert x.shape == y.shape and torch.equal(x[:, 1:], y[:, :-1])
    for (_, y), (x, _) in zip(windows[:-1], windows[1:], strict=True):
        assert torch.equal(y[:, -1], x[:, 0])
    assert len(windows) > 5


def test_lm_epochs_are_permutations_and_pure(rng: np.random.Generator):
    docs = numbered(rng.integers(1, 9, 30).tolist())
    comp = LMBatches(Docs.from_ids(docs), batch_size=1, bptt=10, shuffle=True, seed=7)
    first, again, second = (torch.cat([x[0] for x, _ in comp.batches(epoch)]).tolist() for epoch in (0, 0, 1))
    assert first == again != second
    for stream in (first, second):  # the last token of the order is only ever a target
        assert len(stream) == len(set(stream)) == sum(map(len, docs)) - 1
    other_seed = LMBatches(Docs.from_ids(docs), batch_size=1, bptt=10, shuffle=True, seed=8)
    assert torch.cat([x[0] for x, _ in other_seed.batches(0)]).tolist() != first


@pytest.mark.parametrize("variable", [False, True])
def test_lm_start_equals_skipping(variable: bool, rng: np.random.Generator):
    docs = Docs.from_ids(numbered(rng.integers(0, 30, 40).tolist()))
    comp = LMBatches(docs, batch_size=3, bptt=15, shuffle=True, seed=2, variable_bptt=variable)
    ref = list(comp.batches(4))
    for start in range(len(comp) + 1):
        started = list(comp.batches(4, start))
        assert len(started) == len(ref) - start
        assert all(
            torch.equal(a, b) for pair in zip(started, ref[start:], strict=True) for a, b in zip(*pair, strict=True)
        )


def test_lm_variable_windows_cover_the_same_tokens(rng: np.random.Generator):
    docs = Docs.from_ids(numbered(rng.integers(0, 90, 60).tolist()))
    fixed, variable = (LMBatches(docs, batch_size=4, bptt=20, shuffle=False, variable_bptt=v) for v in (False, True))
    comp, ref = (torch.cat([x for x, _ in b.batches(0)], dim=1) for b in (variable, fixed))
    assert torch.equal(comp, ref)
    assert [x.shape[1] for x, _ in variable.batches(0)] != [x.shape[1] for x, _ in fixed.batches(0)]


def test_lm_validation_is_in_document_order():
    docs = numbered([4, 0, 3, 6])
    comp = LMBatches(Docs.from_ids(docs), np.array([3, 0]), batch_size=1, bptt=4, shuffle=False)
    assert torch.cat([x[0] for x, _ in comp.batches(5)]).tolist() == (docs[3] + docs[0])[:-1]


def test_lm_batch_size_shrinks_to_the_corpus():
    ((x, y),) = LMBatches(Docs.from_ids([[5, 6, 7]]), batch_size=64, bptt=70, shuffle=True).batches(0)
    assert (x.tolist(), y.tolist()) == ([[5, 6]], [[6, 7]])
    assert LMBatches(Docs.from_ids([list(range(25))]), batch_size=64, bptt=8, shuffle=True).batch_size == 3


@pytest.mark.parametrize("n_parts", [2, 3, 4])
def test_parts_of_lm_batches_are_rows_of_the_whole(n_parts: int, rng: np.random.Generator):
    docs = Docs.from_ids(numbered(rng.integers(0, 90, 60).tolist()))
    shape: dict[str, Any] = {"batch_size": 12, "bptt": 20, "shuffle": True}
    ref = list(LMBatches(docs, **shape).batches(1))
    parts = [list(LMBatches(docs, part=(n, n_parts), **shape).batches(1)) for n in range(n_parts)]
    comp = [tuple(torch.cat(same) for same in zip(*batch, strict=True)) for batch in zip(*parts, strict=True)]
    assert all(torch.equal(a, b) for pair in zip(comp, ref, strict=True) for a, b in zip(*pair, strict=True))


def test_lm_streams_are_as_many_for_every_part():
    comp = [
        LMBatches(Docs.from_ids([list(range(25))]), batch_size=64, bptt=8, shuffle=True, part=(n, 2)) for n in (0, 1)
    ]
    assert [b.batch_size for b in comp] == [2, 2] and [b.n_tokens for b in comp] == [24, 24]


@pytest.mark.parametrize("docs", [[], [[]], [[5]], [[], [5], []]])
def test_lm_refuses_fewer_than_two_tokens(docs: list[list[int]]):
    with pytest.raises(SourceError, match=f"{len(docs)} documents with [01] tokens are too few"):
        LMBatches(Docs.from_ids(docs), batch_size=2, bptt=5, shuffle=False)


@given(stream_length=st.integers(0, 500), bptt=st.integers(1, 90), seed=st.none() | st.integers(0, 9))
def test_window_lengths_sum_up(stream_length: int, bptt: int, seed: int | None):
    comp = window_lengths(stream_length, bptt, None if seed is None else np.random.default_rng(seed))
    assert sum(comp) == stream_length
    if seed is None:
        assert all(length == bptt for length in comp[:-1]) and all(0 < length <= bptt for length in comp[-1:])
    else:
        assert all(length >= MIN_WINDOW for length in comp[:-1]) and all(length > 0 for length in comp)


# ---- classifier -----------------------------------------------------------------------------------------------------


def ref_batch_sizes(lengths: list[int], batch_size: int, least: int) -> list[int]:
    """Document by document, longest first: one more goes in while there is room, or while there are too few."""
    if not lengths:
        return []
    room = batch_size * sum(max(1, n) for n in lengths) / len(lengths)
    sizes: list[int] = []
    longest = 0
    for length in sorted(lengths, reverse=True):
        fits = sizes and sizes[-1] < SPREAD * batch_size and (sizes[-1] + 1) * max(1, longest) <= room
        if fits or (sizes and sizes[-1] < least):
            sizes[-1] += 1
        else:
            longest = length
            sizes.append(1)
    if len(sizes) > 1 and sizes[-1] < least:
        sizes[-2:] = [sizes[-2] + sizes[-1]]
    return sizes


@given(lengths=st.lists(st.integers(0, 40), max_size=200), batch_size=st.integers(1, 9), least=st.integers(1, 4))
def test_batch_sizes_fill_a_budget_of_tokens(lengths: list[int], batch_size: int, least: int):
    comp = batch_sizes(np.array(lengths, np.int64), batch_size, least=least)
    assert comp == ref_batch_sizes(lengths, batch_size, least)
    assert sum(comp) == len(lengths) and all(n >= min(least, len(lengths)) for n in comp)


@pytest.mark.parametrize("seed", [None, 3])
@given(lengths=st.lists(st.integers(0, 40), max_size=200))
def test_like_lengths_deals_every_document_once(lengths: list[int], seed: int | None):
    array = np.array(lengths, np.int64)
    sizes = batch_sizes(array, 8, least=2)
    batches = like_lengths(array, sizes, seed if seed is None else np.random.default_rng(seed))
    assert sorted(np.concatenate([*batches, np.zeros(0, np.int64)]).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches)) == sorted(sizes)
    if seed is None:
        assert [lengths[place] for batch in batches for place in batch] == sorted(lengths, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_training_batches_waste_little_and_stay_random(seed: int):
    lengths = np.minimum(np.random.default_rng(seed).lognormal(5.4, 0.6, 5000).astype(np.int64) + 20, 1400)  # as IMDB's
    comp, again = (
        ClassifierBatches(
            Docs.from_ids([[5] * n for n in lengths]),
            batch_size=32,
            pad_id=PAD,
            max_tokens=1400,
            shuffle=True,
            seed=seed,
        ).epoch_order(epoch)
        for epoch in (0, 1)
    )
    longest = [int(lengths[batch].max()) for batch in comp]
    padded = [len(batch) * n for batch, n in zip(comp, longest, strict=True)]
    assert 1 - lengths.sum() / sum(padded) < 0.1
    assert max(padded) <= max(8 * 1400, 1.1 * 32 * lengths.mean())  # 32 of the longest: four times as many
    assert longest[0] > 0.9 * max(longest) and longest[1:] != sorted(longest[1:], reverse=True)
    together = [
        {frozenset((int(a), int(b))) for batch in order for a, b in combinations(batch, 2)} for order in (comp, again)
    ]
    assert len(together[0] & together[1]) < 0.3 * len(together[0])


@pytest.mark.parametrize("n_parts", [2, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_parts_of_classifier_batches_make_up_the_whole(shuffle: bool, n_parts: int, rng: np.random.Generator):
    docs = Docs.from_ids(numbered(rng.integers(1, 30, 47).tolist()), list(range(47)))
    shape: dict[str, Any] = {"batch_size": 6, "pad_id": PAD, "max_tokens": 20, "shuffle": shuffle}
    parts = [ClassifierBatches(docs, part=(n, n_parts), **shape) for n in range(n_parts)]
    labels = [[y.tolist() for _, _, y in part.batches(2)] for part in parts]
    assert sorted(y for part in labels for batch in part for y in batch) == list(range(47))
    assert [len(part) for part in labels] == [len(parts[0])] * n_parts
    assert min(len(batch) for part in labels for batch in part) >= 1


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 5, 23])
def test_classifier_gives_every_document_once_with_its_label(shuffle: bool, n: int, rng: np.random.Generator):
    docs = numbered(rng.integers(0, 12, n).tolist())
    labels = rng.integers(0, 3, n).tolist()
    comp = ClassifierBatches(split_docs(docs, 2, labels), batch_size=4, pad_id=PAD, max_tokens=100, shuffle=shuffle)
    seen: list[tuple[tuple[int, ...], int]] = []
    for ids, lengths, batch_labels in comp.batches(0):
        assert ids.dtype == lengths.dtype == batch_labels.dtype == torch.int64
        assert ids.shape[1] == max(1, int(lengths.max()))
        assert all((row[length:] == PAD).all() for row, length in zip(ids, lengths, strict=True))
        seen += [(tuple(r[:m].tolist()), int(y)) for r, m, y in zip(ids, lengths, batch_labels, strict=True)]
    assert Counter(seen) == Counter((tuple(doc), label) for doc, label in zip(docs, labels, strict=True))
    assert len(comp) == len(comp.epoch_order(0))


@pytest.mark.parametrize(
    ("max_tokens", "ref"), [(1, [11]), (4, [2, 3, 10, 11]), (5, [2, 3, 9, 10, 11]), (10, list(range(2, 12)))]
)
def test_classifier_keeps_both_ends_of_a_long_document(max_tokens: int, ref: list[int]):
    docs = Docs.from_ids([list(range(2, 12)), [5]], [0, 1])
    (ids, lengths, labels), *short = ClassifierBatches(
        docs, batch_size=2, pad_id=PAD, max_tokens=max_tokens, shuffle=False
    ).batches(0)
    assert ids[0].tolist() == ref
    assert lengths[0] == max_tokens and labels[0] == 0
    if short:  # too long a document to share a batch with one of one token
        ((ids, _, _),) = short
        assert ids.tolist() == [[5]]
    else:
        assert ids[1].tolist() == [5] + [PAD] * (max_tokens - 1)


def test_classifier_epochs_are_pure_and_start_equals_skipping(rng: np.random.Generator):
    docs = Docs.from_ids(numbered(rng.integers(1, 30, 60).tolist()), [0] * 60)
    comp, again, other = (
        ClassifierBatches(docs, batch_size=4, pad_id=PAD, max_tokens=20, shuffle=True, seed=s) for s in (5, 5, 6)
    )
    ref = [ids.tolist() for ids, _, _ in comp.batches(3)]
    assert [ids.tolist() for ids, _, _ in again.batches(3)] == ref
    assert [ids.tolist() for ids, _, _ in comp.batches(3, start=4)] == ref[4:]
    assert [ids.tolist() for ids, _, _ in comp.batches(4)] != ref != [ids.tolist() for ids, _, _ in other.batches(3)]


def test_classifier_takes_only_the_chosen_documents():
    docs = Docs.from_ids([[5], [6, 6], [7, 7, 7]], [0, 1, 2])
    ((ids, _, labels),) = ClassifierBatches(
        docs, np.array([0, 2]), batch_size=4, pad_id=PAD, max_tokens=9, shuffle=False
    ).batches(0)
    assert ids.tolist() == [[7, 7, 7], [5, PAD, PAD]] and labels.tolist() == [2, 0]


@pytest.mark.parametrize("shuffle", [False, True])
def test_classifier_of_no_documents_has_no_batches(shuffle: bool):
    comp = ClassifierBatches(Docs.from_ids([]), batch_size=4, pad_id=PAD, max_tokens=9, shuffle=shuffle)
    assert len(comp) == 0 and list(comp.batches(0)) == []


def test_docs_from_ids_without_labels_are_unlabelled():
    docs = Docs.from_ids([[4, 5], []])
    assert len(docs) == 2
    assert docs.lengths.tolist() == [2, 0] and docs.labels.tolist() == [-1, -1]
