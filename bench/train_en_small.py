"""The goal of this script is to train the language model in the box, `ulmpipe/weights/en-small`, from two corpora of Wikipedia.

    ULMPIPE_DATA=../shared/data python bench/train_en_small.py OUT       -> OUT/en-small-lm, a model folder

The articles of enwiki (train) and of WikiText-2 (train) go into one table, and the plain command line does the rest.
`ulmpipe evaluate` gives the perplexity on enwiki's own validation articles, which no training has seen.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import pyarrow as pa
import pyarrow.parquet as pq

from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import Columns, Document
from ulmpipe.text.source import plan_files

PRETRAIN = "pretrain {texts} -o {out} --size medium --max-vocab 30000 --min-freq 3 --epochs 1 --drop-mult 0.1"


def write_texts(data: Path, path: Path) -> int:
    """Write all articles into one table; how many there are."""
    enwiki = pq.read_table(data / "enwiki" / "train.parquet", columns=["text"])["text"].to_pylist()
    plan = plan_files([data / "wikitext2" / "wiki.train.tokens"])
    found = (doc for unit in plan.units for piece in unit for doc in read_piece(piece, Columns()))
    wikitext = [doc.text for doc in found if isinstance(doc, Document)]
    pq.write_table(pa.table({"text": enwiki + wikitext}), path)
    return len(enwiki) + len(wikitext)


def main(out: Path, *more: str) -> None:
    """Train, with `more` options."""
    texts = out / "wikipedia.parquet"
    if not texts.exists():
        out.mkdir(parents=True, exist_ok=True)
        print(f"{write_texts(Path(os.environ['ULMPIPE_DATA']), texts):,} articles", flush=True)
    words = PRETRAIN.format(texts=texts, out=out / "en-small-lm").split()
    subprocess.run([sys.executable, "-m", "ulmpipe", *words, *more], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
