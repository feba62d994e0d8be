"""The goal of this script is to time other tokenizers on the texts of bench/tokenizer.py, in a Python that has them.

    PEER_PYTHON bench/peers.py fastai TEXTS.parquet            the whole job of fastai 2: tokens, vocabulary, ids; one process, two workers
    PEER_PYTHON bench/peers.py in-memory TEXTS.parquet         the others on one core, texts in memory: a first time, then warm

Prints one JSON object. Imports nothing of ulmpipe. What the peers need is in DESIGN 8; none is a dependency.
"""

import json
import os
import sys
import time

sys.path.pop(0)  # bench/: nothing of it is for this environment

REPEATS = 5
HF_BYTES, INTERSTICY_BYTES = 20_000_000, 4_000_000  # slower ones get a part of the texts


def read(path):
    """The column `text` of a parquet file."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["text"])["text"].to_pylist()


def part(texts, n_bytes):
    """The first texts, up to so many bytes."""
    out, total = [], 0
    for text in texts:
        out.append(text)
        total += len(text.encode())
        if total >= n_bytes:
            break
    return out, total


def rates(run, n_bytes):
    """MB/s of a first call and of the later ones, lowest first."""
    found = []
    for _ in range(1 + REPEATS):
        begin_s = time.perf_counter()
        run()
        found.append(n_bytes / 1e6 / (time.perf_counter() - begin_s))
    return {
        "cold_mb_per_s": round(found[0], 3),
        "warm_mb_per_s": sorted(round(rate, 3) for rate in found[1:]),
        "mb": n_bytes / 1e6,
    }


def fastai(path):
    """Tokens by fastai's rules and spaCy on two workers, its vocabulary, ids."""
    from fastai.text.all import Numericalize, WordTokenizer, defaults, parallel_tokenize

    texts = read(path)
    pairs = parallel_tokenize(texts, tok=WordTokenizer(), rules=defaults.text_proc_rules, n_workers=2)
    tokens = [doc for _, doc in sorted(pairs, key=lambda pair: pair[0])]
    numericalize = Numericalize(min_freq=2, max_vocab=60_000)
    numericalize.setup(tokens)
    n_tokens = sum(len(numericalize(doc)) for doc in tokens)
    return {"n_tokens": n_tokens, "vocab_size": len(numericalize.vocab)}


def in_memory(path):
    """gigatoken, Hugging Face tokenizers and intersticy, each on one thread."""
    import tempfile

    import spacy
    from intersticy import create_tokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    os.sched_setaffinity(0, {0})
    texts = read(path)
    found = {}
    some, n_bytes = part(texts, HF_BYTES)
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(some, trainers.WordLevelTrainer(vocab_size=60_000, special_tokens=["[UNK]"]))
    found["Hugging Face WordLevel + Whitespace"] = rates(lambda: words.encode_batch_fast(some), n_bytes)
    few, n_bytes = part(texts, INTERSTICY_BYTES)
    rust = create_tokenizer(spacy.blank("en"))
    found["intersticy"] = rates(lambda: [rust.tokenize(text) for text in few], n_bytes)
    import gigatoken

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.train_from_iterator(texts[:10_000], trainers.BpeTrainer(vocab_size=32_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "texts.txt")
        with open(file, "w", encoding="utf-8") as out:
            out.write("\0".join(texts))
        fast = gigatoken.Tokenizer(pieces)
        source = gigatoken.TextFileSource([file], separator="\0")
        found["gigatoken (BPE)"] = rates(lambda: fast.encode_files(source), os.path.getsize(file))
    return {"rates": found}


if __name__ == "__main__":
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    print(json.dumps({"fastai": fastai, "in-memory": in_memory}[sys.argv[1]](sys.argv[2])))
