"""The label of a document, or its labels: from a cell of a table to the string that the flow carries, and to arrays.

Between tables.py, which finds the cell, and store.py, which keeps numbers. A document's label is a string; its labels,
where it may have several (`--multi-label`), are one string too, a JSON list of them. In arrays labels are numbers:

    one a document   (N,)    int64   the class; -1 where there is no label
    several          (N, C)  int8    1 where the document has the class, 0 where not; a row of -1 where nobody has said

No class at all (`[]`, an empty cell) is a document of which it is known that none fits; nothing at all (null) is one of
which nothing is known.
"""

import ast
import contextlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .pieces import Columns


def label_value(value: object) -> str | None:
    """A label as it is stored: a string. Nothing, an empty string and NaN are no label; 1.0 is 1.

    A column of integers with gaps comes as floats from pandas, hence the last two.
    """
    if value is None or value == "" or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_label(value: object, columns: Columns) -> str | None:
    """A cell as the flow carries it, None where there is no label; of several a JSON list.

    Raises `SourceError` for a list where one label was expected.
    """
    if columns.separator is not None:
        labels = split_labels(value, columns.separator)
        return None if labels is None else json.dumps(labels, ensure_ascii=False)
    if isinstance(value, list):
        raise SourceError(
            f"column {columns.label!r} holds a list ({str(value)[:40]}), expected one label a document: --multi-label "
            "takes several, --label-column another column"
        )
    return label_value(value)


def split_labels(value: object, separator: str) -> list[str] | None:
    """Several labels of one cell: a list, a list as text, of JSON or as pandas writes it, or text with a separator.

    Sorted, each once.

    >>> split_labels("b | a|", "|"), split_labels('["x"]', "|"), split_labels([3, 1.0], "|"), split_labels("['b', 'a']", "|")
    (['a', 'b'], ['x'], ['1', '3'], ['a', 'b'])
    >>> split_labels("", "|"), split_labels(None, "|")
    ([], None)
    """
    if value is None or value != value:
        return None
    if isinstance(value, str):
        value = value.split(separator) if (listed := _read_list(value)) is None else listed
    found = [label_value(each) for each in (value if isinstance(value, list) else [value])]
    return sorted({label.strip() for label in found if label is not None and label.strip()})


def _read_list(text: str) -> list[Any] | None:
    """The list that a text is, in JSON's notation or Python's; None where it is none. Nothing in it is run."""
    if not text.strip().startswith("[") or not text.rstrip().endswith("]"):
        return None
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text.strip())
    return None


def label_names(label: str | None, columns: Columns) -> list[str]:
    """The labels in what `read_label` gave."""
    if label is None:
        return []
    return [label] if columns.separator is None else json.loads(label)


def is_labelled(doc_labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each document has a label, or is known to have none of the classes: (N,). doc_labels: (N,) or (N, C)."""
    one_each = doc_labels if doc_labels.ndim == 1 else doc_labels.min(axis=1)
    return np.asarray(one_each >= 0)


def label_matrix(
    values: NDArray[np.int64], offsets: NDArray[np.int64], is_null: NDArray[np.bool_], n_classes: int
) -> NDArray[np.int8]:
    """Lists of classes as an array (N, C) int8: document i has `values[offsets[i]:offsets[i + 1]]`, and -1s if `is_null`.

    Raises `ValueError` for a class that there is not.
    """
    if len(values) and not 0 <= values.min() <= values.max() < n_classes:
        raise ValueError(f"a label is {values.min()} or {values.max()}, expected 0 to {n_classes - 1}")
    matrix = np.zeros((len(is_null), n_classes), np.int8)
    matrix[np.repeat(np.arange(len(is_null)), np.diff(offsets)), values] = 1
    matrix[is_null] = -1
    return matrix
