"""What `datasets` holds is a SOURCE: its saved folders, and its objects, whichever rows they show. The tokens are those of a CSV."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from commands import Cli, check_refused
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from learnable import TINY_CLASSIFIER, TINY_LM, Trained, make_docs, write_csv

import ulmpipe
from ulmpipe.errors import SourceError
from ulmpipe.journal import newest
from ulmpipe.reports.facts import Facts
from ulmpipe.tasks.dataset_source import as_path, mapped_files
from ulmpipe.tasks.tokenize import dry_run
from ulmpipe.text.store import TokenStore

FEATURES = Features({"n": Value("int64"), "text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
DOCS = make_docs(40, seed=3)


@pytest.fixture(autouse=True)
def _no_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def in_memory(docs: list[tuple[str, str]] = DOCS) -> Dataset:
    rows = [{"n": n, "text": text, "label": label} for n, (text, label) in enumerate(docs)]
    return Dataset.from_list(rows, features=FEATURES)


def tokens_of(folder: Path) -> tuple[list[str], list[str], list[list[int]], list[int]]:
    store = TokenStore(folder)
    return store.vocab.itos, store.labels, [store.doc(i).tolist() for i in range(len(store))], store.doc_labels.tolist()


def check_same(source: Any, docs: list[tuple[str, str]], folder: Path, **options: Any) -> None:
    """The tokens of a SOURCE are those of a CSV with these rows."""
    ulmpipe.tokenize(write_csv(folder / "ref.csv", docs), folder / "ref.tok", workers=1)
    ulmpipe.tokenize(source, folder / "comp.tok", workers=1, **options)
    assert tokens_of(folder / "comp.tok") == tokens_of(folder / "ref.tok")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    in_memory().save_to_disk(tmp_path / "saved", num_shards=3)
    return tmp_path / "saved"


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_saved_dataset_is_a_source(saved: Path, tmp_path: Path):
    check_same(saved, DOCS, tmp_path)
    (comp,) = TokenStore(tmp_path / "comp.tok").to_dataset().select([20])["source"]
    assert comp == "data-00001-of-00003.arrow#6"  # 14 rows are in the first


def test_a_split_of_a_saved_dict_is_a_source(cli: Cli, tmp_path: Path):
    DatasetDict({"train": in_memory(), "test": in_memory(DOCS[:4])}).save_to_disk(tmp_path / "both")
    check_same(tmp_path / "both/train", DOCS, tmp_path)
    ended = cli("tokenize", tmp_path / "both", "-o", tmp_path / "no.tok", "-q")
    check_refused(ended, 1, f"both holds the splits of a DatasetDict: name one of them, {tmp_path / 'both/train'}, {tmp_path / 'both/test'}")  # fmt: skip


def test_every_command_takes_a_saved_dataset(cli: Cli, trained: Trained, saved: Path):
    assert json.loads(cli("evaluate", trained.clf, saved, "--workers", "1", "--json").out)["n"] == len(DOCS)
    assert json.loads(cli("doctor", trained.clf, saved, "--workers", "1", "--json").out)["labels"].keys() == {"neg", "pos"}  # fmt: skip


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/secret.arrow", "a/b.arrow", "state.json", "", 3, None])
def test_names_that_lead_out_of_the_folder_are_not_followed(saved: Path, name: Any):
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(SourceError, match="which is no Arrow file in its folder: it was altered"):
        ulmpipe.tokenize(saved, saved / "out")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("[" * 100_000, "state.json is damaged"),
        ("[]", "state.json lacks _data_files"),
        ('{"_data_files": 3}', "state.json lacks _data_files"),
        ('{"_data_files": []}', "is a dataset of no rows"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow does not exist"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}', "flatten_indices"),
    ],
    ids=range(6),
)
def test_a_folder_that_is_not_whole_is_one_line(cli: Cli, saved: Path, state: str, reason: str):
    (saved / "state.json").write_text(state)
    check_refused(cli("tokenize", saved, "-o", saved / "out", "-q"), 1, reason)


def test_a_saved_dataset_without_the_column_is_refused(cli: Cli, saved: Path):
    ended = cli("tokenize", saved, "-o", saved / "out", "-q", "--text-column", "body")
    check_refused(ended, 1, "it has 'n', 'text', 'label': name one with --text-column")


# ---- objects --------------------------------------------------------------------------------------------------------

Change = Callable[[Dataset], Dataset]
# What can be done to a dataset of the files of `saved`, the rows it shows then, and whether they are as those files have them.
SHOWN: dict[str, tuple[Change, Callable[[list[Any]], list[Any]], bool]] = {
    "as it is": (lambda d: d, lambda docs: docs, True),
    "torch format": (lambda d: d.with_format("torch", columns=["label"]), lambda docs: docs, True),
    "twice": (lambda d: datasets.concatenate_datasets([d, d]), lambda docs: docs * 2, True),
    "slice": (lambda d: d.select(range(3, 17)), lambda docs: docs[3:17], False),
    "picked rows": (lambda d: d.select([30, 2, 2, 9]), lambda docs: [docs[i] for i in (30, 2, 2, 9)], False),
    "reversed": (lambda d: d.select(range(39, -1, -1)), lambda docs: docs[::-1], False),
    "filtered": (lambda d: d.filter(lambda row: row["n"] % 3 == 0), lambda docs: docs[::3], False),
    "other text": (
        lambda d: d.remove_columns("text").add_column("text", ["x y"] * len(d)),
        lambda docs: [("x y", label) for _, label in docs],
        False,
    ),  # fmt: skip
    "no label": (lambda d: d.remove_columns("label"), lambda docs: [(text, "") for text, _ in docs], False),
    "halves swapped": (
        lambda d: datasets.concatenate_datasets([d.select(range(20, 40)), d.select(range(20))]),
        lambda docs: docs[20:] + docs[:20],
        False,
    ),  # fmt: skip
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_rows_of_a_dataset_are_a_source(name: str, saved: Path, tmp_path: Path):
    change, rows, as_mapped = SHOWN[name]
    dataset = change(Dataset.load_from_disk(saved))
    wanted = [column for column in ("text", "label") if column in dataset.column_names]
    assert bool(mapped_files(dataset, wanted)) is as_mapped
    check_same(dataset, rows(DOCS), tmp_path)


def test_renamed_columns_and_classes_are_those_of_the_object(saved: Path, tmp_path: Path):
    named = Dataset.load_from_disk(saved).rename_columns({"text": "body", "label": "stars"})
    check_same(named, DOCS, tmp_path, text_column="body", label_column="stars")
    other = Dataset.load_from_disk(saved).cast_column("label", ClassLabel(names=["bad", "good"]))
    ulmpipe.tokenize(other, tmp_path / "other.tok", workers=1)
    assert TokenStore(tmp_path / "other.tok").labels == ["bad", "good"]


def test_a_dataset_in_memory_is_a_source(tmp_path: Path):
    check_same(in_memory(), DOCS, tmp_path)


def test_a_dataset_that_was_loaded_or_mapped_is_a_source(tmp_path: Path):
    path = str(write_csv(tmp_path / "my.csv", DOCS))
    loaded: Any = datasets.load_dataset("csv", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(mapped_files(loaded, ["text", "label"])) == 1
    check_same(loaded, DOCS, tmp_path)
    mapped = loaded.map(lambda row: {"text": row["text"].upper()})
    assert len(mapped_files(mapped, ["text", "label"])) == 1
    shutil.rmtree(tmp_path / "comp.tok")
    check_same(mapped, [(text.upper(), label) for text, label in DOCS], tmp_path)


def test_the_same_dataset_is_not_tokenized_again(saved: Path, tmp_path: Path):
    dataset = Dataset.load_from_disk(saved)
    for change, reused in ((lambda d: d, False), (lambda d: d, True), (lambda d: d.select(range(9)), False), (lambda d: d.select(range(9)), True)):  # fmt: skip
        assert ulmpipe.tokenize(change(dataset), tmp_path / "out", workers=1).reused is reused


@pytest.mark.usefixtures("undrawn")
def test_a_dataset_is_trained_on(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the CSV of the same rows is: to the same numbers."""
    monkeypatch.chdir(tmp_path)
    dataset = in_memory(make_docs(200))
    assert ulmpipe.pretrain(dataset, "lm", **TINY_LM).valid_loss == trained.pretrained.valid_loss
    comp = ulmpipe.finetune(dataset, from_model=str(trained.lm), **TINY_CLASSIFIER)
    assert (comp.valid_loss, comp.labels, comp.out) == (trained.finetuned.valid_loss, ["neg", "pos"], "models/dataset")
    assert ulmpipe.evaluate("models/dataset", in_memory(make_docs(60, seed=1)), workers=1).n == 60
    assert ulmpipe.doctor("models/dataset", dataset, workers=1).n_quarantined == 0
    assert dry_run(dataset, "out").n_files == 1
    name = f"datasets.Dataset({dataset._fingerprint})"  # not the temporary folder
    facts = Facts.load(Path(comp.out))
    assert facts.source == name and facts.command.startswith("ulmpipe.finetune(dataset, out='models/dataset', ")
    assert facts.command.endswith(f")  # in Python, with {name}")
    assert json.loads(Path(comp.out, "config.json").read_text())["trained"]["source"] == name
    assert newest(Path("models/journal.db"), 1)[0]["source"] == name


