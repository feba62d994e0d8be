"""Chunk rules give the same on many chunks at once as on each, and what does not hold everywhere is seen."""

import numpy as np
import pytest

from ulmpipe.errors import UlmpipeError
from ulmpipe.text.rewrite import Lines, pads_of, rewrite
from ulmpipe.text.rules import replace_rep, replace_wrep, rm_useless_spaces, scope, spec_add_spaces
from ulmpipe.text.scan import LEAD, REFUSED, TRAIL


@pytest.mark.parametrize(
    ("text", "ref"),
    [("a", 0), (" a", LEAD), ("a ", TRAIL), (" a b ", LEAD | TRAIL), ("  a", REFUSED), ("a\n", REFUSED), ("", REFUSED), (" ", REFUSED)],
)  # fmt: skip
def test_pads_of(text: str, ref: int):
    assert pads_of(text) == ref


def test_lines_are_many_texts_in_one():
    lines = Lines.of(["one", "", "drei ß"])
    assert len(lines) == 3 and [lines[k] for k in range(3)] == ["one", "", "drei ß"]
    other = Lines.of(["one", "x", "drei s"])
    assert lines.different(other).tolist() == [1, 2] and lines.different(lines).tolist() == []
    assert [lines.apply(str.upper)[k] for k in range(3)] == ["ONE", "", "DREI SS"]


def test_chunk_rule_that_changes_white_space_is_told_so():
    with pytest.raises(UlmpipeError, match="scope 'chunk'"):
        Lines.of(["a", "b"]).apply(lambda text: text.replace("\n", " "))


def test_rewrite_runs_chunk_rules_and_leaves_gap_rules():
    tail = (replace_rep, spec_add_spaces, rm_useless_spaces)
    new = rewrite(tail, Lines.of(["a/b", "so!!!!", "plain"])).lines
    assert [new[k] for k in range(3)] == ["a / b", "so xxrep 4 ! ", "plain"]


def test_chunk_that_a_late_rule_pads_after_gaps_were_closed_is_refused():
    pad = scope("chunk")(lambda text: text.replace("x", " x"))
    assert rewrite((rm_useless_spaces, pad), Lines.of(["xa", "ax", "a"])).refused == [0]


def test_chunks_in_which_a_document_rule_has_work_are_late():
    lines = Lines.of(["ha-ha-ha-ha-ha", "plain", "aaaa!", "sooo!!!!", "end!!!!x"])
    found = rewrite((replace_rep, replace_wrep), lines, np.array([5, 1, 1, 1, 1], np.int32))
    assert found.late == [0, 4]  # words in a row; a word that now ends a chunk
    assert found.at_repeats[2] == " xxrep 4 a !"
