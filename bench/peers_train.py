"""The goal of this script is to run fastai's side of the training benches, in a Python that has fastai (DESIGN 8).

    PEER_PYTHON bench/peers_train.py lm-batches FILE.npz [--windows OUT.npz]     an epoch of LMDataLoader, one core
    PEER_PYTHON bench/peers_train.py classifier-batches FILE.npz [--sorted]      an epoch of SortedDL + Pad_Chunk, one core
    PEER_PYTHON bench/peers_train.py lm-step small|base [--given FILE.npz]       a training step of the language model
    PEER_PYTHON bench/peers_train.py classifier-epoch FILE.npz                   a training epoch of the classifier

FILE.npz holds documents: `ids` flat, `offsets` (N + 1,), `labels` (N,) for a classifier, `vocab_size` for `classifier-epoch`.
`--given` holds `ids` (B, T + 1), and weights under the names of fastai's state dict, where they shall not be random.

Each prints one JSON object, with what each of `--repeats` runs found. With `--interactive` it makes ready, then runs once
for each line of its input and prints one JSON line each time, so that a caller can take turns with it. Imports nothing of ulmpipe.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time

sys.path.pop(0)  # bench/: nothing of it is for this environment

import numpy as np
import torch
from fastai.text.all import (
    AWD_LSTM,
    Adam,
    CrossEntropyLossFlat,
    LMDataLoader,
    Pad_Chunk,
    SortedDL,
    TensorCategory,
    TensorText,
    awd_lstm_lm_config,
    get_language_model,
    get_text_classifier,
    set_seed,
)
from fastai.text.models.awdlstm import awd_lstm_clas_split, awd_lstm_lm_split

SIZES = {"base": (400, 1152, 3), "small": (300, 300, 2)}
VOCAB_SIZE, BATCH_SIZE, SEQ_LEN = 60_000, 64, 72
PAD, CLIP, WEIGHT_DECAY, LR = 1, 0.1, 0.1, 5e-3
ALPHA, BETA = 2.0, 1.0  # AR and TAR


def sizes(name):
    """A size under fastai's names."""
    return dict(zip(("emb_sz", "n_hid", "n_layers"), SIZES[name], strict=True))


def documents(path):
    """Documents as fastai holds them once they are numericalised, all in memory; and what else the file has."""
    with np.load(path) as file:
        given = {name: file[name] for name in file.files}
    ids, offsets = torch.from_numpy(given["ids"].astype(np.int64)), given["offsets"]
    docs = [TensorText(ids[begin:end]) for begin, end in zip(offsets[:-1], offsets[1:], strict=True)]
    return docs, given


def one_core():
    """Stay on the first core, as the caller does."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


# ---- batches --------------------------------------------------------------------------------------------------------


def lm_batches(args):
    """Epochs of `LMDataLoader`, shuffled; with `--windows` those of an epoch that is not, written to a file."""
    one_core()
    docs, _ = documents(args.file)
    if args.windows:
        windows = [(x, y) for x, y in LMDataLoader(docs, bs=BATCH_SIZE, seq_len=SEQ_LEN, num_workers=0)]
        assert all(torch.equal(x[:, 1:], y[:, :-1]) for x, y in windows)
        streams = [torch.cat(parts, dim=1).numpy().astype(np.int32) for parts in zip(*windows, strict=True)]
        np.savez(args.windows, x=streams[0], y=streams[1])
    dl = LMDataLoader(docs, bs=BATCH_SIZE, seq_len=SEQ_LEN, num_workers=0, shuffle=True)

    def once():
        begin_s = time.perf_counter()
        shapes = [tuple(y.shape) for _, y in dl]
        return {"seconds": time.perf_counter() - begin_s, "n_targets": sum(b * t for b, t in shapes), "n_batches": len(shapes)}  # fmt: skip

    return once


def sorted_dl(docs, labels, *, shuffle, batch_size=BATCH_SIZE):
    """The data loader of fastai's classifier."""
    pairs = [(doc, TensorCategory(int(label))) for doc, label in zip(docs, labels, strict=True)]
    lengths = [len(doc) for doc in docs]
    pad = Pad_Chunk(pad_idx=PAD, seq_len=SEQ_LEN)
    return SortedDL(pairs, res=lengths, bs=batch_size, shuffle=shuffle, before_batch=pad, num_workers=0)


