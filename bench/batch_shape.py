"""The goal of this script is to find which batch is best on this machine: how many streams, how long their windows.

    ULMPIPE_DATA=../shared/data python bench/batch_shape.py [--seconds 120] [--scale-lr]     -> bench/results/batch_shape.json

The `small` language model on WikiText-2, vocabulary 10,000, for several (B, T). First tokens a second of training, all
shapes in turns over the same number of tokens; from that, how many steps fit into the time. Then each shape trains for as
long as the others, one cycle from the same seed that ends when the time does, and is validated on the same batches.

The learning rate is the same for all, `ulmpipe pretrain`'s; `--scale-lr` multiplies it by the root of B / 64 (kept beside).
"""

import argparse
import math
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

from bench import record
from bench.turns import in_turns
from ulmpipe.config import PretrainConfig
from ulmpipe.models import LM_DROPOUTS, SIZES, LanguageModel, scaled_dropouts
from ulmpipe.options import make_config
from ulmpipe.tasks.corpus import Corpus, open_corpus
from ulmpipe.tasks.pretrain import LR
from ulmpipe.tasks.training import language_model_learner, seed_everything
from ulmpipe.text.batches import Docs, LMBatches
from ulmpipe.train import Learner
from ulmpipe.train.metrics import perplexity
from ulmpipe.train.phases import PCT_START

SOURCE, SIZE, VOCAB_SIZE = "wikitext2", "small", 10_000
SHAPES = ((16, 70), (32, 70), (64, 70), (128, 70), (64, 35), (64, 140))  # B, T
TURN_TOKENS, REPEATS = 128 * 70, 5  # tokens that each shape trains on in a turn
VALID_SHAPE = {"batch_size": 16, "bptt": 70}  # the same for all


def config(batch_size: int = 64, bptt: int = 70) -> PretrainConfig:
    """The options of `ulmpipe pretrain`."""
    return make_config(
        PretrainConfig, {"size": SIZE, "max_vocab": VOCAB_SIZE, "batch_size": batch_size, "bptt": bptt, "device": "cpu"}
    )


def learner(corpus: Corpus, batch_size: int, bptt: int) -> Learner:
    """A new model and its Learner, which does not validate by itself."""
    options = config(batch_size, bptt)
    seed_everything(options.seed)
    vocab = corpus.store.vocab
    dropouts = scaled_dropouts(LM_DROPOUTS, options.drop_mult)
    model = LanguageModel(len(vocab), **SIZES[SIZE], pad_id=vocab.pad_id, **dropouts)
    learn = language_model_learner(model, corpus, options)
    assert isinstance(learn.train_dl, LMBatches) and learn.train_dl.batch_size == batch_size
    learn.valid_dl = None
    return learn


def tokens_per_s(learn: Learner, n_tokens: int, n_steps: int) -> float:
    """Train for a few steps."""
    begin_s = time.perf_counter()
    learn.fit(1, lr=LR, max_steps=n_steps)
    return n_tokens * n_steps / (time.perf_counter() - begin_s)


def train(corpus: Corpus, shape: tuple[int, int], n_steps: int, *, lr: float) -> dict[str, Any]:
    """One cycle of so many steps, then a validation."""
    learn = learner(corpus, *shape)
    begin_s = time.perf_counter()
    learn.fit_one_cycle(math.ceil(n_steps / len(learn.train_dl)), lr, max_steps=n_steps, pct_start=PCT_START)
    seconds = time.perf_counter() - begin_s
    valid_dl = LMBatches(Docs.from_store(corpus.valid_store), corpus.valid, shuffle=False, **VALID_SHAPE)  # pyright: ignore[reportArgumentType]
    found = learn.validate(valid_dl)
    return {
        "lr": lr,
        "n_steps": learn.step,
        "n_tokens": learn.step * shape[0] * shape[1],
        "seconds": round(seconds, 1),
        "valid_loss": found["valid_loss"],
        "perplexity": perplexity(found["valid_loss"]),
        "accuracy": found["accuracy"],
    }


def measure(seconds: float, *, scale_lr: bool) -> dict[str, Any]:
    """Speeds in turns, then trainings of equal time."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = open_corpus(SOURCE, config(), Path(folder), labelled=False)
        kinds = {
            f"{b} x {t}": partial(tokens_per_s, learner(corpus, b, t), b * t, max(1, TURN_TOKENS // (b * t)))
            for b, t in SHAPES
        }
        speeds = in_turns(kinds, REPEATS)
        found = {}
        for b, t in SHAPES:
            name = f"{b} x {t}"
            speed = record.summary(speeds[name])
            lr = LR * math.sqrt(b / 64) if scale_lr else LR
            n_steps = max(2, round(seconds * speed["median"] / (b * t)))
            found[name] = {"tokens_per_s": speed, **train(corpus, (b, t), n_steps, lr=lr)}
            print(name, found[name], file=sys.stderr)
        return {
            "source": SOURCE,
            "size": SIZE,
            "vocab_size": len(corpus.store.vocab),
            "train_seconds": seconds,
            "lr": f"{LR} x root of B / 64" if scale_lr else f"{LR} for all",
            "shapes": found,
        }


def main() -> None:
    """Measure, and write down with the machine it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each shape")
    parser.add_argument("--scale-lr", action="store_true")
    args = parser.parse_args()
    record.where()
    part = "lr scaled" if args.scale_lr else "same lr"
    record.update("batch_shape", part, measure(args.seconds, scale_lr=args.scale_lr))


if __name__ == "__main__":
    main()
