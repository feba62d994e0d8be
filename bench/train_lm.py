"""The goal of this script is to measure training beside fastai: a step of the language model, its memory, a classifier's epoch.

    PEER_PYTHON=... ULMPIPE_DATA=../shared/data python bench/train_lm.py [memory] [small] [base] [classifier]
                                                                            -> bench/results/train_lm.json

`base`, `small`: B 64, T 72, V 60,000, with dropout, AR, TAR, clipping and optimiser, steps taken in turns: fastai, ours in
fp32 and bf16, the same model with PyTorch's plain loss and malloc as it is, and a large matrix product, from whose rate
the limit is computed. First it asserts that with the same weights, and no dropout, fastai's loss is ours.
`memory`: what a linear layer and its cross entropy need, plain and ours. `classifier`: an epoch on the same reviews.
Each way runs in a process of its own, which waits while another has its turn (`--interactive`).
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import record
from bench.batches import open_reviews, write_docs
from bench.command import run_words
from bench.turns import Peer, in_turns
from ulmpipe.models import (
    CLASSIFIER_DROPOUTS,
    LM_DROPOUTS,
    SIZES,
    LanguageModel,
    TextClassifier,
    WordScores,
    scaled_dropouts,
)
from ulmpipe.models.fastai_names import fastai_name
from ulmpipe.tasks.training import CLIP, language_model_loss
from ulmpipe.text.batches import ClassifierBatches, Docs
from ulmpipe.train import (
    Callback,
    FixedBatches,
    GradientClip,
    Learner,
    MixedPrecision,
    ResetState,
    RNNRegularizer,
    keep_freed_memory,
)

V, B, T, PAD = 60_000, 64, 72, 1
LR, WEIGHT_DECAY = 5e-3, 0.1
STEPS, EPOCHS, REPEATS = 5, 2, 3
PRODUCT = 3072  # rows and columns of the matrix product whose rate is the limit
N_REVIEWS, MAX_TOKENS = 2000, 1400
THIS = "bench/train_lm.py"

Found = dict[str, Any]


# ---- one way, in a process of its own -------------------------------------------------------------------------------


class Pause(Callback):
    """Take the time of each training batch, and wait for a line of input before the next."""

    order = -1000

    def __init__(self) -> None:
        self.begin_s = 0.0

    def before_batch(self, learn: Learner) -> None:
        """Wait."""
        if not sys.stdin.readline():
            raise SystemExit
        self.begin_s = time.perf_counter()

    def cleanup_batch(self, learn: Learner) -> None:
        """Tell."""
        seconds = time.perf_counter() - self.begin_s
        print(json.dumps({"seconds": seconds, "loss": learn.loss.item(), "peak_rss_mb": peak_rss_mb()}), flush=True)


def plain_loss(scores: WordScores, target: Tensor) -> Tensor:
    """Cross entropy as PyTorch has it, the scores held whole."""
    return F.cross_entropy(scores.logits().flatten(0, 1), target.flatten())


def run_steps(size: str, way: str) -> None:
    """Training steps of a language model by our Learner, one for each line of input."""
    if way in ("fp32", "bf16"):
        keep_freed_memory()  # as every command does
    torch.manual_seed(0)
    ids = torch.randint(2, V, (B, T + 1))
    Learner(
        LanguageModel(V, **SIZES[size], **LM_DROPOUTS),  # pyright: ignore[reportArgumentType]
        FixedBatches([(ids[:, :-1], ids[:, 1:])] * 1000),
        loss_fn=plain_loss if way == "plain" else language_model_loss,
        weight_decay=WEIGHT_DECAY,
        callbacks=[
            RNNRegularizer(),
            ResetState(),
            GradientClip(CLIP),
            *([MixedPrecision("bf16")] if way == "bf16" else []),
        ],
    ).fit(1, lr=LR, callbacks=[Pause()])


def run_products() -> None:
    """Large products of float32 matrices, some for each line of input."""
    a, b, out = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT), torch.empty(PRODUCT, PRODUCT)
    for _ in sys.stdin:
        seconds = []
        for _ in range(5):
            begin_s = time.perf_counter()
            torch.mm(a, b, out=out)
            seconds.append(time.perf_counter() - begin_s)
        print(json.dumps({"seconds": statistics.median(seconds)}), flush=True)


def run_memory(way: str) -> None:
    """What the loss of a linear layer and its gradients add to the memory of a process."""
    E = SIZES["base"]["emb_size"]
    output, weight, bias = (torch.randn(shape).requires_grad_() for shape in ((B, T, E), (V, E), (V,)))
    target = torch.randint(V, (B, T))
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of imports, is forgotten
    before_mb, begin_s = peak_rss_mb(), time.perf_counter()
    scores = WordScores(output, weight, bias)
    loss = plain_loss(scores, target) if way == "plain" else scores.cross_entropy(target)
    loss.backward()
    print(json.dumps({"mb": peak_rss_mb() - before_mb, "seconds": time.perf_counter() - begin_s}))


def run_epochs(folder: str) -> None:
    """Training epochs of a classifier by our Learner, one for each line of input."""
    keep_freed_memory()
    torch.manual_seed(0)
    with np.load(f"{folder}/classifier.npz") as file:
        ids, offsets, labels, vocab_size = (file[name] for name in ("ids", "offsets", "labels", "vocab_size"))
    docs = Docs([ids], [offsets], labels)
    batches = ClassifierBatches(docs, batch_size=B, pad_id=PAD, max_tokens=MAX_TOKENS, shuffle=True)
    dropouts = scaled_dropouts(CLASSIFIER_DROPOUTS, 0.5)
    model = TextClassifier(int(vocab_size), 2, **SIZES["small"], **dropouts, bptt=T)
    learn = Learner(model, batches, loss_fn=F.cross_entropy, weight_decay=WEIGHT_DECAY, callbacks=[GradientClip(CLIP)])
    n_positions = sum(ids.numel() for ids, _, _ in batches.batches(0))
    n_tokens = int(docs.lengths.sum())
    for _ in sys.stdin:
        begin_s = time.perf_counter()
        learn.fit(1, lr=LR)
        seconds = time.perf_counter() - begin_s
        found = {"seconds": seconds, "n_docs": len(docs), "n_tokens": n_tokens, "padding": 1 - n_tokens / n_positions}
        print(
            json.dumps({**found, "train_loss": learn.history[-1]["train_loss"], "peak_rss_mb": peak_rss_mb()}),
            flush=True,
        )


def peak_rss_mb() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# ---- all ways, in turns ---------------------------------------------------------------------------------------------


def ours(*words: str) -> Peer:
    """One of the ways above."""
    return Peer(sys.executable, *words, script=THIS)


def measure_steps(size: str, peer: str) -> Found:
    """Seconds of a step each way, and what the matrix products alone would take."""
    check_equal_work(size, peer)
    ways = {
        "fastai": Peer(peer, "lm-step", size),
        "ours": ours(size, "fp32"),
        "ours, bf16": ours(size, "bf16"),
        "ours, malloc as it is": ours(size, "malloc"),
        "plain": ours(size, "plain"),
        "product": ours("products"),
    }
    for name in ("fastai", "ours", "ours, bf16", "ours, malloc as it is", "plain"):
        ways[name]()  # the first step asks the system for its memory
    runs = in_turns(ways, STEPS)
    for way in ways.values():
        way.__exit__()
    seconds = {
        name: record.summary([run["seconds"]["step"] if name == "fastai" else run["seconds"] for run in own])
        for name, own in runs.items()
        if name != "product"
    }
    flops_per_s = [2 * PRODUCT**3 / run["seconds"] for run in runs["product"]]
    flops = n_flops(size)
    products_s = flops / statistics.median(flops_per_s)
    return {
        "step_s": seconds,
        "tokens_per_s": {name: round(B * T / found["median"], 1) for name, found in seconds.items()},
        "times_fastai": {
            name: round(seconds["fastai"]["median"] / found["median"], 3) for name, found in seconds.items()
        },
        "flops": flops,
        "flops_per_s": record.summary(flops_per_s),
        "products_s": round(products_s, 3),
        "share_of_products": round(products_s / seconds["ours"]["median"], 3),
        "peak_rss_mb": {
            name: max(run["peak_rss_mb"] for run in own) for name, own in runs.items() if name != "product"
        },
    }


def n_flops(size: str) -> int:
    """Multiplications and additions of a step's matrix products: forward, and twice as many backward."""
    E, H, n_layers = SIZES[size]["emb_size"], SIZES[size]["hidden_size"], SIZES[size]["n_layers"]
    widths = [E] + [H] * (n_layers - 1) + [E]
    per_token = sum(4 * n_out * (n_in + n_out) for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)) + V * E
    return 3 * 2 * B * T * per_token


