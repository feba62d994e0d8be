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
from .corpus import Corpus
from .model_folder import LANGUAGE_MODEL, Pretrained
from .phases import language_model_learner, seed_everything, train_phases

LM_LR_WORDS, LM_LR = 2e-2, 5e-3  # highest rates of the two phases; the first moves embeddings and decoder only
WORDS_SHARE = 5  # of --max-steps, one part in so many goes to the first phase
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
        share = transfer_language_model(model, start.model.state_dict(), start.vocab.itos, vocab.itos)
        log(f"{share:.1%} of {len(vocab):,} words carried over from {start.folder}; the others begin as their mean")
    learn = language_model_learner(model, corpus, config)
    phases = language_model_phases(config, len(learn.groups), tuned=start is not None)
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


def language_model_phases(config: FinetuneConfig, n_groups: int, *, tuned: bool) -> list[Phase]:
    """The words first, in one epoch, where there is something to keep; then everything, lower layers at lower rates."""
    n_words_steps = config.max_steps and max(1, config.max_steps // WORDS_SHARE)
    n_all_steps = config.max_steps and max(1, config.max_steps - (n_words_steps or 0) * tuned)
    lr = config.lr or LM_LR
    lrs = (lr / 2,) * (n_groups - 1) + (lr,)
    phases = [Phase("language model", config.lm_epochs, lrs, max_steps=n_all_steps)]
    if tuned:
        words = Phase("language model, words", 1, (LM_LR_WORDS,) * n_groups, freeze_to=-1, max_steps=n_words_steps)
        phases.insert(0, words)
    return phases
