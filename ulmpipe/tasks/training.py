"""What the trainings of language models and classifiers have in common: their phases, a language model's Learner.

Shared by pretrain.py and finetune.py; how phases are run, stopped and resumed is in train/phases.py.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..models import LanguageModel, WordScores
from ..models.transfer import language_model_groups
from ..text.batches import Docs, LMBatches
from ..train import (
    GradientClip,
    Learner,
    MixedPrecision,
    Phase,
    Precision,
    ResetState,
    RNNRegularizer,
    accuracy,
    check_precision,
    pick_device,
    pick_precision,
    run_phases,
    smaller_for_few,
)
from ..train.parallel import check_batch_size, part
from ..train.tensorboard import check_tensorboard
from .corpus import Corpus

CLIP = 0.1  # of the gradient's norm, in the lesson and in fastai
MAX_LM_VALID = 500  # documents a language model is validated on: its decoder makes every one of them dear
LEAST_WIDTH_OF_HALF = 256  # of an LSTM: products of smaller matrices are no faster in half precision
MIN_STEPS = 32  # in an epoch: fewer, and a schedule is over before anything is learned
# Options that a resumed training need not share.
MAY_CHANGE = {
    "resume",
    "workers",
    "unit_timeout",
    "backend",
    "scheduler",
    "force",
    "device",
    "checkpoint_steps",
    "tensorboard",
    "report",
    "note",
}


def train_phases(
    learn: Learner, phases: Sequence[Phase], out: Path, config: TrainConfig, corpus: Corpus, *, n_answers: int
) -> dict[str, float]:
    """Run phases with the options of a command; those of a resumed training and its texts must be the same.

    `n_answers` are the words or classes that the model chooses among.
    """
    options = {name: value for name, value in asdict(config).items() if name not in MAY_CHANGE}
    options["precision"] = precision_of(config, learn.model)
    options["tokens"] = corpus.store.fingerprint
    options["streams"] = getattr(learn.train_dl, "batch_size", None)  # the hidden state is one of each
    return run_phases(
        learn,
        phases,
        out,
        options=options,
        resume=config.resume,
        checkpoint_steps=config.checkpoint_steps,
        chance=math.log(n_answers),
        tensorboard=config.tensorboard,
    )


def seed_everything(seed: int) -> None:
    """Seed weights and dropout; the order of data has its own generators, by seed and epoch."""
    torch.manual_seed(seed)


def check_machine(config: TrainConfig) -> None:
    """Raise `ConfigError` where the device, the precision or the share of a batch is not to be had: before any work is done."""
    check_batch_size(config.batch_size)
    if config.tensorboard:
        check_tensorboard()
    device = pick_device(config.device)
    if config.precision != "auto":
        check_precision(config.precision, device)


def precision_of(config: TrainConfig, model: nn.Module) -> Precision:
    """What `--precision` means for a model: `auto` takes half precision where device and model are made for it."""
    width = max((rnn.hidden_size for rnn in model.modules() if isinstance(rnn, nn.LSTM)), default=0)
    if config.precision == "auto" and width < LEAST_WIDTH_OF_HALF:
        return "fp32"
    return pick_precision(config.precision, pick_device(config.device))


def common_callbacks(precision: Precision) -> list[Any]:
    """What every training has: clipping, and mixed precision."""
    return [GradientClip(CLIP), *([] if precision == "fp32" else [MixedPrecision(precision)])]


def language_model_learner(model: LanguageModel, corpus: Corpus, config: TrainConfig) -> Learner:
    """A Learner of a language model: both data loaders with the same streams, AR and TAR, state carried and reset."""
    n_windows = int(corpus.store.doc_lengths[corpus.train].sum()) // config.bptt
    batch_size = smaller_for_few(config.batch_size, n_windows, min_steps=MIN_STEPS)
    shape: dict[str, Any] = {"batch_size": batch_size, "bptt": config.bptt, "seed": config.seed, "part": part()}
    valid = corpus.valid[:: -(-len(corpus.valid) // MAX_LM_VALID)]  # evenly spread
    train_docs = Docs.from_store(corpus.store)
    valid_docs = train_docs if corpus.valid_store is corpus.store else Docs.from_store(corpus.valid_store)
    return Learner(
        model,
        LMBatches(train_docs, corpus.train, shuffle=True, variable_bptt=config.variable_bptt, **shape),
        LMBatches(valid_docs, valid, shuffle=False, **shape),
        loss_fn=partial(language_model_loss, sampled_words=config.sampled_words),
        groups=language_model_groups(model),
        metrics=[accuracy],
        callbacks=[RNNRegularizer(), ResetState(), *common_callbacks(precision_of(config, model))],
        device=pick_device(config.device),
    )


def language_model_loss(scores: WordScores, target: Tensor, *, sampled_words: int = 0) -> Tensor:
    """Cross entropy of scores (B, T, V) with ids (B, T); in training estimated from `sampled_words` words, if not 0."""
    if sampled_words and torch.is_grad_enabled():
        return scores.sampled_cross_entropy(target, sampled_words)
    return scores.cross_entropy(target)
