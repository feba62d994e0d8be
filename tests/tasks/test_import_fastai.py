"""fastai's files become a model folder that answers as fastai's model does, and goes on to `finetune`."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from commands import Cli, check_refused
from fastai_states import ITOS, KINDS, SPECIALS, make_state, ref_logits, write_pair
from learnable import TINY_LM, make_docs, write_csv

from ulmpipe.errors import ConfigError, SourceError, UlmpipeError, VocabMismatchError
from ulmpipe.tasks.evaluate import evaluate
from ulmpipe.tasks.finetune import finetune
from ulmpipe.tasks.import_fastai import import_fastai, reachable_names, rules_of
from ulmpipe.tasks.model_folder import Pretrained, newest_language_model
from ulmpipe.tasks.verify import verify


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zipped", [True, False])
def test_model_folder_answers_as_the_file(tmp_path: Path, kind: str, zipped: bool):
    state = make_state(kind)
    weights, itos = write_pair(tmp_path, state, ITOS, _use_new_zipfile_serialization=zipped)
    result = import_fastai(weights, itos, tmp_path / "lm")
    loaded = Pretrained.from_pretrained(tmp_path / "lm")
    ids = torch.randint(0, len(ITOS), (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, ref_logits(state, ids), rtol=0, atol=1e-5)
    assert (result.vocab_size, result.n_layers, result.has_decoder) == (len(ITOS), 3, kind != "encoder")
    assert loaded.vocab.itos[: len(ITOS) - 2] == ITOS[:-2] and result.n_unreachable == 2
    assert loaded.trained["has_decoder"] is result.has_decoder
    assert verify(tmp_path / "lm").kind == "language model"


def test_sizes_are_read_from_the_tensors(tmp_path: Path):
    pair = write_pair(tmp_path, make_state("course", emb=7, hidden=7, n_layers=2), ITOS)
    result = import_fastai(*pair, tmp_path / "lm")
    assert (result.emb_size, result.hidden_size, result.n_layers) == (7, 7, 2)


@pytest.mark.parametrize("rules", SPECIALS)
def test_rules_are_those_of_the_special_tokens(tmp_path: Path, rules: str):
    itos = [*SPECIALS[rules], "the", "film"]
    assert rules_of(itos) == rules
    pair = write_pair(tmp_path, make_state("fastai2", vocab_size=len(itos)), itos)
    result = import_fastai(*pair, tmp_path / "lm")
    assert (result.rules, result.added, Pretrained.from_pretrained(tmp_path / "lm").recipe["rules"]) == (rules, [], rules)  # fmt: skip
    assert import_fastai(*pair, tmp_path / "lm", rules="course", lang="xx").rules == "course"
    assert Pretrained.from_pretrained(tmp_path / "lm").recipe["lang"] == "xx"


def test_special_tokens_that_are_not_there_are_added_behind(tmp_path: Path):
    """Early vocabularies of fastai 1 had no xxeos; without it no text could be numbered."""
    itos = [token for token in ITOS if token != "xxeos"]
    state = make_state("fastai1", vocab_size=len(itos))
    result = import_fastai(*write_pair(tmp_path, state, itos), tmp_path / "lm")
    loaded = Pretrained.from_pretrained(tmp_path / "lm")
    assert result.added == ["xxeos"] and loaded.vocab.itos[-1] == "xxeos" and result.vocab_size == len(itos) + 1
    ids = torch.arange(len(itos))[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits[..., :-1], ref_logits(state, ids), rtol=0, atol=1e-5)


def test_of_equal_words_the_last_is_found_as_in_fastai(tmp_path: Path):
    itos = [*SPECIALS["fastai1"], "the", "film", "the", "xxfake", "xxfake9"]
    pair = write_pair(tmp_path, make_state("fastai1", vocab_size=len(itos)), itos)
    assert import_fastai(*pair, tmp_path / "lm").n_unreachable == 2
    vocab = Pretrained.from_pretrained(tmp_path / "lm").vocab
    assert vocab.encode(["the", "film", "xxfake9", "xxfake"]) == [11, 10, 13, 0]
    assert reachable_names(itos)[9] == "xxfake9_"


def test_backward_is_kept_and_not_taken_for_a_start(tmp_path: Path):
    for stem, given, expected in (("lstm_bwd", None, True), ("lstm_fwd", None, False), ("lstm_bwd", False, False), ("a", True, True)):  # fmt: skip
        pair = write_pair(tmp_path, make_state("fastai1"), ITOS, stem)
        result = import_fastai(*pair, tmp_path / "models" / "lm", backward=given)
        assert result.backward is expected
        assert Pretrained.from_pretrained(tmp_path / "models" / "lm").trained["backward"] is expected
    assert newest_language_model(tmp_path / "models") is None
    import_fastai(*pair, tmp_path / "models" / "forward")
    assert newest_language_model(tmp_path / "models") == tmp_path / "models" / "forward"


def test_imported_model_is_evaluated_and_tuned(tmp_path: Path):
    """Also an encoder: it is a start like any other."""
    source = write_csv(tmp_path / "a.csv", make_docs(60))
    pair = write_pair(tmp_path, make_state("encoder"), ITOS)
    import_fastai(*pair, tmp_path / "wt103")
    assert evaluate(tmp_path / "wt103", source, workers=1).n > 500
    options = {**TINY_LM, "max_steps": 2, "epochs": 0, "rules": "fastai1", "engine": "spacy"}
    result = finetune(source, tmp_path / "out", from_model=str(tmp_path / "wt103"), stage="lm", **options)
    assert result.share_mapped and 0 < result.share_mapped < 1
    assert Pretrained.from_pretrained(result.out).settings["hidden_size"] == 10


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_vocabulary_of_other_weights_is_refused(tmp_path: Path):
    pair = write_pair(tmp_path, make_state("fastai1"), [*ITOS, "more"])
    with pytest.raises(VocabMismatchError, match="has 16 tokens, .*lstm_fwd.pth has 15 rows: give the vocabulary"):
        import_fastai(*pair, tmp_path / "lm")
    assert not (tmp_path / "lm").exists()


@pytest.mark.parametrize(
    ("itos", "reason"),
    [
        (["_unk_", "_pad_", *ITOS[2:]], r"is of fastai 0.7 \(_unk_\)"),
        (["the", "film"], "lacks xxunk, xxpad, xxbos, expected a vocabulary"),
        ([*ITOS, "xxpad"], "has xxpad twice"),
    ],
)
def test_vocabulary_that_is_not_fastais_is_refused(tmp_path: Path, itos: list[str], reason: str):
    with pytest.raises(SourceError, match=reason):
        import_fastai(*write_pair(tmp_path, make_state("fastai1"), itos), tmp_path / "lm")


def test_unknown_language_and_rules_are_refused(tmp_path: Path):
    pair = write_pair(tmp_path, make_state("fastai1"), ITOS)
    with pytest.raises(ConfigError, match="--lang english: spaCy can't load it"):
        import_fastai(*pair, tmp_path / "lm", lang="english")
    with pytest.raises(ConfigError, match="--rules is 'fastai3', expected one of auto"):
        import_fastai(*pair, tmp_path / "lm", rules="fastai3")


def test_folder_of_something_else_is_not_written_into(tmp_path: Path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "thesis.tex").write_text("")
    with pytest.raises(UlmpipeError, match="holds something else"):
        import_fastai(*write_pair(tmp_path, make_state("fastai1"), ITOS), tmp_path / "lm")


# ---- the command line -----------------------------------------------------------------------------------------------


def test_command_names_what_to_do_next(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path, {"model": make_state("fastai1"), "opt": {}}, ITOS)
    ended = cli("import-fastai", "lstm_fwd.pth", "itos.pkl")
    assert ended.code == 0 and "15 words, 3 layers of 10, embedding 6, --rules fastai1" in ended.out
    assert "ulmpipe finetune SOURCE --from models/lstm_fwd-lm --rules fastai1" in ended.out
    found = json.loads(cli("import-fastai", "lstm_fwd.pth", "itos.pkl", "-o", "b", "--backward", "--json").out)
    assert found["backward"] is True and found["out"] == "b" and found["vocab_size"] == 15


def test_command_refuses_hostile_files_in_one_line(cli: Cli, tmp_path: Path):
    weights, itos = write_pair(tmp_path, make_state("fastai1"), ITOS)
    itos.write_bytes(pickle.dumps({"a": print}))
    check_refused(cli("import-fastai", weights, itos, "-o", tmp_path / "lm"), 1, "holds something else")
    check_refused(cli("import-fastai", itos, itos, "-o", tmp_path / "lm"), 1, "expected a list of strings")
    assert not (tmp_path / "lm").exists()
