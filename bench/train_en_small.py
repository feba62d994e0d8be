"""The goal of this script is to train the language model in the box, `ulmpipe/weights/en-small`, from two corpora of Wikipedia.

    ULMPIPE_DATA=../shared/data python bench/train_en_small.py OUT [tokenize] [train] [pack]

`tokenize`: the articles of enwiki (train) and of WikiText-2 (train) go into one table, and from there into a token store
-> OUT/wikipedia.tok. `train`: the plain command line -> OUT/en-small-lm; a GPU's work, which needs nothing else than the
store. `pack`: the weights in 8 bits, with a card, into the box, and the perplexity of both on articles that it was
not trained on -> bench/results/en_small.json.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import pyarrow as pa
import pyarrow.parquet as pq

from bench import record
from bench.command import run
from ulmpipe.tasks.model_folder import BOX, Pretrained
from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import Columns, Document
from ulmpipe.text.source import plan_files

BOXED = BOX / "en-small"
TOKENIZE = "tokenize {texts} -o {store} --max-vocab 30000 --min-freq 3"
PRETRAIN = "pretrain {store} -o {out} --size medium --epochs 9 --batch-size 128 --drop-mult 0.4 --valid-fraction 0.02"
UNSEEN = ("wikitext2/wiki.test.tokens", "enwiki/valid.parquet")
CARD = """# en-small

A language model of English for `ulmpipe finetune` to start from: AWD-LSTM, {n_layers} x {hidden_size}, embeddings of {emb_size}, {vocab_size:,}
words, rules `default`. Weights in 8 bits, a scale a row (`models/packed.py`), {mb:.1f} MB.

- **Data**: the training articles of an excerpt of the English Wikipedia and of WikiText-2, {n_docs:,} in all (text of Wikipedia,
  CC BY-SA 4.0). The training read {n_tokens:,} tokens in {epochs} epochs.
- **Made by** `python bench/train_en_small.py`: `{tokenize}`, then
  `{command}`, {minutes:.0f} minutes on {machine}.
- **Perplexity** on articles it was not trained on: {perplexities}. Some of enwiki's are near copies of training articles.
- **Not for** generating text, or anything else than a start for a classifier of English texts. It has read an
  encyclopedia and has its biases.
"""


def write_texts(data: Path, path: Path) -> int:
    """Write all articles into one table; how many there are."""
    enwiki = pq.read_table(data / "enwiki" / "train.parquet", columns=["text"])["text"].to_pylist()
    plan = plan_files([data / "wikitext2" / "wiki.train.tokens"])
    found = (doc for unit in plan.units for piece in unit for doc in read_piece(piece, Columns()))
    wikitext = [doc.text for doc in found if isinstance(doc, Document)]
    pq.write_table(pa.table({"text": enwiki + wikitext}), path)
    return len(enwiki) + len(wikitext)


def tokenize(out: Path) -> None:
    """Cut the articles into tokens, and number them; again, if they were already."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "wikipedia.tok", ignore_errors=True)
    texts = out / "wikipedia.parquet"
    n_docs = write_texts(Path(os.environ["ULMPIPE_DATA"]), texts)
    found = run(TOKENIZE, texts=texts, store=out / "wikipedia.tok")
    command = found["command"].format(texts="out/wikipedia.parquet", store="out/wikipedia.tok")
    record.update("en_small", "tokenize", {**found, "command": command, "out": "out", "n_docs": n_docs})


def train(out: Path) -> None:
    """Train, and keep what it took."""
    found = run(PRETRAIN, store=out / "wikipedia.tok", out=out / "en-small-lm")
    command = found["command"].format(store="out/wikipedia.tok", out="out/en-small-lm")
    record.update("en_small", "train", {**found, "command": command, "out": "out"})


def pack(out: Path) -> None:
    """Put the model into the box, and measure what 8 bits cost."""
    model = Pretrained.from_pretrained(out / "en-small-lm")
    model.trained["source"] = "enwiki, wikitext2"
    model.save_pretrained(BOXED, packed=True)
    found: dict[str, Any] = {"mb": sum(path.stat().st_size for path in BOXED.iterdir() if path.suffix != ".md") / 1e6}
    for name, folder in (("float32", out / "en-small-lm"), ("packed", BOXED)):
        told = {unseen: run(f"evaluate {folder} $ULMPIPE_DATA/{unseen}") for unseen in UNSEEN}
        found[name] = {unseen: {key: told[unseen][key] for key in ("n", "perplexity", "accuracy")} for unseen in UNSEEN}
    record.update("en_small", "pack", found)
    write_card(model, found)


def write_card(model: Pretrained, found: dict[str, Any]) -> None:
    """Write the card from what was measured."""
    parts = record.read("en_small")["parts"]
    trained, machine = parts["train"], parts["train"]["machine"]
    perplexities = "; ".join(
        f"{found['packed'][unseen]['perplexity']:.1f} on {unseen} ({found['float32'][unseen]['perplexity']:.1f} before packing)"
        for unseen in UNSEEN
    )
    card = CARD.format(
        **model.settings,
        mb=found["mb"],
        n_docs=parts["tokenize"]["n_docs"],
        n_tokens=round(trained["n_steps"] * model.trained["options"]["batch_size"] * model.trained["options"]["bptt"]),
        epochs=model.trained["options"]["epochs"],
        tokenize=parts["tokenize"]["command"],
        command=trained["command"],
        minutes=trained["wall_s"] / 60,
        machine=machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}",
        perplexities=perplexities,
    )
    (BOXED / "README.md").write_text(card)


def main(out: Path, *parts: str) -> None:
    """Do the parts that were asked for, by default all."""
    record.where()
    for part in parts or ("tokenize", "train", "pack"):
        {"tokenize": tokenize, "train": train, "pack": pack}[part](out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