def encoder_positions(x):
    """Positions that fastai's SentenceEncoder computes: a row joins in once its first chunk of padding is over."""
    chunks = range(0, x.shape[1], SEQ_LEN)
    return sum(int((x[:, i] != PAD).sum()) * min(SEQ_LEN, x.shape[1] - i) for i in chunks)


def classifier_batches(args):
    """Epochs of `SortedDL` with `Pad_Chunk`."""
    one_core()
    docs, given = documents(args.file)
    dl = sorted_dl(docs, given["labels"], shuffle=not args.sorted)

    def once():
        set_seed(args.seed)
        begin_s = time.perf_counter()
        shapes = [tuple(x.shape) for x, _ in dl]
        seconds = time.perf_counter() - begin_s
        return {"seconds": seconds, "n_batches": len(shapes), "n_positions": sum(b * n for b, n in shapes), "largest": max(b * n for b, n in shapes)}  # fmt: skip

    found = {"n_tokens": 0, "n_encoder_positions": 0}
    set_seed(args.seed)
    for x, _ in dl:
        found["n_tokens"] += int((x != PAD).sum())
        found["n_encoder_positions"] += encoder_positions(x)
    return lambda: {**once(), **found}


# ---- training -------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds of each part of a step."""

    def __init__(self):
        self.seconds, self.begin_s = {}, time.perf_counter()

    def lap(self, name):
        """What has passed since the last lap was spent on `name`."""
        now_s = time.perf_counter()
        self.seconds[name] = now_s - self.begin_s
        self.begin_s = now_s


def step(model, opt, loss_func, inputs, target, *, alpha=0.0, beta=0.0):
    """A training step as fastai's Learner takes it with RNNRegularizer and GradientClip; seconds of its parts, the loss."""
    clock = Clock()
    pred, raw_out, out = model(inputs)
    clock.lap("forward")
    loss = loss_func(pred, target)
    total = loss
    if alpha:
        total = total + alpha * out.float().pow(2).mean()
    if beta:
        total = total + beta * (raw_out[:, 1:] - raw_out[:, :-1]).float().pow(2).mean()
    clock.lap("loss")
    total.backward()
    clock.lap("backward")
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    opt.step()
    opt.zero_grad()
    clock.lap("optimiser")
    return {**clock.seconds, "step": sum(clock.seconds.values())}, loss.item()


def adam(params):
    """fastai's Adam, its decay decoupled."""
    return Adam(params, lr=LR, wd=WEIGHT_DECAY)


def lm_step(args):
    """Training steps of the language model on one batch, the state carried from step to step."""
    set_seed(args.seed)
    config = {**awd_lstm_lm_config, **sizes(args.size)}
    model = get_language_model(AWD_LSTM, args.vocab_size, config=config, drop_mult=args.drop_mult)
    given = {}
    if args.given:
        with np.load(args.given) as file:
            given = {name: torch.from_numpy(file[name]) for name in file.files}
    ids = given.pop("ids", None)
    if ids is None:
        ids = torch.randint(2, args.vocab_size, (BATCH_SIZE, SEQ_LEN + 1))
    if given:
        load_weights(model, given)
    x, y = ids[:, :-1].long().contiguous(), ids[:, 1:].long().contiguous()
    opt, loss_func = adam(awd_lstm_lm_split(model)), CrossEntropyLossFlat()
    model.train()
    model.reset()
    n_parameters = sum(param.numel() for param in model.parameters())

    def once():
        seconds, loss = step(model, opt, loss_func, x, y, alpha=ALPHA, beta=BETA)
        return {"seconds": seconds, "loss": loss, "n_targets": y.numel(), "n_parameters": n_parameters, "peak_rss_mb": peak_rss_mb()}  # fmt: skip

    warm_up = [once()["loss"] for _ in range(args.warm_up)]
    return lambda: {**once(), "warm_up_losses": warm_up}


