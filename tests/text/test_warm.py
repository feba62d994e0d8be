"""What an engine remembers goes through a file and comes back; a damaged or foreign file is refused before it is used."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from fuzz import texts

from ulmpipe.errors import StoreError
from ulmpipe.text.engine import FastTokenizer
from ulmpipe.text.tokenizer import Tokenizer, TokenizerRecipe
from ulmpipe.text.warm import COLUMNS, merge, read

RULES = ["can't", "a.m.", ":)", "New"]


def entries(engine: FastTokenizer) -> set[tuple[object, ...]]:
    memo, links = engine.chunks.memo, engine.chunks.links
    return {
        (memo.kind(e), memo.key(e), memo.flags(e), *links[e].tolist(), *(engine.itos[i] for i in memo.ids(e)))
        for e in range(len(memo))
    }


@pytest.fixture(scope="module")
def learned() -> FastTokenizer:
    engine = FastTokenizer()
    engine.encode_texts(texts(300, RULES, "warm"))
    return engine


def test_dump_and_load(learned: FastTokenizer, tmp_path: Path):
    learned.dump(tmp_path / "t.arrow")
    again = FastTokenizer().load(tmp_path / "t.arrow")
    assert entries(again) == entries(learned) and len(again.chunks.memo) > 500
    docs = texts(300, RULES, "warm") + texts(100, RULES, "new")
    assert [again.tokenize(doc) for doc in docs] == [Tokenizer().tokenize(doc) for doc in docs]


def test_parts_add_up_whatever_their_order(learned: FastTokenizer, tmp_path: Path):
    other = FastTokenizer()
    other.encode_texts(texts(200, RULES, "other"))
    learned.dump(tmp_path / "a.arrow")
    other.dump(tmp_path / "b.arrow")
    parts = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    n = merge(parts, learned.recipe, tmp_path / "ab.arrow")
    assert merge(parts[::-1], learned.recipe, tmp_path / "ba.arrow") == n == len(entries(learned) | entries(other))
    loaded = [FastTokenizer().load(tmp_path / name) for name in ("ab.arrow", "ba.arrow")]
    assert entries(loaded[0]) == entries(loaded[1]) == entries(learned) | entries(other)
    assert merge(parts, learned.recipe, tmp_path / "ab.arrow") == n  # once more adds nothing


def test_only_what_is_new_is_dumped(learned: FastTokenizer, tmp_path: Path):
    engine = FastTokenizer()
    engine.encode_texts(["some words"])
    n = engine.n_known
    engine.encode_texts(["some other words"])
    engine.dump(tmp_path / "new.arrow", first=n)
    assert read(tmp_path / "new.arrow", engine.recipe)[0]["key"].to_pylist() == [b"other"]


def test_file_of_another_recipe_is_refused(learned: FastTokenizer, tmp_path: Path):
    learned.dump(tmp_path / "t.arrow")
    with pytest.raises(StoreError, match="other rules"):
        FastTokenizer(TokenizerRecipe("en", "course")).load(tmp_path / "t.arrow")


@pytest.mark.parametrize("n", [0, 10, 1000, -1000, -1])
def test_truncated_file_is_refused(learned: FastTokenizer, tmp_path: Path, n: int):
    learned.dump(tmp_path / "t.arrow")
    data = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(data[:n])
    if n == -1:
        return  # the padding at the end: nothing is lost
    with pytest.raises(StoreError, match="damaged"):
        FastTokenizer().load(tmp_path / "t.arrow")


@pytest.mark.parametrize(
    ("column", "value"), [("kind", 10), ("flags", 2), ("flags", 1 << 20), ("begins", 1 << 20), ("begins", -1), ("ends", 1 << 20)]
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(learned: FastTokenizer, tmp_path: Path, column: str, value: int):
    learned.dump(tmp_path / "t.arrow")
    with pa.OSFile(str(tmp_path / "t.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    place = COLUMNS.index(column)
    values = table[column].to_pylist()
    values[3] = value
    spoiled = table.set_column(place, column, pa.array(values, table[column].type))
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, spoiled.schema) as stream:
        stream.write_table(spoiled)
    with pytest.raises(StoreError, match="out of their bounds"):
        FastTokenizer().load(tmp_path / "t.arrow")


def test_warm_start_needs_no_spacy(tmp_path: Path):
    engine = FastTokenizer()
    ref = engine.tokenize("We saw it (twice)!!!! and / or")
    engine.dump(tmp_path / "t.arrow")
    code = f"""
import sys
from pathlib import Path
from ulmpipe.text.engine import FastTokenizer
print(FastTokenizer().load(Path({str(tmp_path / "t.arrow")!r})).tokenize("We saw it (twice)!!!! and / or"))
print('spacy' in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(ref), "False"]
