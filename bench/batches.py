"""The goal of this script is to measure the batches of training: how fast they are made, how much of them is padding.

    ULMPIPE_DATA=../shared/data PEER_PYTHON=/path/to/python python bench/batches.py [lm] [billion] [classifier] [--reviews N]

-> bench/results/batches.json. All on one core, of all 25,000 training reviews or N of them. `lm`: an epoch of windows of the IMDB reviews beside fastai's LMDataLoader,
in turns; first it asserts that unshuffled windows are the very same. `billion`: a store simulated with a billion tokens,
in a sparse file: how long an epoch takes to begin, what memory scattered batches take. `classifier`: an epoch of documents,
shuffled and sorted, beside fastai's SortedDL with Pad_Chunk; first it asserts that both hold the same tokens. Without
$PEER_PYTHON (an environment of its own, DESIGN 8) fastai is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import numpy as np
import pyarrow.parquet as pq
import torch

from bench import record
from bench.corpora import data_folder
from bench.turns import Peer, in_turns
from ulmpipe.tasks.tokenize import tokenize
from ulmpipe.text.batches import ClassifierBatches, Docs, LMBatches
from ulmpipe.text.store import TokenStore

BATCH_SIZE, BPTT, MAX_TOKENS, REPEATS = 64, 72, 1400, 5
N_TOKENS = 1_000_000_000  # of the simulated store, two bytes each
DOC_TOKENS = {"articles": 3600, "reviews": 230}
DRAWN, STRETCH = 2000, 100  # batches drawn, and how many of them come one after the other


def open_reviews(folder: Path, n_reviews: int | None) -> TokenStore:
    """IMDB's training reviews, tokenized with the defaults."""
    source, out = data_folder() / "imdb" / "train.parquet", folder / "imdb.tok"
    if n_reviews is not None:
        some = pq.read_table(source)
        source = folder / "reviews.parquet"
        pq.write_table(some.take(np.linspace(0, len(some) - 1, n_reviews).astype(int)), source)
    tokenize(source, out)
    return TokenStore(out)


def write_docs(store: TokenStore, path: Path, *, max_tokens: int | None = None) -> None:
    """The documents of a store as bench/peers_train.py reads them; cut as `ClassifierBatches` cuts them."""
    docs = [store.doc(i) for i in range(store.n_docs)]
    if max_tokens is not None:
        head, tail = max_tokens // 2, max_tokens - max_tokens // 2
        docs = [doc if len(doc) <= max_tokens else np.concatenate([doc[:head], doc[-tail:]]) for doc in docs]
    offsets = np.cumsum([0, *map(len, docs)])
    np.savez(path, ids=np.concatenate(docs), offsets=offsets, labels=store.doc_labels, vocab_size=len(store.vocab))


# ---- language model -------------------------------------------------------------------------------------------------


def measure_lm(store: TokenStore, folder: Path, peer: str | None) -> dict[str, Any]:
    """Tokens a second over whole epochs, shuffled."""
    docs = Docs.from_store(store)
    ours = LMBatches(docs, batch_size=BATCH_SIZE, bptt=BPTT, shuffle=True)
    epochs = iter(range(1_000_000))

    def once() -> dict[str, Any]:
        begin_s = time.perf_counter()
        shapes = [y.shape for _, y in ours.batches(next(epochs))]
        return {"seconds": time.perf_counter() - begin_s, "n_targets": sum(b * t for b, t in shapes), "n_batches": len(shapes)}  # fmt: skip

    in_order = list(LMBatches(docs, batch_size=BATCH_SIZE, bptt=BPTT, shuffle=False).batches(0))
    assert all(torch.equal(x[:, 1:], y[:, :-1]) for x, y in in_order)
    kinds: dict[str, Any] = {"ulmpipe": once}
    with ExitStack() as stack:
        if peer:
            write_docs(store, folder / "lm.npz")
            kinds["fastai"] = stack.enter_context(
                Peer(peer, "lm-batches", str(folder / "lm.npz"), "--windows", str(folder / "windows.npz"))
            )
            assert once()["n_targets"] == kinds["fastai"]()["n_targets"] == ours.n_tokens
            theirs = np.load(folder / "windows.npz")
            for number, name in enumerate("xy"):
                np.testing.assert_array_equal(torch.cat([window[number] for window in in_order], dim=1), theirs[name])
        found = in_turns(kinds, REPEATS)
    return {
        "batch_size": BATCH_SIZE,
        "bptt": BPTT,
        "n_targets": ours.n_tokens,
        "n_batches": len(ours),
        "same_windows": peer is not None,
        "tokens_per_s": {name: rate(runs, ours.n_tokens) for name, runs in found.items()},
    }


