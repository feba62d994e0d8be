"""The language model's phases: words go first where there is something to keep. What it learns is in test_finetune.py."""

import pytest

from ulmpipe.config import FinetuneConfig
from ulmpipe.tasks.tune import WORDS_STEPS, language_model_phases

SMALL = {"n_tokens": 15 * 10**4, "n_steps": 200}
LARGE = {"n_tokens": 10**8, "n_steps": 20_000}


def test_words_go_first_where_there_is_something_to_keep():
    config = FinetuneConfig(max_steps=10, lm_epochs=3)
    words, both = language_model_phases(config, 3, tuned=True, **SMALL)
    assert (words.n_epochs, words.freeze_to, words.max_steps) == (1, -1, 2)
    assert (both.n_epochs, both.freeze_to, both.max_steps) == (3, 0, 8)
    assert [p.max_steps for p in language_model_phases(config, 3, tuned=False, **SMALL)] == [10]


@pytest.mark.parametrize(("size", "ref"), [(SMALL, [(1, 200), (2, None)]), (LARGE, [(1, WORDS_STEPS), (1, None)])])
def test_small_corpora_are_read_several_times(size: dict[str, int], ref: list[tuple[int, int | None]]):
    phases = language_model_phases(FinetuneConfig(), 3, tuned=True, **size)
    assert [(p.n_epochs, p.max_steps) for p in phases] == ref


def test_no_epochs_are_none_of_the_words_either():
    assert [p.n_epochs for p in language_model_phases(FinetuneConfig(lm_epochs=0), 3, tuned=True, **SMALL)] == [0]
