"""What each command says of its result, for people: lines of stdout.

Between the results of the tasks, which `--json` prints as they are, and cli.py. Measures nothing; the names of the functions
say what has been done.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tasks.demo import DemoResult
    from .tasks.doctor import DoctorResult
    from .tasks.evaluate import Evaluation
    from .tasks.finetune import FinetuneResult
    from .tasks.import_fastai import ImportResult
    from .tasks.limits import TokenizePlan
    from .tasks.predict import Prediction
    from .tasks.pretrain import PretrainResult
    from .tasks.tokenize import TokenizeResult

MAX_LABELS = 8  # that doctor shows
MAX_CHARACTERS = 80  # of a text


def planned(would: "TokenizePlan") -> Iterator[str]:
    """`tokenize --dry-run`."""
    yield from would.notes
    yield f"{would.n_files:,} files, {would.n_bytes / 1e6:,.1f} MB, in {would.n_units:,} work units on {would.workers} workers"
    yield f"disk: about {would.disk_bytes / 1e6:,.0f} MB, {would.disk_free_bytes / 1e6:,.0f} MB are free; memory: about {would.memory_bytes / 1e6:,.0f} MB"
    yield f"{would.out}, not written: this is a dry run"


def tokenized(result: "TokenizeResult") -> Iterator[str]:
    """`tokenize`."""
    yield f"{result.n_docs:,} documents, {result.n_tokens:,} tokens, {result.vocab_size:,} in the vocabulary"
    yield f"{result.out}{' (as it was)' if result.reused else f'  {result.seconds:.1f} s, {result.mb_per_s:.2f} MB/s'}"


def pretrained(result: "PretrainResult") -> Iterator[str]:
    """`pretrain`."""
    yield f"perplexity {result.perplexity:.1f}, accuracy {result.accuracy:.3f} on held-out text"
    yield f"{result.out}  {result.seconds:.0f} s, {result.tokens_per_s:,.0f} tokens/s"


def finetuned(result: "FinetuneResult") -> Iterator[str]:
    """`finetune`: how good the classifier is, and by what that was judged."""
    if result.accuracy is None:
        yield f"language model: loss {result.valid_loss:.3f} on held-out text"
    elif result.folds is not None:
        values = result.folds.get("accuracy") or result.folds["exact_match"]
        spread = f"({len(values)} folds, from {min(values):.3f} to {max(values):.3f}), macro F1 {result.f1_macro:.3f}"
        yield f"accuracy {result.accuracy:.3f} {spread}; trained on all {result.n_labels:,} labelled documents ({', '.join(result.labels)})"
    else:
        yield f"accuracy {result.accuracy:.3f} on held-out documents, after {result.n_labels:,} labelled ones ({', '.join(result.labels)})"
    yield f"{result.out}  {result.seconds:.0f} s"


def evaluated(result: "Evaluation") -> Iterator[str]:
    """`evaluate`, of a language model or of a classifier."""
    if result.perplexity is not None:
        yield f"perplexity {result.perplexity:.2f}, accuracy {result.accuracy:.4f} on {result.n:,} tokens"
        return
    exact = "" if result.exact_match is None else f" (all labels right), micro F1 {result.f1_micro:.4f}"
    yield f"accuracy {result.accuracy:.4f}{exact}, macro F1 {result.f1_macro:.4f} on {result.n:,} documents"
    yield from (f"  {label}: F1 {f1:.4f}" for label, f1 in (result.f1 or {}).items())
    if result.confusion:
        yield "confusion (rows: truth, columns: prediction)"
        for label, row in zip(result.labels or [], result.confusion, strict=True):
            yield "  " + "".join(f"{n:>8}" for n in row) + f"  {label}"


def predicted(prediction: "Prediction") -> Iterator[str]:
    """A text of `predict`: label, probability, the text; below it, with `--explain`, the words that mattered."""
    from .tasks.predict import strongest

    text = prediction.text
    shown = text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
    labels = ", ".join(prediction.labels) or f"none (nearest: {prediction.label})"
    yield f"{labels}\t{prediction.probability:.3f}\t{shown}"
    if prediction.words is not None:
        yield "\t" + ", ".join(f"{word} {share:+.0%}" for word, share in strongest(prediction.words))


def imported(result: "ImportResult") -> Iterator[str]:
    """`import-fastai`, and how to go on."""
    yield f"{result.vocab_size:,} words, {result.n_layers} layers of {result.hidden_size}, embedding {result.emb_size}, --rules {result.rules}"
    yield f"{result.out}  go on with: ulmpipe finetune SOURCE --from {result.out} --rules {result.rules}"


def examined(found: "DoctorResult") -> Iterator[str]:
    """`doctor`: the numbers, then the problems."""
    size = f"{found.model_vocab_size:,} words" if found.model_vocab_size else "no vocabulary"
    yield f"model      {found.kind or 'unknown'}, {size}, {_recipe(found.model_recipe)}"
    yield f"source     {found.n_train:,} documents to train on, {found.n_valid:,} held out; {found.n_tokens:,} tokens, {found.vocab_size:,} words, {_recipe(found.recipe)}"
    if found.tokens_mapped is not None and found.words_mapped is not None:
        yield f"mapped     {found.tokens_mapped:.1%} of the tokens, {found.words_mapped:.1%} of the words"
    if found.unmapped:
        yield "unmapped   " + ", ".join(f"{word!r} {n:,}" for word, n in found.unmapped.items())
    valid = "" if found.unknown_valid is None else f", {found.unknown_valid:.2%} of the held-out ones"
    yield f"unknown    {found.unknown_train:.2%} of the tokens to train on{valid}"
    yield f"lengths    median {found.lengths['median']:,}, 90 % up to {found.lengths['p90']:,}, longest {found.lengths['longest']:,}"
    for label, n in list(found.labels.items())[:MAX_LABELS]:
        yield f"label      {label}: {n['train']:,} to train on, {n['valid']:,} held out"
    if (n_more := len(found.labels) - MAX_LABELS) > 0:
        yield f"label      and {n_more:,} more"
    if found.n_unlabelled:
        yield f"unlabelled {found.n_unlabelled:,}"
    yield from (f"problem    {problem}" for problem in found.problems)
    if not found.problems:
        yield "no problem found"


def _recipe(recipe: dict[str, str] | None) -> str:
    return f"--lang {recipe['lang']} --rules {recipe['rules']}" if recipe else "rules unknown"


def demonstrated(result: "DemoResult") -> Iterator[str]:
    """`demo`."""
    yield f"accuracy {result.accuracy:.3f} on {result.n_test:,} reviews it has not seen, after {result.seconds:.0f} s"
    yield from (f"  {p.label} (1 is positive)  {p.probability:.3f}  {p.text}" for p in result.predictions)
    yield f"try it: ulmpipe predict {result.out}/classifier 'your own review'"
