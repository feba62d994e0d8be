"""The goal of this script is to measure prediction beside fastai's `get_preds`: many reviews, one review, a cold start.

    PEER_PYTHON=... ULMPIPE_DATA=../shared/data python bench/predict.py [small] [base] [start] [--accuracy MODEL]
                                                                            -> bench/results/predict.json

`small`, `base`: 1,000 and 300 test reviews (or $REVIEWS) in turns with fastai, on the threads of $OMP_NUM_THREADS (2), with the
same weights (random) on the same tokens. First fastai, given documents one by one, must say what we say of all at once. Then
from the texts on, by each one's own tokenizer. Processor seconds are told beside seconds: on a shared machine they alone say much.
`start`: whole commands, and one review with a loaded model. `--accuracy`: what int8 and bf16 cost a trained classifier, on the
first 1,000 test reviews.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from bench import record
from bench.turns import Peer, in_turns
from ulmpipe.models import SIZES, TextClassifier
from ulmpipe.models.fastai_names import fastai_name
from ulmpipe.tasks.model_folder import CLASSIFIER, Pretrained
from ulmpipe.tasks.predict import FAST_FROM, Predictor, from_pretrained
from ulmpipe.text.engine import FastTokenizer
from ulmpipe.text.padding import two_ends
from ulmpipe.text.tokenizer import TokenizerRecipe
from ulmpipe.text.vocab import Vocab, build_itos

N_REVIEWS = {"small": 1000, "base": 300}  # of `base` fewer: a thousand take fastai minutes
MAX_TOKENS, MAX_VOCAB, BPTT, REPEATS = 1400, 30_000, 72, 3
N_ALONE = 20  # documents that fastai predicts one by one, to compare
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))  # two that wait for a busy core are slower than one
PEER = "bench/peers_predict.py"

Found = dict[str, Any]


def reviews(n: int) -> tuple[list[str], list[int]]:
    """The first n test reviews and their labels."""
    table = pq.read_table(Path(os.environ["ULMPIPE_DATA"]) / "imdb" / "test.parquet").slice(0, n)
    return table.column("text").to_pylist(), table.column("label").to_pylist()


def make_model(size: str, texts: list[str]) -> Pretrained:
    """A classifier with random weights and the vocabulary of the reviews, in fastai's rules, its linear layers without bias as fastai's."""
    recipe = TokenizerRecipe(rules="fastai2")
    engine = FastTokenizer(recipe)
    counts = np.bincount(engine.encode_texts(texts).ids, minlength=len(engine.itos)).tolist()
    specials = recipe.resolved_rules.specials
    vocab = Vocab(build_itos(dict(zip(engine.itos, counts, strict=True)), max_vocab=MAX_VOCAB, min_freq=2, specials=specials))  # fmt: skip
    settings = {"vocab_size": len(vocab), "n_classes": 2, **SIZES[size], "pad_id": vocab.pad_id, "bptt": BPTT}
    torch.manual_seed(0)
    model = TextClassifier(**settings).eval()
    with torch.no_grad():
        for layer in model.head.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.bias.zero_()
                layer.weight.mul_(8)  # so that probabilities differ
    return Pretrained(CLASSIFIER, model, vocab, recipe.to_json(), settings, ["neg", "pos"], {"max_tokens": MAX_TOKENS})


def write_for_peer(path: Path, pretrained: Pretrained, texts: list[str], docs: list[list[int]]) -> None:
    """Documents and weights, under fastai's names."""
    state = pretrained.model.state_dict()
    encoder = {name.replace(".rnn.", ".", 1): value for name, value in state.items() if name.startswith("encoder.rnn.")}
    weights = {f"0.module.{fastai_name(name, has_decoder=False)}": value for name, value in encoder.items()}
    for n, linear in enumerate((2, 5)):
        weights[f"1.layers.{n}.2.weight"] = weight = state[f"head.layers.{linear}.weight"]
        # fastai's batch norms, made to do nothing: they divide by the root of 1 + 1e-5.
        n_in = weight.shape[1]
        weights |= {f"1.layers.{n}.0.weight": torch.full((n_in,), (1 + 1e-5) ** 0.5), f"1.layers.{n}.0.bias": torch.zeros(n_in)}  # fmt: skip
    arrays = {name: value.numpy() for name, value in weights.items()}
    offsets = np.cumsum([0, *map(len, docs)])
    labels, itos = np.zeros(len(docs), np.int64), np.array(pretrained.vocab.itos)
    strings = np.array(texts, object).astype(str)
    np.savez(path, ids=np.concatenate(docs), offsets=offsets, labels=labels, texts=strings, itos=itos, **arrays)


