"""`ulmpipe pretrain SOURCE`: a language model from a large corpus, written as a model folder.

tokens (corpus.py) -> LMBatches -> AWD-LSTM -> one cycle -> model folder
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import PretrainConfig
from ..console import log
from ..durable import check_output, locked
from ..journal import recorded, written_down
from ..models import LM_DROPOUTS, SIZES, LanguageModel, scaled_dropouts
from ..options import make_config
from ..text.rules import Rules
from ..train import Phase, check_finished, check_resume, stops_told
from ..train.metrics import finite_row, perplexity
from ..train.parallel import first_then_others, is_first, only_first
from .corpus import open_corpus
from .dataset_source import Source, takes_datasets
from .model_folder import LANGUAGE_MODEL, MODELS_FOLDER, Pretrained, left_behind
from .report import report_training
from .source import source_name
from .training import check_machine, language_model_learner, seed_everything, train_phases

LR = 5e-3  # lesson 12's


@dataclass(frozen=True)
class PretrainResult:
    """What was reached; the fields of `pretrain --json`."""

    valid_loss: float
    accuracy: float
    perplexity: float
    vocab_size: int
    n_steps: int
    seconds: float
    tokens_per_s: float
    n_quarantined: int
    out: str


@takes_datasets
def pretrain(
    source: Source, out: str | Path | None = None, *, custom_rules: Rules | None = None, **options: Any
) -> PretrainResult:
    """Train a language model on a SOURCE and write it to `out` (default: `models/<name>-lm`).

    `options` are the fields of `PretrainConfig`; `custom_rules` stand in for a preset of rules.
    """
    config = make_config(PretrainConfig, options)
    out = Path(out) if out is not None else MODELS_FOLDER / f"{source_name(str(source))}-lm"
    check_output(out, expected=LANGUAGE_MODEL, also=left_behind(out))
    check_machine(config)
    check_resume(config.resume, out)
    dropouts = scaled_dropouts(LM_DROPOUTS, config.drop_mult)
    begin_s = time.monotonic()
    options = asdict(config)
    with (
        stops_told(out, resume=config.resume),
        only_first(locked(out)),
        recorded(out, "pretrain", str(source), options, writes=is_first()) as run,
    ):
        if not config.resume:
            check_finished(out)
        read_s = time.monotonic()
        with first_then_others():
            corpus = open_corpus(str(source), config, out.parent, labelled=False, custom_rules=custom_rules)
        read_s = time.monotonic() - read_s
        run.begin(corpus.fingerprint, curves=[out])
        vocab = corpus.store.vocab
        seed_everything(config.seed)
        settings = {"vocab_size": len(vocab), **SIZES[config.size], "pad_id": vocab.pad_id}
        model = LanguageModel(**settings, **dropouts)
        log(
            f"{len(corpus.train):,} documents to train on, {len(corpus.valid):,} to validate; vocabulary {len(vocab):,}"
        )
        learn = language_model_learner(model, corpus, config)
        lrs = (config.lr or LR,) * len(learn.groups)
        phases = [Phase("pretrain", config.epochs, lrs, max_steps=config.max_steps)]
        last = train_phases(learn, phases, out, config, corpus, n_answers=len(vocab))
        trained = written_down(
            {"task": "pretrain", "source": str(source), "options": options, "results": finite_row(last)}
        )
        recipe = corpus.store.manifest["recipe"]
        if is_first():
            Pretrained(LANGUAGE_MODEL, model, vocab, recipe, settings, [], trained).save_pretrained(out)
        result = PretrainResult(
            valid_loss=last["valid_loss"],
            accuracy=last["accuracy"],
            perplexity=perplexity(last["valid_loss"]),
            vocab_size=len(vocab),
            n_steps=learn.step,
            seconds=round(time.monotonic() - begin_s, 1),
            tokens_per_s=round(last["targets_per_s"], 1),
            n_quarantined=corpus.n_quarantined,
            out=str(out),
        )
        run.finish(asdict(result))
        if is_first() and config.report:
            report_training(out, corpus, config, run, task="pretrain", source=str(source), out=str(out), read_s=read_s)
    return result