def rate(runs: list[dict[str, Any]], n_tokens: int) -> dict[str, Any]:
    """Tokens a second of runs over so many tokens."""
    return record.summary([n_tokens / run["seconds"] for run in runs])


# ---- a billion tokens -----------------------------------------------------------------------------------------------


def measure_billion(store: TokenStore, folder: Path) -> dict[str, Any]:
    """Each kind of document in a process of its own, so that memory is that of the batches alone."""
    # What lies together in a file: as in the store of the reviews.
    segment_tokens = store.n_tokens // len(store.segments)
    path = folder / "billion.bin"
    with path.open("wb") as file:
        file.truncate(2 * N_TOKENS)
    found = {}
    for name, doc_tokens in DOC_TOKENS.items():
        words = [sys.executable, __file__, "scattered", str(path), str(doc_tokens), str(segment_tokens)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout)
    return {"n_tokens": N_TOKENS, "batch_size": BATCH_SIZE, "bptt": BPTT, "documents": found}


def scattered(path: Path, doc_tokens: int, segment_tokens: int) -> dict[str, Any]:
    """The child of `measure_billion`: time to a first batch, and memory while batches from everywhere are drawn."""
    warm = LMBatches(Docs.from_ids([[2] * 1000]), batch_size=2, bptt=5, shuffle=True)
    mapped = np.memmap(path, np.uint16, mode="r").view(np.ndarray)
    n_docs, per_segment = len(mapped) // doc_tokens, max(1, segment_tokens // doc_tokens)
    firsts = range(0, n_docs, per_segment)
    counts = [min(per_segment, n_docs - first) for first in firsts]
    arrays = [mapped[first * doc_tokens : (first + n) * doc_tokens] for first, n in zip(firsts, counts, strict=True)]
    offsets = [np.arange(0, (n + 1) * doc_tokens, doc_tokens) for n in counts]
    for _ in warm.batches(0):  # the kernel is compiled, or read from its cache
        pass
    before_mb = memory_mb()
    begin_s = time.perf_counter()
    docs = Docs(arrays, offsets, np.full(n_docs, -1))
    opened_s = time.perf_counter() - begin_s
    begin_s = time.perf_counter()
    dl = LMBatches(docs, batch_size=BATCH_SIZE, bptt=BPTT, shuffle=True)
    made_s = time.perf_counter() - begin_s
    first_s = []
    next(dl.batches(0))
    for epoch in range(1, 1 + REPEATS):
        begin_s = time.perf_counter()
        next(dl.batches(epoch))
        first_s.append(time.perf_counter() - begin_s)
    begun_mb = memory_mb()
    peaks = {name: 0.0 for name in begun_mb}
    starts = np.random.default_rng(0).integers(0, len(dl) - STRETCH, DRAWN // STRETCH)
    draw_s = 0.0
    for start in starts:
        batches = dl.batches(0, int(start))
        next(batches)
        begin_s = time.perf_counter()
        for _ in range(STRETCH - 1):
            next(batches)
        draw_s += time.perf_counter() - begin_s
        peaks = {name: max(peak, now) for (name, peak), now in zip(peaks.items(), memory_mb().values(), strict=True)}
    return {
        "doc_tokens": doc_tokens,
        "n_docs": n_docs,
        "n_segments": len(arrays),
        "n_batches": len(dl),
        "docs_s": round(opened_s, 4),
        "batches_s": round(made_s, 4),
        "first_batch_s": record.summary(first_s),
        "drawn_tokens_per_s": round(len(starts) * (STRETCH - 1) * BATCH_SIZE * BPTT / draw_s),
        "rss_mb": {"before": before_mb, "after the first batches": begun_mb, "most while drawing": peaks},
        "n_drawn": len(starts) * STRETCH,
    }


def memory_mb() -> dict[str, float]:
    """Memory of this process: its own, pages of mapped files, and the most that both have ever been."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    names = {"own": "RssAnon", "of files": "RssFile", "peak": "VmHWM"}
    return {name: round(int(status[key].split()[0]) / 1024, 1) for name, key in names.items()}


# ---- classifier -----------------------------------------------------------------------------------------------------


def measure_classifier(store: TokenStore, folder: Path, peer: str | None) -> dict[str, Any]:
    """Padding and tokens a second, shuffled and sorted."""
    docs = Docs.from_store(store)
    n_tokens = int(np.minimum(docs.lengths, MAX_TOKENS).sum())
    if peer:
        write_docs(store, folder / "classifier.npz", max_tokens=MAX_TOKENS)
    found: dict[str, Any] = {}
    for name, shuffle in (("shuffled", True), ("sorted", False)):
        batches = ClassifierBatches(
            docs, batch_size=BATCH_SIZE, pad_id=store.vocab.pad_id, max_tokens=MAX_TOKENS, shuffle=shuffle
        )
        kinds: dict[str, Any] = {"ulmpipe": lambda batches=batches: classifier_epoch(batches)}
        with ExitStack() as stack:
            if peer:
                words = ["classifier-batches", str(folder / "classifier.npz"), *([] if shuffle else ["--sorted"])]
                kinds["fastai"] = stack.enter_context(Peer(peer, *words))
            runs = in_turns(kinds, REPEATS)
        for run in (run for own in runs.values() for run in own):
            assert run["n_tokens"] == n_tokens, (run, n_tokens)
        found[name] = {kind: padding(own, n_tokens) for kind, own in runs.items()}
    return {"n_docs": len(docs), "n_tokens": n_tokens, "batch_size": BATCH_SIZE, "max_tokens": MAX_TOKENS, "epochs": found}  # fmt: skip


def classifier_epoch(batches: ClassifierBatches) -> dict[str, Any]:
    """An epoch: the clock runs while batches are made."""
    begin_s = time.perf_counter()
    made = [(ids.shape, lengths) for ids, lengths, _ in batches.batches(0)]
    seconds = time.perf_counter() - begin_s
    positions = [b * n for (b, n), _ in made]
    return {
        "seconds": seconds,
        "n_batches": len(made),
        "n_positions": sum(positions),
        "largest": max(positions),
        "n_encoder_positions": sum(positions),  # SentenceEncoder computes every position
        "n_tokens": sum(int(lengths.sum()) for _, lengths in made),
    }


def padding(runs: list[dict[str, Any]], n_tokens: int) -> dict[str, Any]:
    """What runs over the same documents found; `encoder_padding` is the share of what the encoder computes."""
    last = runs[-1]
    return {
        "padding": round(1 - n_tokens / last["n_positions"], 4),
        "encoder_padding": round(1 - n_tokens / last["n_encoder_positions"], 4),
        "n_batches": last["n_batches"],
        "largest_batch_positions": last["largest"],
        "tokens_per_s": rate(runs, n_tokens),
    }


def main() -> None:
    """Measure what was asked for; the rest of the results stays as it was."""
    if sys.argv[1:2] == ["scattered"]:
        path, *numbers = sys.argv[2:]
        print(json.dumps(scattered(Path(path), *map(int, numbers))))
        return
    parts = ("lm", "billion", "classifier")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--reviews", type=int, help="fewer, to try it out")
    args = parser.parse_args()
    record.where()
    peer = os.environ.get("PEER_PYTHON")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_reviews(folder, args.reviews)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
        measures = {
            "lm": lambda: measure_lm(store, folder, peer),
            "billion": lambda: measure_billion(store, folder),
            "classifier": lambda: measure_classifier(store, folder, peer),
        }
        for part in args.parts or parts:
            record.update("batches", part, measures[part]())


if __name__ == "__main__":
    main()