class Tokenized(Predictor):
    """A `Predictor` that finds the tokens ready, as fastai's data loader does."""

    def ready(self, texts: list[str]) -> "Tokenized":
        """Tokenize now."""
        self.docs = dict(zip(texts, super()._tokens(texts), strict=True))
        return self

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        return [self.docs[text] for text in texts]


def timed(predictor: Predictor, texts: list[str]) -> Found:
    """One call."""
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    found = predictor.predict(texts)
    cpu_s = time.process_time() - begin_cpu_s
    return {
        "seconds": time.perf_counter() - begin_s,
        "cpu_s": cpu_s,
        "probabilities": [p.probabilities["pos"] for p in found],
    }


def measure_size(size: str, peer: str) -> Found:
    """Both in turns, on the same tokens; then from texts on."""
    torch.set_num_threads(THREADS)
    texts, _ = reviews(int(os.environ.get("REVIEWS", N_REVIEWS[size])))
    texts = list(dict.fromkeys(texts))
    pretrained = make_model(size, texts)
    ready = {
        "ulmpipe": Tokenized(pretrained).ready(texts),
        "ulmpipe, --quantize": Tokenized(pretrained, quantize=True).ready(texts),
        "ulmpipe, --precision bf16": Tokenized(pretrained, precision="bf16").ready(texts),
    }
    vocab = pretrained.vocab
    docs = [[*two_ends(vocab.encode(ready["ulmpipe"].docs[text]), MAX_TOKENS)] for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        check_equal_work(Path(folder), peer, pretrained, texts[:N_ALONE], docs[:N_ALONE], size)
        write_for_peer(Path(folder) / "given.npz", pretrained, texts, docs)
        words = [f"{folder}/given.npz", "--size", size, "--threads", str(THREADS)]
        with Peer(peer, *words, script=PEER) as theirs:
            ways: dict[str, Callable[[], Found]] = {"fastai": theirs}
            ways |= {name: lambda predictor=predictor: timed(predictor, texts) for name, predictor in ready.items()}
            runs = in_turns(ways, REPEATS)
        from_texts = measure_texts(peer, words, pretrained, texts) if size == "small" else {}
    n_tokens = sum(map(len, docs))
    assert runs["fastai"][0]["n_tokens"] == n_tokens
    seconds = {name: record.summary([run["seconds"] for run in own]) for name, own in runs.items()}
    cpu_s = {name: record.summary([run["cpu_s"] for run in own]) for name, own in runs.items()}
    exact = runs["ulmpipe"][0]["probabilities"]
    off = {name: np.abs(np.subtract(own[0]["probabilities"], exact)) for name, own in runs.items()}
    return {
        "n_docs": len(docs),
        "n_tokens": n_tokens,
        "threads": THREADS,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "docs_per_cpu_s": {name: round(len(docs) / found["median"], 1) for name, found in cpu_s.items()},
        "times_fastai": {name: round(cpu_s["fastai"]["median"] / found["median"], 2) for name, found in cpu_s.items()},
        "largest_difference": {name: round(float(found.max()), 7) for name, found in off.items()},
        "n_differ": {name: int((found > 1e-3).sum()) for name, found in off.items()},
        **from_texts,
    }


def check_equal_work(folder: Path, peer: str, pretrained: Pretrained, texts: list[str], docs: list[list[int]], size: str) -> None:  # fmt: skip
    """Fastai's probabilities of documents alone are ours in one batch.

    In its own batches they are not: where padding at the end of a row reaches the first step of the last window, its
    encoder takes the first rows instead of those that go on.
    """
    write_for_peer(folder / "alone.npz", pretrained, texts, docs)
    with Peer(peer, f"{folder}/alone.npz", "--size", size, "--batch-size", "1", script=PEER) as theirs:
        found = theirs()
    ours = timed(Predictor(pretrained), texts)["probabilities"]
    difference = np.abs(np.subtract(found["probabilities"], ours)).max()
    assert difference < 1e-4 and found["n_tokens"] == sum(map(len, docs)), difference


def measure_texts(peer: str, words: list[str], pretrained: Pretrained, texts: list[str]) -> Found:
    """From texts to probabilities, once for each in a process that has done nothing before, once again for ours."""
    assert "REVIEWS" in os.environ or sum(map(len, texts)) > FAST_FROM
    with Peer(peer, *words, "--texts", script=PEER) as theirs:
        peer_s = theirs()["cpu_s"]
    ours = {
        name: record.summary([timed(Predictor(pretrained, **options), texts)["cpu_s"] for _ in range(REPEATS)])
        for name, options in {"ulmpipe": {}, "ulmpipe, --quantize": {"quantize": True}}.items()
    }
    return {"from_texts_cpu_s": {"fastai": round(peer_s, 3), **ours}}


def measure_start() -> Found:
    """Whole commands, and one review with a loaded model."""
    torch.set_num_threads(1)
    texts, _ = reviews(200)
    found: Found = {
        "n_characters": round(statistics.mean(map(len, texts[1:31]))),
        "one_review_cpu_ms": {},
        "command_s": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for size in ("small", "medium", "base"):
            make_model(size, texts).save_pretrained(Path(folder) / size)
            found["one_review_cpu_ms"][size] = {
                name: one_review_cpu_ms(from_pretrained(Path(folder) / size, device="cpu", **options), texts)
                for name, options in {"fp32": {}, "--quantize": {"quantize": True}}.items()
            }
            command = [sys.executable, "-m", "ulmpipe", "predict", f"{folder}/{size}", texts[0]]
            found["command_s"][size] = record.summary([whole_s(command) for _ in range(REPEATS)])
    return found


def one_review_cpu_ms(predictor: Predictor, texts: list[str]) -> Found:
    """Of 30 reviews, each alone."""
    predictor.predict(texts[:1])
    ms = []
    for text in texts[1:31]:
        begin_s = time.process_time()
        predictor.predict([text])
        ms.append(1000 * (time.process_time() - begin_s))
    return record.summary(ms)


def whole_s(command: list[str]) -> float:
    """Seconds of a whole process."""
    begin_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=record.ROOT)
    return time.perf_counter() - begin_s


def measure_accuracy(folder: str) -> Found:
    """Accuracy of a trained classifier in each format, on reviews that it has not seen."""
    texts, truth = reviews(N_REVIEWS["small"])
    pretrained = Pretrained.from_pretrained(folder)
    ways = {"fp32": {}, "--quantize": {"quantize": True}, "--precision bf16": {"precision": "bf16"}}
    said = {name: Predictor(pretrained, **options).predict(texts) for name, options in ways.items()}
    return {
        "model": Path(folder).name,
        "sizes": {name: pretrained.settings[name] for name in ("emb_size", "hidden_size", "n_layers")},
        "n_docs": len(texts),
        "accuracy": {name: round(float(np.mean([p.label == pretrained.labels[y] for p, y in zip(own, truth, strict=True)])), 4) for name, own in said.items()},
        "other_labels": {name: sum(a.label != b.label for a, b in zip(own, said["fp32"], strict=True)) for name, own in said.items()},
        "largest_difference": {name: round(max(abs(a.probability - b.probabilities[a.label]) for a, b in zip(own, said["fp32"], strict=True)), 4) for name, own in said.items()},
    }  # fmt: skip


def main() -> None:
    """Measure what was asked for."""
    words = sys.argv[1:]
    folder = words[words.index("--accuracy") + 1] if "--accuracy" in words else None
    names = words[: words.index("--accuracy")] if folder else words or ["small", "base", "start"]
    for name in names:
        found = measure_start() if name == "start" else measure_size(name, os.environ["PEER_PYTHON"])
        record.update("predict", name, found)
        print(name, "measured")
    if folder:
        record.update("predict", "accuracy", measure_accuracy(folder))


if __name__ == "__main__":
    main()
