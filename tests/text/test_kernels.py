"""Each kernel equals its slow twin in reference.py, compiled and as plain Python."""

import os
import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numba.typed.typedlist import List as TypedList

from ulmpipe.text import kernels

TOKEN = st.integers(0, 65_535)
SEGMENTS = st.lists(st.lists(st.lists(TOKEN, max_size=6), max_size=4), min_size=1, max_size=3)  # segment, doc, token


def layout(segments: list[list[list[int]]], dtype: type) -> tuple:
    """(segments, doc_segment, doc_begin, doc_length) as the kernels take them."""
    arrays = [np.array([token for doc in docs for token in doc], dtype) for docs in segments]
    doc_segment = np.array([i for i, docs in enumerate(segments) for _ in docs], np.int64)
    lengths = [np.array([len(doc) for doc in docs], np.int64) for docs in segments]
    doc_begin = np.concatenate([np.cumsum(n) - n for n in lengths])
    return TypedList(arrays), doc_segment, doc_begin, np.concatenate(lengths)


@given(segments=SEGMENTS, data=st.data(), dtype=st.sampled_from([np.uint16, np.int32]))
def test_fill_windows_equals_reference(segments: list, data: st.DataObject, dtype: type):
    arrays, doc_segment, doc_begin, length = layout(segments, dtype)
    order = np.array(data.draw(st.permutations(range(len(length)))), np.int64)
    cum = np.concatenate([[0], np.cumsum(length[order])]).astype(np.int64)
    n_tokens = int(cum[-1])
    if n_tokens == 0:
        return
    width = data.draw(st.integers(1, n_tokens))
    positions = np.array(data.draw(st.lists(st.integers(0, n_tokens - width), min_size=1, max_size=4)), np.int64)
    ref, comp = (np.full((len(positions), width), -7, np.int64) for _ in range(2))
    reference.fill_windows(arrays, doc_segment, doc_begin, order, cum, positions, ref)
    kernels.fill_windows(arrays, doc_segment, doc_begin, order, cum, positions, comp)
    np.testing.assert_array_equal(comp, ref)


@given(segments=SEGMENTS, data=st.data(), dtype=st.sampled_from([np.uint16, np.int32]), width=st.integers(1, 8))
def test_fill_documents_equals_reference(segments: list, data: st.DataObject, dtype: type, width: int):
    arrays, doc_segment, doc_begin, length = layout(segments, dtype)
    docs = np.array(data.draw(st.permutations(range(len(length)))), np.int64)
    ref, comp = (np.full((len(docs), width), 1, np.int64) for _ in range(2))
    ref_lengths, comp_lengths = (np.full(len(docs), -7, np.int64) for _ in range(2))
    reference.fill_documents(arrays, doc_segment, doc_begin, length, docs, ref, ref_lengths)
    kernels.fill_documents(arrays, doc_segment, doc_begin, length, docs, comp, comp_lengths)
    np.testing.assert_array_equal(comp, ref)
    np.testing.assert_array_equal(comp_lengths, ref_lengths)


def test_fill_windows_of_one_token():
    arrays, doc_segment, doc_begin, _ = layout([[[], [65_535], []]], np.uint16)
    order, cum, out = np.arange(3), np.array([0, 0, 1, 1]), np.zeros((1, 1), np.int64)
    kernels.fill_windows(arrays, doc_segment, doc_begin, order, cum, np.zeros(1, np.int64), out)
    assert out.tolist() == [[65_535]]


@pytest.mark.parametrize(("width", "ref"), [(1, [9]), (2, [1, 9]), (5, [1, 2, 7, 8, 9]), (9, list(range(1, 10)))])
def test_fill_documents_keeps_both_ends(width: int, ref: list[int]):
    arrays, doc_segment, doc_begin, length = layout([[list(range(1, 10))]], np.int32)
    out, lengths = np.zeros((1, width), np.int64), np.zeros(1, np.int64)
    kernels.fill_documents(arrays, doc_segment, doc_begin, length, np.zeros(1, np.int64), out, lengths)
    assert out[0].tolist() == ref
    assert lengths[0] == width


def test_kernels_are_compiled_unless_asked_not_to_be():
    asked = os.environ.get("NUMBA_DISABLE_JIT") == "1"
    assert hasattr(kernels.fill_windows, "py_func") is not asked


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="this is the uncompiled run")
def test_kernels_pass_uncompiled():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 skipped" in run.stdout
