"""The real texts that benches read: documents of $ULMPIPE_DATA, in memory."""

import os
from pathlib import Path

import pyarrow.parquet as pq

from ulmpipe.text.documents import read_piece
from ulmpipe.text.pieces import Columns, Document, Piece

CORPORA = {
    "imdb": ("en", ("imdb/train.parquet", "imdb/unsup.parquet", "imdb/test.parquet")),
    "wikitext2": ("en", ("wikitext2/wiki.train.tokens", "wikitext2/wiki.valid.tokens", "wikitext2/wiki.test.tokens")),
    "enwiki": ("en", ("enwiki/train.parquet", "enwiki/valid.parquet")),
    **{f"ud/{lang}": (lang, (f"ud/{lang}.txt",)) for lang in ("de", "fr", "fi")},
}


def data_folder() -> Path:
    """$ULMPIPE_DATA, which must be there."""
    return Path(os.environ["ULMPIPE_DATA"]).resolve()


def documents(name: str) -> list[str]:
    """All documents of a corpus."""
    texts: list[str] = []
    for file in CORPORA[name][1]:
        path = data_folder() / file
        if path.suffix == ".parquet":
            texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        else:
            piece = Piece(str(path), path.name, "articles" if path.suffix == ".tokens" else "lines", 0)
            texts += [found.text for found in read_piece(piece, Columns()) if isinstance(found, Document)]
    return texts