def load_weights(model, weights):
    """Copy weights into all parameters of a model, by fastai's names; the tied one may be there once."""
    params = dict(model.named_parameters())  # the tied one once
    if missing := set(params) - set(weights):
        sys.exit(f"--given lacks {', '.join(sorted(missing))}")
    with torch.no_grad():
        for name, param in params.items():
            param.copy_(weights[name])


def classifier_epoch(args):
    """Training epochs of the classifier: no AR and TAR, gradients clipped, as ours."""
    set_seed(args.seed)
    docs, given = documents(args.file)
    labels = given["labels"]
    config = {**sizes(args.size), "pad_token": PAD}
    n_classes = int(labels.max()) + 1
    model = get_text_classifier(AWD_LSTM, int(given["vocab_size"]), n_classes, seq_len=SEQ_LEN, config=config, drop_mult=args.drop_mult)  # fmt: skip
    opt, loss_func = adam(awd_lstm_clas_split(model)), CrossEntropyLossFlat()
    dl = sorted_dl(docs, labels, shuffle=True)

    def once():
        model.train()
        model.reset()
        parts, n_positions, n_encoder, losses = {}, 0, 0, []
        begin_s = time.perf_counter()
        for x, y in dl:
            seconds, loss = step(model, opt, loss_func, x, y)
            parts = {name: parts.get(name, 0.0) + spent for name, spent in seconds.items()}
            n_positions += x.numel()
            n_encoder += encoder_positions(x)
            losses.append(loss)
        seconds, n_tokens = time.perf_counter() - begin_s, sum(map(len, docs))
        return {
            "seconds": seconds,
            "parts_s": parts,
            "n_docs": len(docs),
            "n_tokens": n_tokens,
            "tokens_per_s": n_tokens / seconds,
            "n_batches": len(losses),
            "padding": 1 - n_tokens / n_positions,
            "encoder_padding": 1 - n_tokens / n_encoder,
            "train_loss": sum(losses) / len(losses),
            "peak_rss_mb": peak_rss_mb(),
        }

    return once


# ---- the command ----------------------------------------------------------------------------------------------------


def peak_rss_mb():
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function, repeats in (
        ("lm-batches", lm_batches, 5),
        ("classifier-batches", classifier_batches, 5),
        ("lm-step", lm_step, 5),
        ("classifier-epoch", classifier_epoch, 1),
    ):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--repeats", type=int, default=repeats)
        command.add_argument("--interactive", action="store_true")
        command.add_argument("--seed", type=int, default=0)
        if name == "lm-step":
            command.add_argument("size", choices=SIZES)
            command.add_argument("--given")
            command.add_argument("--warm-up", type=int, default=2)
            command.add_argument("--vocab-size", type=int, default=VOCAB_SIZE)
            command.add_argument("--drop-mult", type=float, default=1.0)
            continue
        command.add_argument("file")
        if name == "lm-batches":
            command.add_argument("--windows")
        if name == "classifier-batches":
            command.add_argument("--sorted", action="store_true")
        if name == "classifier-epoch":
            command.add_argument("--size", choices=SIZES, default="small")
            command.add_argument("--drop-mult", type=float, default=0.5)
    return parser.parse_args()


def main():
    """Make ready, then run once a line, or so many times."""
    args = parse()
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what fastai prints is no JSON
        once = args.function(args)
        if args.interactive:
            for _ in sys.stdin:
                print(json.dumps(once()), file=out, flush=True)
            return
        runs = [once() for _ in range(args.repeats)]
    print(json.dumps({"runs": runs, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
