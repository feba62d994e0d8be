"""The goal of this script is to find a document on which the fast tokenizer and the reference differ: `make exact`.

    ULMPIPE_DATA=../shared/data python bench/exact.py [CORPUS ...]      -> bench/results/exact.json; fails at a difference

Every document of every corpus under every preset; and fastai 2 itself on some reviews, where $PEER_PYTHON has it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

from joblib import Parallel, delayed

from bench import record
from bench.corpora import CORPORA, documents
from ulmpipe.text.engine import FastTokenizer
from ulmpipe.text.rules import PRESETS
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe

BATCH = 1000
N_FASTAI = 2000  # reviews that fastai tokenizes too
FASTAI = """
import json, sys
from fastai.text.all import WordTokenizer, parallel_tokenize, defaults
texts = json.load(open(sys.argv[1]))
found = sorted(parallel_tokenize(texts, tok=WordTokenizer(), rules=defaults.text_proc_rules, n_workers=1), key=lambda pair: pair[0])
json.dump([[str(token) for token in tokens] for _, tokens in found], open(sys.argv[2], "w"))
"""


def compare(name: str, preset: str) -> dict[str, Any]:
    """One corpus under one preset: how many documents differ, and how much the fast engine did itself."""
    recipe = TokenizerRecipe(CORPORA[name][0], preset)
    fast, tokenizer, docs = FastTokenizer(recipe), Tokenizer(recipe), documents(name)
    different: list[int] = []
    n_tokens = 0
    for begin in range(0, len(docs), BATCH):
        found = fast.encode_texts(docs[begin : begin + BATCH])
        for place, text in enumerate(docs[begin : begin + BATCH]):
            tokens = [fast.itos[i] for i in found.ids[found.offsets[place] : found.offsets[place + 1]]]
            n_tokens += len(tokens)
            if tokens != tokenizer.tokenize(text):
                different.append(begin + place)
    counts = fast.counts
    return {
        "corpus": name,
        "preset": preset,
        "documents": len(docs),
        "tokens": n_tokens,
        "different": len(different),
        "first": different[:5],
        "fallback_fraction": round(counts["n_fallback"] / max(counts["n_chunks"], 1), 6),
        "different_chunks": len(fast.chunks.memo),
        "asked_spacy": counts["n_asked"],
    }


def compare_with_fastai(python: str, folder: Path) -> dict[str, Any]:
    """The preset `fastai2` against fastai itself, on reviews."""
    docs = documents("imdb")[:N_FASTAI]
    (folder / "texts.json").write_text(json.dumps(docs))
    subprocess.run([python, "-c", FASTAI, str(folder / "texts.json"), str(folder / "tokens.json")], check=True)
    fast = FastTokenizer(TokenizerRecipe("en", "fastai2"))
    expected = json.loads((folder / "tokens.json").read_text())
    different = [
        i for i, (text, tokens) in enumerate(zip(docs, expected, strict=True)) if fast.tokenize(text) != tokens
    ]
    return {
        "corpus": "imdb, fastai 2.8.12 itself",
        "preset": "fastai2",
        "documents": len(docs),
        "tokens": sum(map(len, expected)),
        "different": len(different),
        "first": different[:5],
    }


def main() -> None:
    """Compare all, two at a time, and write down what was found."""
    record.where()
    begin_s = time.monotonic()
    names = sys.argv[1:] or list(CORPORA)
    jobs = [(name, preset) for name in names for preset in PRESETS]
    found: Any = Parallel(n_jobs=os.cpu_count(), verbose=5)(delayed(compare)(*job) for job in jobs)
    rows: list[dict[str, Any]] = list(found)
    if (python := os.environ.get("PEER_PYTHON")) and "imdb" in names:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare_with_fastai(python, Path(folder)))
    for row in rows:
        print(
            f"{row['different']:6} of {row['documents']:7,} documents differ  {row['corpus']} {row['preset']} {row['first'] or ''}"
        )
    if not sys.argv[1:]:
        record.write("exact", {"seconds": round(time.monotonic() - begin_s), "rows": rows})
    sys.exit(any(row["different"] for row in rows))


if __name__ == "__main__":
    main()
