"""Stage 1 of `finetune`: a language model, tuned on the target's texts. Corpus -> language model -> OUT/lm.

The embeddings of words that both vocabularies have are carried over; the words learn first, then all. Which model to
start from is finetune.py's to say; the classifier on top is classify.py.
"""

from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..console import log
from ..models import SIZES, Dropouts, LanguageModel
from ..models.transfer import transfer_language_model
from ..train import Phase
from ..train.metrics import finite_row
from ..train.parallel import is_first
from .corpus import Corpus, count_words
from .model_folder import LANGUAGE_MODEL, Pretrained
from .training import language_model_learner, seed_everything, train_phases

LM_LR_WORDS, LM_LR = 2e-2, 5e-3  # highest rates of the two phases; the first moves embeddings and decoder only
WORDS_STEPS = 300  # of the first phase, at most; and of --max-steps no more than one part in `WORDS_SHARE`
WORDS_SHARE = 5
# Of 1,000 reviews (260,000 tokens) a second epoch after that of the words won 0.03 of the loss; of 120 short ones (9,000 tokens)
# a third one lost some, and the eighth had lost 0.4.
LM_TOKENS, MAX_LM_EPOCHS = 300_000, 2
LM_TASK = "finetune, stage lm"


def tune_language_model(
    corpus: Corpus,
    config: FinetuneConfig,
    start: Pretrained | None,
    dropouts: Dropouts,
    out: Path,
    about: dict[str, Any],
) -> tuple[Pretrained, dict[str, float], float | None]:
    """Return the model, its last row of numbers, and the share of words carried over."""
    seed_everything(config.seed)
    vocab = corpus.store.vocab
    sizes = start.settings if start else SIZES[config.size]
    settings: dict[str, Any] = {**sizes, "vocab_size": len(vocab), "pad_id": vocab.pad_id}
    model = LanguageModel(**settings, **dropouts)
    share = None
    if start is not None:
        _compare_recipes(start, corpus)
        transfer_language_model(model, start.model.state_dict(), start.vocab.itos, vocab.itos)
        words = count_words(corpus)
        share = sum(word in start.vocab.stoi for word in words) / max(1, len(words))
        log(
            f"{start.folder} knows {share:.1%} of the {len(words):,} words of these texts; the others begin as the mean of all"
        )
    learn = language_model_learner(model, corpus, config)
    n_tokens = int(corpus.store.doc_lengths[corpus.train].sum())
    size = {"n_tokens": n_tokens, "n_steps": len(learn.train_dl)}
    phases = language_model_phases(config, len(learn.groups), tuned=start is not None, **size)
    row = train_phases(learn, phases, out, config, corpus, n_answers=len(vocab))
    trained = {"task": LM_TASK, **about, "share_mapped": share, "results": finite_row(row)}
    lm = Pretrained(LANGUAGE_MODEL, model, vocab, corpus.store.manifest["recipe"], settings, [], trained)
    if is_first():
        lm.save_pretrained(out)
    return lm, row, share


def _compare_recipes(start: Pretrained, corpus: Corpus) -> None:
    """Say where the texts are cut in another way than those the model learned from: words are lost then."""
    recipe = corpus.store.manifest["recipe"]
    for what in ("lang", "rules"):
        if start.recipe[what] != recipe[what]:
            log(f"note: {start.folder} learned from --{what} {start.recipe[what]}, these texts have {recipe[what]}")


def language_model_phases(
    config: FinetuneConfig, n_groups: int, *, tuned: bool, n_tokens: int, n_steps: int
) -> list[Phase]:
    """The words first, where there is something to keep; then everything, lower layers at lower rates.

    `n_tokens` and `n_steps` are those of an epoch. Without `--lm-epochs` a small corpus is read twice, a large
    one once; the words have `WORDS_STEPS` steps at most, which is enough for new ones to find their place.
    """
    n_epochs = default_lm_epochs(n_tokens) if config.lm_epochs is None else config.lm_epochs
    n_words_steps = min(n_steps, WORDS_STEPS)
    if config.max_steps:
        n_words_steps = min(n_words_steps, max(1, config.max_steps // WORDS_SHARE))
    n_all_steps = config.max_steps and max(1, config.max_steps - n_words_steps * tuned)
    lr = config.lr or LM_LR
    lrs = (lr / 2,) * (n_groups - 1) + (lr,)
    phases = [Phase("language model", n_epochs, lrs, max_steps=n_all_steps)]
    if tuned and n_epochs:
        words = Phase("language model, words", 1, (LM_LR_WORDS,) * n_groups, freeze_to=-1, max_steps=n_words_steps)
        phases.insert(0, words)
    return phases


def default_lm_epochs(n_tokens: int) -> int:
    """How many times a corpus is read: as often as makes up `LM_TOKENS`, but once at least and twice at most.

    >>> [default_lm_epochs(n) for n in (10_000, 400_000, 20_000_000)]
    [2, 1, 1]
    """
    return max(1, min(MAX_LM_EPOCHS, round(LM_TOKENS / max(1, n_tokens))))
