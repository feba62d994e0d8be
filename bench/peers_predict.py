"""The goal of this script is to run fastai's side of bench/predict.py, in a Python that has fastai (DESIGN 8).

    PEER_PYTHON bench/peers_predict.py FILE.npz --size small|base [--texts] [--interactive]

FILE.npz holds documents as peers_train.py takes them, `vocab_size`, and weights of a classifier under fastai's names. Each run is
`learn.get_preds` over all of them, in batches of 64, longest first, as fastai sorts them. With `--texts` it holds `texts`
and `itos` too, and a run begins with them: `dls.test_dl(texts)`, one process.

Prints one JSON object a line, with seconds and the probabilities, as peers_train.py does. Imports nothing of ulmpipe.
"""

import argparse
import contextlib
import json
import sys
import time

import numpy as np
import torch
from fastai.text.all import (
    AWD_LSTM,
    CrossEntropyLossFlat,
    DataLoaders,
    Datasets,
    Learner,
    Numericalize,
    Pad_Chunk,
    SortedDL,
    Tokenizer,
    WordTokenizer,
    get_text_classifier,
    rnn_cbs,
)
from peers_train import BATCH_SIZE, PAD, SEQ_LEN, documents, load_weights, sizes, sorted_dl


def classifier(size, given):
    """fastai's classifier with the weights of a file."""
    vocab_size, n_classes = given["0.module.encoder.weight"].shape[0], given["1.layers.1.2.weight"].shape[0]
    config = {**sizes(size), "pad_token": PAD}
    model = get_text_classifier(AWD_LSTM, vocab_size, n_classes, seq_len=SEQ_LEN, config=config)
    load_weights(model, {name: torch.from_numpy(value) for name, value in given.items() if name[:2] in ("0.", "1.")})
    return model


def text_loaders(texts, itos):
    """`DataLoaders` that tokenize and number texts, by fastai's own rules; and a function that makes one of new texts."""
    sets = Datasets(texts[:BATCH_SIZE], [[Tokenizer(WordTokenizer()), Numericalize(vocab=itos)]])
    pad = Pad_Chunk(pad_idx=PAD, seq_len=SEQ_LEN)
    dls = sets.dataloaders(dl_type=SortedDL, bs=BATCH_SIZE, before_batch=pad, shuffle=False, num_workers=0)
    return dls, lambda: dls.test_dl(texts, num_workers=0)


def main():
    """Make ready, then run once a line, or once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--size", choices=("small", "base"), default="small")
    parser.add_argument("--texts", action="store_true")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--interactive", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what fastai prints is no JSON
        docs, given = documents(args.file)
        if args.texts:
            dls, loader = text_loaders(given["texts"].tolist(), given["itos"].tolist())
        else:
            dl = sorted_dl(docs, given["labels"], shuffle=False, batch_size=args.batch_size)
            dls, loader = DataLoaders(dl, dl), lambda: dl
        learn = Learner(dls, classifier(args.size, given), loss_func=CrossEntropyLossFlat(), cbs=rnn_cbs())

        def once():
            begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
            with learn.no_bar(), learn.no_logging():
                probabilities, _ = learn.get_preds(dl=loader())
            seconds, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
            return {"seconds": seconds, "cpu_s": cpu_s, "n_tokens": sum(map(len, docs)), "probabilities": probabilities.numpy()[:, 1].astype(np.float64).round(7).tolist()}  # fmt: skip

        if args.interactive:
            for _ in sys.stdin:
                print(json.dumps(once()), file=out, flush=True)
            return
        print(json.dumps({"runs": [once()]}), file=out)


if __name__ == "__main__":
    main()
