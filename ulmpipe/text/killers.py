"""Find the documents that kill or stop their worker, and do without them.

    a unit that was lost -> probe_unit, one document after the other -> the last one it marked is left out -> again
                         -> tokenize_unit without those

Between workers.py, which says that a unit is lost, and tasks/units.py. What a regular expression of a user, a defect or the
memory of the machine does to a process can't be caught in it, only seen from outside.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import UlmpipeError
from .documents import LeftOut, batched, read_but
from .pieces import Document
from .shards import Job, UnitRecord, encode, get_engine, tokenize_unit
from .source import Unit
from .workers import Lost, mark, run_calls

MAX_LEFT_OUT = 10  # documents of a unit: with more it is not the documents


def probe_unit(index: int, unit: Unit, job: Job, left_out: Mapping[int, Sequence[LeftOut]]) -> None:
    """Tokenize a unit's documents one by one, and forget them; what it is at is marked before: (piece, document, is read)."""
    engine, _ = get_engine(job)
    for piece_number, piece in enumerate(unit):
        mark(job.stage, index, (piece_number, 0, False))
        documents = read_but(piece, job.columns, left_out.get(piece_number, ()), job.read)
        for number, found in enumerate(documents):
            if isinstance(found, Document):
                mark(job.stage, index, (piece_number, number, True))
                for texts in batched([found]):
                    encode(engine, texts, job)  # pyright: ignore[reportArgumentType]
            mark(job.stage, index, (piece_number, number + 1, False))


def without_killers(
    index: int, unit: Unit, job: Job, *, timeout_s: float | None, name_of: Callable[[int], str]
) -> UnitRecord:
    """The record of a unit that was lost, without the documents that kill or stop its worker. In the parent.

    Raises `UlmpipeError` where it is no document's doing.
    """
    left_out: dict[int, list[LeftOut]] = {}

    def call(task: Callable[..., UnitRecord | None]) -> UnitRecord | Lost | None:
        calls = [(index, unit, job, left_out)]
        (found,) = run_calls(task, calls, workers=1, marks=Path(job.stage), timeout_s=timeout_s, name_of=name_of, apart=True)  # fmt: skip
        return found

    def no_document(lost: Lost) -> UlmpipeError:
        mend = (
            "a larger --unit-timeout may be enough" if lost.hung else "free some memory, or see what ends the processes"
        )
        return UlmpipeError(f"{name_of(index)}: {lost.reason}, and it is no single document's doing: {mend}")

    while isinstance(lost := call(probe_unit), Lost):
        if lost.at is None or sum(map(len, left_out.values())) == MAX_LEFT_OUT:
            raise no_document(lost)
        piece_number, number, is_read = lost.at
        left_out.setdefault(piece_number, []).append(LeftOut(number, is_read, lost.reason))
    found = call(tokenize_unit)
    if not isinstance(found, UnitRecord):
        raise no_document(found or Lost(index, "it has no result", None))
    found.n_left_out = sum(map(len, left_out.values()))
    return found
