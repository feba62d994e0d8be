"""`predict` says the same of a text whether it comes alone or among others, in the order in which texts came."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import Cli, check_refused
from learnable import BAD, Trained, make_docs

import ulmpipe
from ulmpipe.errors import ConfigError, StoreError, UlmpipeError
from ulmpipe.models.inference import classify
from ulmpipe.tasks import predict as task
from ulmpipe.tasks.model_folder import Pretrained
from ulmpipe.tasks.predict import Prediction, Predictor, predict, strongest
from ulmpipe.text.engine import FastTokenizer, usable_engine
from ulmpipe.text.rules import Rules
from ulmpipe.text.tokenizer import TokenizerRecipe

TEXT = "What a dull film! Its plot is tedious."


@pytest.fixture(scope="module")
def model(trained: Trained) -> Pretrained:
    return Pretrained.from_pretrained(trained.clf)


def close(a: Prediction, b: Prediction) -> bool:
    return a.text == b.text and a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


def test_batch_and_single_agree(model: Pretrained):
    texts = [text for text, _ in make_docs(20, seed=7)] + ["", "dull", "superb " * 30]
    together = list(predict(model, texts))
    assert [p.text for p in together] == texts
    for text, comp in zip(texts, together, strict=True):
        (ref,) = predict(model, [text])
        assert close(comp, ref)


def test_order_is_kept_over_chunks(model: Pretrained, monkeypatch: pytest.MonkeyPatch):
    texts = [text for text, _ in make_docs(11, seed=8)]
    ref = list(predict(model, texts))
    monkeypatch.setattr(task, "CHUNK_TEXTS", 4)
    comp = list(predict(model, texts))
    assert len(comp) == 11 and all(close(a, b) for a, b in zip(comp, ref, strict=True))


def test_labels_are_learned(model: Pretrained):
    docs = make_docs(40, seed=9)
    comp = [p.label for p in predict(model, [text for text, _ in docs])]
    assert sum(a == b for a, (_, b) in zip(comp, docs, strict=True)) >= 36


def test_probabilities_are_of_all_labels_and_sum_to_one(model: Pretrained):
    (comp,) = predict(model, ["A superb film"])
    assert list(comp.probabilities) == ["neg", "pos"] and sum(comp.probabilities.values()) == pytest.approx(1, abs=2e-6)
    assert comp.probability == max(comp.probabilities.values()) == comp.probabilities[comp.label]


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\x00", "日本語のテキスト", "zzz qqq", "xxbos xxpad xxunk", "😀" * 50, "<br />" * 9]
)
def test_any_text_has_a_prediction(model: Pretrained, text: str):
    (comp,) = predict(model, [text])
    assert comp.label in ("neg", "pos") and 0.5 <= comp.probability <= 1 and comp.text == text


def test_very_long_text_is_judged_by_its_two_ends(model: Pretrained):
    end = "A superb film! Its cast is brilliant. "
    half = model.trained["max_tokens"] // 2
    texts = [end * half + middle * 900 + end * half for middle in ("dull ", "awful film . ")]
    a, b = predict(model, texts)
    assert a.probabilities == b.probabilities and a.label == "pos"


def test_empty_texts_are_told_of(model: Pretrained, capsys: pytest.CaptureFixture[str]):
    Predictor(model).predict(["", "fine", " \n"])
    assert "2 of 3 texts are empty, and have a label all the same" in capsys.readouterr().err
    Predictor(model).predict(["fine"])
    assert "empty" not in capsys.readouterr().err


def test_no_texts_no_predictions(model: Pretrained):
    assert list(predict(model, [])) == []


def test_texts_are_read_as_they_are_needed(model: Pretrained, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "CHUNK_TEXTS", 2)
    taken: list[int] = []

    def texts() -> Iterator[str]:
        for i in range(9):
            taken.append(i)
            yield "text"

    assert next(predict(model, texts())).text == "text"
    assert taken == [0, 1]


def test_language_model_is_refused(trained: Trained):
    with pytest.raises(UlmpipeError, match="predict needs a classifier, and this is a language model: finetune makes"):
        next(predict(trained.lm, ["x"]))


def test_missing_model_is_refused(trained: Trained):
    with pytest.raises(StoreError, match="does not exist, expected a model folder: check the spelling"):
        next(predict(trained.folder / "absent", ["x"]))
    with pytest.raises(StoreError, match="holds a token store, expected a model folder"):
        next(predict(trained.store, ["x"]))


def opposite(text: str) -> str:
    return text.replace("superb", "awful")


def test_custom_rules_reach_the_tokenizer(trained: Trained):
    model = Pretrained.from_pretrained(trained.clf)
    rules = Rules(pre=(opposite,), post=model.tokenizer().rules.post)
    with pytest.raises(ConfigError, match="not with rules of your own"):
        next(predict(model, ["x"], custom_rules=rules))
    (ref,) = predict(model, ["A awful plot"])
    model.recipe = TokenizerRecipe(rules=rules).to_json()
    (comp,) = predict(model, ["A superb plot"], custom_rules=rules)
    assert comp.probabilities == ref.probabilities


def test_what_is_no_text_is_named(model: Pretrained):
    with pytest.raises(TypeError, match="texts holds a int, expected strings"):
        Predictor(model).predict(["a", 3])  # pyright: ignore[reportArgumentType]


def test_tables_that_are_not_there_are_refused(model: Pretrained):
    with pytest.raises(
        ConfigError, match=r"--tables nosuch.arrow does not exist: tokenize --tables nosuch.arrow writes it"
    ):
        Predictor(model, tables="nosuch.arrow")


def test_tables_change_no_prediction(model: Pretrained, tmp_path: Path):
    texts = [text for text, _ in make_docs(6, seed=10)]
    engine = FastTokenizer(TokenizerRecipe.from_json(model.recipe))
    engine.encode_texts(texts)
    engine.dump(tmp_path / "t.arrow")
    ref, comp = list(predict(model, texts)), list(predict(model, texts, tables=str(tmp_path / "t.arrow")))
    assert all(close(a, b) for a, b in zip(comp, ref, strict=True))


# ---- a model that stays loaded --------------------------------------------------------------------------------------


def test_loaded_model_predicts_again_and_again(trained: Trained):
    predictor = ulmpipe.from_pretrained(trained.clf, device="cpu")
    texts = [text for text, _ in make_docs(4, seed=12)]
    comp = predictor.predict(texts)
    assert comp == predictor.predict(texts) and predictor.labels == ["neg", "pos"]
    assert all(close(a, b) for a, b in zip(comp, predict(trained.clf, texts), strict=True))
    with pytest.raises(TypeError, match="expected a list of them"):
        predictor.predict("one text")


def test_fast_engine_takes_over_and_changes_nothing(model: Pretrained, monkeypatch: pytest.MonkeyPatch):
    texts = [text for text, _ in make_docs(30, seed=13)] + ["", "don't :-) <br /> SHOUTED", "\u00e9t\u00e9"]
    ref = Predictor(model).predict(texts, explain=True)
    monkeypatch.setattr(task, "FAST_FROM", 0)
    monkeypatch.setattr(task, "_reference", None)
    comp = Predictor(model).predict(texts, explain=True)
    assert all(close(a, b) and [w for w, _ in a.words or ()] == [w for w, _ in b.words or ()] for a, b in zip(comp, ref, strict=True))  # fmt: skip


def test_model_that_forgets_says_the_same_and_keeps_no_words(trained: Trained):
    texts = [f"{text} new{i}word" for i, (text, _) in enumerate(make_docs(5, seed=17))]
    predictors = [ulmpipe.from_pretrained(trained.clf, device="cpu", forget=forget) for forget in (True, False)]
    strings = task._reference(predictors[0].recipe).spacy.vocab.strings
    n_known, found = [], []
    for predictor in predictors:
        predictor.predict([texts[0]])
        before = len(strings)
        found.append(predictor.predict(texts, explain=True))
        n_known.append(len(strings) - before)
    assert n_known[0] == 0 and n_known[1] >= 4
    assert all(close(a, b) for a, b in zip(*found, strict=True))


def test_model_that_forgets_has_no_use_for_the_fast_engine_but_with_tables(
    trained: Trained, model: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    texts = [text for text, _ in make_docs(6, seed=18)]
    ref = Predictor(model).predict(texts)
    monkeypatch.setattr(task, "FAST_FROM", 0)
    monkeypatch.setattr("ulmpipe.text.engine.usable_engine", None)
    assert all(close(a, b) for a, b in zip(Predictor(model, forget=True).predict(texts), ref, strict=True))
    monkeypatch.undo()
    FastTokenizer(TokenizerRecipe.from_json(model.recipe)).dump(tmp_path / "t.arrow")
    predictor = Predictor(model, forget=True, tables=str(tmp_path / "t.arrow"))
    predictor.predict(texts)
    engines = {id(usable_engine(predictor.recipe, "fast", predictor.tables)[0])}
    monkeypatch.setattr("ulmpipe.text.engine.MAX_BYTES", 0)
    assert all(close(a, b) for a, b in zip(predictor.predict(texts), ref, strict=True))
    assert id(usable_engine(predictor.recipe, "fast", predictor.tables)[0]) not in engines


def test_int8_says_nearly_the_same(model: Pretrained):
    texts = [text for text, _ in make_docs(20, seed=14)]
    predictors = [Predictor(model, quantize=q) for q in (False, True)]
    ref, comp = (predictor.predict(texts) for predictor in predictors)
    assert [p.label for p in comp] == [p.label for p in ref]
    assert max(abs(a.probability - b.probability) for a, b in zip(comp, ref, strict=True)) < 0.05
    ids = torch.randint(2, len(model.vocab), (20, 30))
    logits, of_int8 = (classify(predictor.model, ids, torch.full((20,), 30)) for predictor in predictors)
    assert 0 < (of_int8 - logits).abs().max() < 0.1 * logits.abs().max()


def test_precision_that_cannot_be_is_refused(model: Pretrained):
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Predictor(model, precision="fp16")


# ---- why ------------------------------------------------------------------------------------------------------------


def test_word_that_decides_has_the_highest_score(model: Pretrained):
    """In bad reviews, which this model tells by their bad words; a review without one it takes for good."""
    texts = [text for text, label in make_docs(40, seed=16) if label == "neg"]
    comp = Predictor(model).predict(texts, explain=True)
    found = [max(p.words or (), key=lambda scored: scored[1])[0] for p in comp if p.label == "neg"]
    assert len(found) >= 18 and sum(word in BAD for word in found) >= len(found) - 1
    assert strongest(comp[0].words or [], n=1)[0][0] in BAD


def test_words_are_the_tokens_that_were_read(model: Pretrained):
    max_tokens = model.trained["max_tokens"]
    text = "dull plot " * max_tokens + "zzz superb"
    (comp,) = Predictor(model).predict([text], explain=True)
    words = [word for word, _ in comp.words or ()]
    assert len(words) == max_tokens and words[:3] == ["xxbos", "dull", "plot"] and "zzz" in words[-3:]
    (empty,) = Predictor(model).predict([""], explain=True)
    assert [word for word, _ in empty.words or ()] == model.tokenizer().tokenize("")


def test_explanation_changes_no_prediction(model: Pretrained):
    texts = [text for text, _ in make_docs(5, seed=15)]
    assert all(close(a, b) for a, b in zip(Predictor(model).predict(texts, explain=True), Predictor(model).predict(texts), strict=True))  # fmt: skip


def test_explanation_of_int8_is_refused(model: Pretrained):
    with pytest.raises(ConfigError, match="--explain needs gradients"):
        Predictor(model, quantize=True).predict(["x"], explain=True)


def test_command_explains(cli: Cli, trained: Trained):
    first, second, *rest = cli("predict", trained.clf, TEXT, "--explain").out.splitlines()
    assert first.startswith("neg\t") and second.startswith("\t") and "tedious +" in second and not rest
    found = json.loads(cli("predict", trained.clf, TEXT, "--explain", "--json").out)
    assert [word for word, _ in found["words"]] == Pretrained.from_pretrained(trained.clf).tokenizer().tokenize(TEXT)
    assert max(found["words"], key=lambda scored: scored[1])[0] in BAD
    assert "words" not in json.loads(cli("predict", trained.clf, TEXT, "--json").out)
    check_refused(cli("predict", trained.clf, "x", "--explain", "--quantize"), 2, "leave --quantize out")


# ---- a start that is short ------------------------------------------------------------------------------------------


def test_short_command_loads_no_numba_and_no_store(trained: Trained):
    code = """
import sys
from ulmpipe.cli import app
app(["predict", *sys.argv[1:]], standalone_mode=False)
print(sorted({"numba", "pyarrow", "datasets", "scipy", "matplotlib", "spacy.cli", "ulmpipe.text.engine"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code, str(trained.clf), TEXT], capture_output=True, text=True)
    assert done.stdout.startswith("neg\t") and done.stdout.splitlines()[-1] == "[]", done.stderr
