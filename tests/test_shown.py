"""What commands say for people: each number once, rounded, with what it is of."""

from types import SimpleNamespace
from typing import Any

import pytest

from ulmpipe.shown import MAX_CHARACTERS, demonstrated, evaluated, finetuned, planned, predicted, pretrained, tokenized
from ulmpipe.tasks.evaluate import Evaluation
from ulmpipe.tasks.predict import Prediction


def made(**fields: Any) -> Any:
    return SimpleNamespace(**fields)


def test_tokens_are_counted_and_their_speed_told_unless_they_were_there():
    result = made(n_docs=1200, n_tokens=34567, vocab_size=800, seconds=1.26, mb_per_s=3.456, reused=False, out="a.tok")
    first, second = tokenized(result)
    assert first == "1,200 documents, 34,567 tokens, 800 in the vocabulary" and second == "a.tok  1.3 s, 3.46 MB/s"
    result.reused = True
    assert list(tokenized(result))[1] == "a.tok (as it was)"


def test_a_plan_ends_with_what_was_not_done():
    would = made(notes=["a note"], n_files=2, n_bytes=3e6, n_units=1, workers=1, disk_bytes=6e6, disk_free_bytes=9e9, memory_bytes=6e8, out="a.tok")  # fmt: skip
    lines = list(planned(would))
    assert lines[0] == "a note" and "2 files, 3.0 MB" in lines[1] and "about 6 MB, 9,000 MB are free" in lines[2]
    assert lines[-1] == "a.tok, not written: this is a dry run"


def test_a_language_model_is_told_by_its_perplexity():
    lines = list(pretrained(made(perplexity=61.234, accuracy=0.2567, seconds=90.4, tokens_per_s=12345.6, out="m")))
    assert lines == ["perplexity 61.2, accuracy 0.257 on held-out text", "m  90 s, 12,346 tokens/s"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"accuracy": None}, "language model: loss 4.321 on held-out text"),
        ({}, "accuracy 0.912 on held-out documents, after 800 labelled ones (neg, pos)"),
        (
            {"folds": {"accuracy": [0.9, 0.92]}},
            "accuracy 0.912 (2 folds, from 0.900 to 0.920), macro F1 0.910; trained on all 800 labelled documents (neg, pos)",
        ),
    ],
)
def test_a_classifier_is_told_by_what_judged_it(fields: dict[str, Any], told: str):
    about = {"accuracy": 0.9123, "f1_macro": 0.91, "valid_loss": 4.3214, "folds": None, "n_labels": 800}
    result = made(**about | fields, labels=["neg", "pos"], seconds=12.0, out="m")
    assert list(finetuned(result)) == [told, "m  12 s"]


def test_an_evaluation_has_a_row_a_label():
    result = Evaluation(n=10, loss=0.5, accuracy=0.8, f1_macro=0.79, f1={"neg": 0.75, "pos": 0.83}, confusion=[[3, 1], [1, 5]], labels=["neg", "pos"])  # fmt: skip
    assert list(evaluated(result)) == [
        "accuracy 0.8000, macro F1 0.7900 on 10 documents",
        "  neg: F1 0.7500",
        "  pos: F1 0.8300",
        "confusion (rows: truth, columns: prediction)",
        "         3       1  neg",
        "         1       5  pos",
    ]


def test_a_prediction_is_a_line_and_its_strongest_words_another():
    long = Prediction("pos", 0.9, {"pos": 0.9, "neg": 0.1}, "x" * 200, ["pos"], [("good", 3.0), ("bore", -1.0)])
    first, second = predicted(long)
    label, probability, text = first.split("\t")
    assert (label, probability, len(text), text[-1]) == ("pos", "0.900", MAX_CHARACTERS, "…")
    assert second == "\tgood +75%, bore -25%"
    none = Prediction("pos", 0.4, {"pos": 0.4}, "x", [])
    assert list(predicted(none)) == ["none (nearest: pos)\t0.400\tx"]


def test_the_demo_says_how_to_go_on():
    said = Prediction("1", 0.99, {"1": 0.99}, "Superb.", ["1"])
    lines = list(demonstrated(made(accuracy=0.871, n_test=3000, seconds=119.4, predictions=[said], out="demo")))
    assert lines[0] == "accuracy 0.871 on 3,000 reviews it has not seen, after 119 s"
    assert lines[1:] == [
        "  1 (1 is positive)  0.990  Superb.",
        "try it: ulmpipe predict demo/classifier 'your own review'",
    ]
