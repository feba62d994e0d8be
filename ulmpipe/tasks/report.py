"""`ulmpipe report RUN [RUN ...]`, and what `pretrain` and `finetune` write down for it: the report of a run, or of several compared.

    a training that is done -> its corpus, counted; its model on the held-out documents -> report.json -> report.html
    run folders             -> reports/page.py -> report.html, or a page that compares them

How a page is made and looks is in reports/. A report never fails a training: the model is saved before.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import TrainConfig
from ..console import log, progress
from ..durable import write_bytes
from ..errors import ConfigError, UlmpipeError
from ..journal import Run, written_down
from ..models import TextClassifier
from ..reports.facts import Facts, Judged, Mistake, histogram, judged_by, judged_by_answers, run_again
from ..reports.page import check_runs, compare_page, one_page, only_noted, write_report
from ..reports.timing import timing
from ..text.batches import IntArray
from ..text.labels import is_labelled
from ..text.padding import two_ends
from ..text.store import TokenStore
from ..text.vocab import Vocab
from ..train import confusion_matrix, pick_device
from ..train.metrics import perplexity
from ..train.multi_label import answer_counts
from ..train.phases import PAGE_FILE
from .corpus import Corpus, count_words
from .describe import count_labels, unknown_share, without
from .evaluate import classify_documents
from .model_folder import CLASSIFIER, Pretrained
from .predict import own_word_scores, shares

OF_LOSSES = "In training the loss is of the network alone; held out it is of the network and the words and pairs of words beside it."
COMPARED_FILE = "compared.html"
MARK, MARK_WITHIN = b'<meta name="generator" content="ulmpipe">', 1000  # stands at the top of every page of ours
N_WORDS = 25  # in a list of words
N_MISTAKES = 10
MAX_WORDS = 400  # of a mistake that are shown: its two ends
OF_THE_ROW = ("accuracy", "exact_match", "f1_macro", "f1_micro", "valid_loss")


@dataclass(frozen=True)
class ReportResult:
    """What was written; the fields of `report --json`."""

    out: str
    runs: list[str]


def report(*runs: str | Path, out: str | Path | None = None) -> ReportResult:
    """Write the page of a run folder again, or one that compares several.

    `out` is `RUN/report.html` of one, `compared.html` of several. Raises `UlmpipeError` that names what is no run folder.
    """
    if not runs:
        raise ConfigError("no run was given, expected one run folder or several")
    found = check_runs(runs)
    path = Path(out) if out is not None else Path(runs[0]) / PAGE_FILE if len(found) == 1 else Path(COMPARED_FILE)
    if path.exists() and MARK not in path.read_bytes()[:MARK_WITHIN]:
        raise UlmpipeError(f"{path} is there, and is no report of ours: choose another -o")
    page = one_page(found[0]) if len(found) == 1 else compare_page(found)
    write_bytes(path, page.encode("utf-8"))
    return ReportResult(str(path), [str(run.folder) for run in found])


# ---- at the end of a training ---------------------------------------------------------------------------------------


def report_training(
    folder: Path,
    corpus: Corpus,
    config: TrainConfig,
    run: Run,
    *,
    task: str,
    source: str,
    out: str,
    chosen: IntArray | None = None,
    start: Vocab | None = None,
    read_s: float = 0.0,
    curves: Sequence[Path] = (),
    is_whole: bool = True,
) -> None:
    """Write `report.json` and `report.html` into the folder of a finished model.

    `task`, `source` and `out` are the words of its command. `chosen` are the documents (n,) whose labels were learned from,
    numbers in the corpus's store; `start` is the vocabulary of the language model that the training began with, `read_s` what
    it took to read and tokenize, `curves` the folders whose phases it tells of (default: this one), and `is_whole` whether
    these are all of the run. Whatever goes wrong is one line of the log.
    """
    with only_noted(folder):
        pretrained = Pretrained.from_pretrained(folder, device=str(pick_device(config.device)))
        is_classifier = pretrained.kind == CLASSIFIER
        judged, mistakes = judge(pretrained, corpus) if is_classifier else (None, [])
        results = _telling(pretrained.trained["results"], is_classifier=is_classifier)
        if (alone := words_alone(pretrained, corpus)) is not None:
            results["right_by_words_and_pairs_alone"] = alone
        words = count_words(corpus)
        new = without(words, start.stoi) if start is not None else None
        facts = Facts(
            **run_again(["ulmpipe", task, source, "-o", out], config),
            kind=pretrained.kind,
            source=written_down(source),
            results=results,
            of_losses=OF_LOSSES if alone is not None else "",
            data=_how_many(corpus, pretrained, words, new),
            classes=_classes(corpus if chosen is None else replace(corpus, train=chosen)) if is_classifier else {},
            lengths=histogram(corpus.store.doc_lengths[corpus.train], "tokens"),
            words=_words(corpus.store, words, new),
            judged=judged,
            mistakes=mistakes,
            timing_s=timing(curves or [folder], {"reading and tokenizing": read_s}, run, is_whole=is_whole),
            run=run.entry(),
        )
        facts.save(folder)
        log(f"report: {write_report(folder)}")


def _classes(corpus: Corpus) -> dict[str, dict[str, int]]:
    """How many documents of each label there are in both parts."""
    return {label: {"to train on": n["train"], "held out": n["valid"]} for label, n in count_labels(corpus).items()}


def _telling(row: dict[str, float | None], *, is_classifier: bool) -> dict[str, float | None]:
    """What was reached, the most telling first."""
    found = {name: row[name] for name in OF_THE_ROW if row.get(name) is not None}
    if is_classifier or (loss := row.get("valid_loss")) is None:
        return found
    return {"perplexity": perplexity(loss), **found}


def _how_many(
    corpus: Corpus, pretrained: Pretrained, words: Counter[str], new: dict[str, int] | None
) -> dict[str, float | int | str]:
    """The rows of the table of data; `new` are those of the words that the language model to start from did not know."""
    store, lengths = corpus.store, corpus.store.doc_lengths
    found: dict[str, float | int | str] = {
        "documents to train on": len(corpus.train),
        "documents held out": len(corpus.valid),
        "tokens to train on": int(lengths[corpus.train].sum()),
        "words in the vocabulary": len(pretrained.vocab),
        "inputs that could not be read": corpus.n_quarantined,
    }
    if (n_labels := pretrained.trained.get("n_labels")) is not None:
        found["labelled documents to learn from"] = n_labels
    if (share := unknown_share(store, corpus.train)) is not None:
        found["tokens that are unknown words"] = f"{share:.2%}"
    if new is not None:
        found["words new to the language model"] = f"{len(new) / max(1, len(words)):.1%}"
        found["tokens that are such words"] = f"{sum(new.values()) / max(1, words.total()):.2%}"
    return found


def _words(store: TokenStore, words: Counter[str], new: dict[str, int] | None) -> dict[str, dict[str, int]]:
    """What is frequent, what the vocabulary has no place for, and what the language model to start from did not know."""
    lists = {
        "most frequent": dict(words.most_common(N_WORDS)),
        "most frequent without a place in the vocabulary": dict(store.manifest.get("left_out_words", [])[:N_WORDS]),
        "most frequent that the language model did not know": dict(islice((new or {}).items(), N_WORDS)),
    }
    return {heading: found for heading, found in lists.items() if found}


# ---- held-out documents ---------------------------------------------------------------------------------------------


def judge(pretrained: Pretrained, corpus: Corpus) -> tuple[Judged | None, list[Mistake]]:
    """What a classifier makes of the held-out documents, and its worst mistakes; nothing where none are held out."""
    store = corpus.valid_store
    which = corpus.valid[is_labelled(store.doc_labels[corpus.valid])]
    if not len(which):
        return None, []
    docs, logits, target = classify_documents(pretrained, store, which)
    n_classes, said = len(pretrained.labels), pretrained.given(logits)
    if pretrained.multi_label:
        judged = judged_by_answers(answer_counts(said, target).numpy(), len(docs), pretrained.labels)
        losses = F.binary_cross_entropy_with_logits(logits, target.clamp(min=0).float(), reduction="none").mean(dim=1)
    else:
        judged = judged_by(confusion_matrix(logits.argmax(-1), target, n_classes).numpy(), pretrained.labels)
        losses = F.cross_entropy(logits, target, reduction="none")
        target = F.one_hot(target, n_classes)
    wrong = (said != (target > 0)).any(dim=1)
    worst = [int(i) for i in losses.argsort(descending=True) if wrong[i]][:N_MISTAKES]
    mistakes = []
    with progress("report", len(worst)) as bar:
        for n, i in enumerate(worst, 1):
            mistakes.append(_mistake(pretrained, store, docs[i], logits[i], said[i], target[i], float(losses[i])))
            bar.update(n)
    return judged, mistakes


def words_alone(pretrained: Pretrained, corpus: Corpus) -> float | None:
    """How many of the held-out documents are right by words and pairs of words alone, without the network; None where there are none."""
    which = corpus.valid[is_labelled(corpus.valid_store.doc_labels[corpus.valid])]
    if not isinstance(pretrained.model, TextClassifier) or pretrained.model.ngrams is None or not len(which):
        return None
    _, logits, target = classify_documents(pretrained, corpus.valid_store, which, score=pretrained.model.ngrams)
    if not pretrained.multi_label:
        target = F.one_hot(target, len(pretrained.labels))
    return float((pretrained.given(logits) == (target > 0)).all(dim=1).double().mean())


def _mistake(
    pretrained: Pretrained, store: TokenStore, doc: int, logits: Tensor, said: Tensor, target: Tensor, loss: float
) -> Mistake:
    """A document that the model is wrong about: logits, said and target (C,)."""
    tokens = two_ends(store.doc(int(doc)).tolist(), pretrained.trained["max_tokens"])
    best = int(logits.argmax())
    device = next(pretrained.model.parameters()).device
    scores = own_word_scores(pretrained, torch.tensor(tokens, dtype=torch.int64, device=device), best)
    words = shares(list(zip(pretrained.vocab.decode(tokens), scores, strict=True)))
    if len(words) > MAX_WORDS:
        words = [*words[: MAX_WORDS // 2], ("…", 0.0), *words[-MAX_WORDS // 2 :]]

    def names(flags: Tensor) -> str:
        return ", ".join(name for name, flag in zip(pretrained.labels, flags.tolist(), strict=True) if flag) or "none"

    probability = float(pretrained.probabilities(logits[None])[0, best])
    return Mistake(
        names(target > 0), names(said), probability, loss, [(word, round(share, 5)) for word, share in words]
    )