def test_what_is_no_dataset_is_refused(saved: Path):
    dataset = Dataset.load_from_disk(saved)
    for wrong, reason in (
        (DatasetDict({"train": dataset, "test": dataset}), r"DatasetDict of 'train', 'test', expected one of these: name it, dataset\['train'\]"),
        (dataset.to_iterable_dataset(), "the source is a IterableDataset, expected a path, a name or a datasets.Dataset"),
        (["a text"], "the source is a list, expected a path"),
        (None, "the source is a NoneType, expected a path"),
        (dataset.with_transform(lambda rows: rows), "a transform of its own.*apply it with map"),
        (dataset.select([]), "the dataset has no rows"),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=reason):
            ulmpipe.tokenize(wrong)
    with pytest.raises(
        SourceError,
        match=r"^datasets\.Dataset\(\w+\) has no column 'nosuch', it has 'n', 'text', 'label': name one with --text-column",
    ):
        ulmpipe.tokenize(dataset, text_column="nosuch", label_column="nosuch")


def test_nothing_is_left_of_it(saved: Path):
    with as_path(Dataset.load_from_disk(saved).select([3, 1]), ["text", "label"]) as path:
        assert [file.name for file in Path(path).iterdir()] == ["00000.arrow"]
    assert not Path(path).exists()
    with as_path("imdb", ["text"]) as path:
        assert path == "imdb"
