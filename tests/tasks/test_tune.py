"""The language model's phases: words go first where there is something to keep. What it learns is in test_finetune.py."""

from ulmpipe.config import FinetuneConfig
from ulmpipe.tasks.tune import language_model_phases


def test_words_go_first_where_there_is_something_to_keep():
    config = FinetuneConfig(max_steps=10, lm_epochs=3)
    words, both = language_model_phases(config, 3, tuned=True)
    assert (words.n_epochs, words.freeze_to, words.max_steps) == (1, -1, 2)
    assert (both.n_epochs, both.freeze_to, both.max_steps) == (3, 0, 8)
    assert [p.max_steps for p in language_model_phases(config, 3, tuned=False)] == [10]
    assert [p.max_steps for p in language_model_phases(FinetuneConfig(), 3, tuned=True)] == [None, None]