def check_equal_work(size: str, peer: str) -> None:
    """The same weights and ids, no dropout: fastai's first loss must be ours."""
    torch.manual_seed(0)
    model = LanguageModel(V, **SIZES[size], **scaled_dropouts(LM_DROPOUTS, 0.0))
    ids = torch.randint(2, V, (B, T + 1))
    with torch.no_grad():
        loss = model(ids[:, :-1]).scores.cross_entropy(ids[:, 1:]).item()
    weights = {fastai_name(name, has_decoder=True): weight.numpy() for name, weight in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/given.npz", ids=ids, **weights)
        options = f"--given {folder}/given.npz --drop-mult 0 --warm-up 0 --repeats 1".split()
        theirs = run_words([peer, "bench/peers_train.py", "lm-step", size, *options])["runs"][0]["loss"]
    assert abs(theirs - loss) < 1e-4, (theirs, loss)


def measure_memory(size: str = "base") -> Found:
    """Megabytes of the loss alone, plain and ours, each in a process of its own."""

    def run(way: str) -> Found:
        return run_words([sys.executable, THIS, "--interactive", "memory", way])

    runs = {way: [run(way) for _ in range(REPEATS)] for way in ("plain", "ours")}
    mb = {way: record.summary([found["mb"] for found in own]) for way, own in runs.items()}
    return {"mb": mb, "times_less": round(mb["plain"]["median"] / mb["ours"]["median"], 2)}


def measure_classifier(peer: str) -> Found:
    """Epochs over the same reviews, cut to the same length."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_reviews(Path(folder), N_REVIEWS)
        write_docs(store, Path(folder) / "classifier.npz", max_tokens=MAX_TOKENS)
        with Peer(peer, "classifier-epoch", f"{folder}/classifier.npz") as theirs, ours("epochs", folder) as own:
            runs = in_turns({"fastai": theirs, "ours": own}, EPOCHS)
    assert len({(run["n_docs"], run["n_tokens"]) for both in runs.values() for run in both}) == 1
    first = runs["ours"][0]
    return {
        "n_docs": first["n_docs"],
        "n_tokens": first["n_tokens"],
        "epoch_s": {name: record.summary([run["seconds"] for run in own]) for name, own in runs.items()},
        "padding": {name: round(own[-1]["padding"], 4) for name, own in runs.items()},
        "peak_rss_mb": {name: own[-1]["peak_rss_mb"] for name, own in runs.items()},
    }


def main() -> None:
    """Measure what was asked for, or be one of the ways."""
    words = [word for word in sys.argv[1:] if word != "--interactive"]
    if len(words) < len(sys.argv) - 1:
        one: Callable[..., None] = {"memory": run_memory, "epochs": run_epochs, "products": run_products}.get(
            words[0], run_steps
        )
        one(*(words if one is run_steps else words[1:]))
        return
    peer = os.environ["PEER_PYTHON"]
    kinds: dict[str, Callable[[], Found]] = {
        "memory": measure_memory,
        "small": lambda: measure_steps("small", peer),
        "base": lambda: measure_steps("base", peer),
        "classifier": lambda: measure_classifier(peer),
    }
    for name in words or kinds:
        record.update("train_lm", name, kinds[name]())
        print(name, "measured")


if __name__ == "__main__":
    main()
