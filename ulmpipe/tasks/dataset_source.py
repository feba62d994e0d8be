"""A `datasets.Dataset` as a SOURCE: a folder of Arrow files that stands for it while a task runs.

    Dataset in mapped files, as they lie  -> links to those files
    anything else (rows picked, in memory) -> its text and label columns, written to a temporary file

Before `plan_source`, from Python alone. Nothing is imported of `datasets` unless a task is given something else than a path.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from ..config import ReadConfig
from ..errors import SourceError
from ..journal import DATASET_PREFIX, written_down

if TYPE_CHECKING:
    from datasets import Dataset

Source: TypeAlias = "str | Path | Dataset"
Given = ParamSpec("Given")
Result = TypeVar("Result")

FOLDER = "dataset"  # the name by which outputs go, where nothing else is said
ROWS_A_BATCH = 1000
SAME_ROWS = ("replace_schema_metadata",)  # what may have been done to a mapped table that changes nothing of its rows


def takes_datasets(task: Callable[Given, Result]) -> Callable[Given, Result]:
    """Let the argument `source` of a task be a `datasets.Dataset` too."""
    signature = inspect.signature(task)

    @wraps(task)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        given = signature.bind(*args, **kwargs)
        columns = [str(kwargs.get(name, getattr(ReadConfig, name))) for name in ("text_column", "label_column")]
        with as_path(given.arguments["source"], columns) as given.arguments["source"]:
            try:
                return task(*given.args, **given.kwargs)
            except SourceError as err:
                raise SourceError(written_down(str(err))) from err

    return run


@contextmanager
def as_path(source: Any, columns: list[str]) -> Iterator[str | Path]:
    """A path or name as it is; of a `Dataset` a folder that holds its rows, with the `columns` that it has of these.

    Raises `SourceError` for anything else.
    """
    if isinstance(source, str | Path):
        yield source
        return
    dataset = _checked(source)
    wanted = [name for name in columns if name in dataset.column_names] or dataset.column_names
    with TemporaryDirectory(prefix=f"{DATASET_PREFIX}{dataset._fingerprint}-") as scratch:
        folder = Path(scratch) / FOLDER
        folder.mkdir()
        files = mapped_files(dataset, wanted)
        for number, file in enumerate(files):
            (folder / f"{number:05d}.arrow").symlink_to(file)
        if not files:
            _write(dataset.select_columns(wanted), folder / "00000.arrow")
        yield folder


def _checked(source: Any) -> "Dataset":
    import datasets

    if isinstance(source, datasets.DatasetDict):
        raise SourceError(f"the source is a DatasetDict of {', '.join(map(repr, source))}, expected one of these: name it, dataset[{next(iter(source), 'train')!r}]")  # fmt: skip
    if not isinstance(source, datasets.Dataset):
        raise SourceError(f"the source is a {type(source).__name__}, expected a path, a name or a datasets.Dataset")
    if source.format["type"] == "custom":
        raise SourceError("the dataset has a transform of its own, which is not looked at here: apply it with map first")  # fmt: skip
    if not len(source):
        raise SourceError("the dataset has no rows")
    return source


def mapped_files(dataset: "Dataset", columns: list[str]) -> list[str]:
    """The Arrow files that hold these columns of a dataset, row by row as it has them; [] where none do.

    A dataset may show rows that no file holds: picked by an index mapping, a slice, with columns added or renamed.
    """
    from datasets import Features
    from datasets.table import ConcatenationTable, MemoryMappedTable

    from ..text.pieces import Piece
    from ..text.tables import table_schema

    if dataset._indices is not None:  # there is no public name for it
        return []
    table = dataset.data
    rows = table.blocks if isinstance(table, ConcatenationTable) else [[table]]
    files: list[str] = []
    for blocks in rows:
        (block, *beside) = blocks
        if beside or not isinstance(block, MemoryMappedTable) or any(name not in SAME_ROWS for name, *_ in block.replays):  # fmt: skip
            return []
        found = Features.from_arrow_schema(table_schema(Piece(block.path, "", "arrow", 0)))
        if any(found.get(name) != dataset.features[name] for name in columns):  # other names of its classes
            return []
        files.append(block.path)
    return files


def _write(dataset: "Dataset", path: Path) -> None:
    """Write a dataset's rows as an Arrow stream, with its features, as `datasets` itself would."""
    import pyarrow as pa

    schema = dataset.features.arrow_schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for rows in dataset.with_format("arrow").iter(ROWS_A_BATCH):
            writer.write_table(rows.cast(schema))  # pyright: ignore[reportAttributeAccessIssue]
