"""Requests wait their turn, go together where they may, and have a place or none."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from fastapi import HTTPException

from ulmpipe.server.messages import Question
from ulmpipe.server.worker import JOINED_CHARACTERS, JOINED_TEXTS, Answer, Worker


class Model:
    """Says of a text its length; keeps what it was called with. The first call waits until `go` is set."""

    def __init__(self):
        self.calls: list[list[str]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()

    def predict(self, texts: list[str], explain: bool) -> list[Answer]:
        assert self.go.wait(10)
        self.calls.append(texts)
        self.threads.add(threading.get_ident())
        if "bad" in texts:
            raise ZeroDivisionError
        return [{"n": len(text), "explain": explain} for text in texts]


def run(
    model: Model, questions: Sequence[Question], *, joins: bool = True, gone: Sequence[int] = ()
) -> list[list[Answer] | Exception]:
    """Ask all at once: the first is predicted, the others wait for it."""

    async def ask_all() -> Any:
        worker = Worker(model.predict, joins=joins, max_waiting=99)

        def has_left(i: int) -> Callable[[], Coroutine[Any, Any, bool]]:
            async def answer() -> bool:
                return i in gone

            return answer

        asked = [asyncio.create_task(worker.ask(question, has_left(i))) for i, question in enumerate(questions)]
        while len(worker.waiting) < len(asked) - 1:
            await asyncio.sleep(0)
        model.go.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask_all())


def one(text: str, explain: bool = False) -> Question:
    return Question([text], False, explain)


def test_those_that_wait_go_together_and_each_gets_its_own():
    model = Model()
    found = run(model, [one("a"), one("bb"), Question(["ccc", "dddd"], True, False), one("eeeee")])
    assert [[answer["n"] for answer in answers] for answers in found if isinstance(answers, list)] == [[1], [2], [3, 4], [5]]  # fmt: skip
    assert model.calls in ([["a"], ["bb", "ccc", "dddd", "eeeee"]], [["a", "bb", "ccc", "dddd", "eeeee"]])
    assert model.threads and threading.get_ident() not in model.threads and len(model.threads) == 1


def first_alone(model: Model, questions: Sequence[Question], **options: Any) -> list[list[str]]:
    """The calls of a model, that behind a first question of its own which nothing may join."""
    run(model, [one("first", explain=True), *questions], **options)
    assert model.calls[0] == ["first"]
    return model.calls[1:]


def test_nothing_is_joined_where_it_would_matter():
    assert first_alone(Model(), [one("a"), one("b")], joins=False) == [["a"], ["b"]]


def test_explained_ones_go_alone_and_the_order_is_kept():
    questions = [one("a"), one("b"), one("c", explain=True), one("d", explain=True), one("e"), one("f")]
    assert first_alone(Model(), questions) == [["a", "b"], ["c"], ["d"], ["e", "f"]]


def test_no_more_go_together_than_may():
    half = "x" * (JOINED_CHARACTERS // 2)
    assert first_alone(Model(), [one(half), one(half), one("a"), one("b")]) == [[half, half], ["a", "b"]]
    sizes = [len(texts) for texts in first_alone(Model(), [one("a")] * (JOINED_TEXTS + 2))]
    assert sizes == [JOINED_TEXTS, 2]
    large = Question(["a"] * (JOINED_TEXTS + 9), True, False)
    assert [len(texts) for texts in first_alone(Model(), [one("a"), large, one("b")])] == [1, JOINED_TEXTS + 9, 1]


def test_client_that_has_left_is_passed_over():
    model = Model()
    found = run(model, [one("first", explain=True), one("a"), one("b"), one("c")], gone=[1, 3])
    assert model.calls == [["first"], ["b"]] and isinstance(found[1], HTTPException)
    assert run(Model(), [one("first", explain=True), one("a")], gone=[1])[0]


def test_failure_reaches_those_it_is_of_and_the_next_are_answered():
    found = run(Model(), [one("first", explain=True), one("bad"), one("b", explain=True)])
    assert [type(answers) for answers in found] == [list, ZeroDivisionError, list]


@pytest.mark.parametrize("bad", [False, True])
def test_request_that_is_cancelled_while_it_is_predicted_changes_no_other(bad: bool):
    async def never() -> bool:
        return False

    async def ask_all() -> Any:
        loop, model = asyncio.get_running_loop(), Model()
        worker = Worker(model.predict, joins=True, max_waiting=9)
        questions = [one("first"), one("a"), one("bad" if bad else "bb"), one("ccc")]
        asked = [asyncio.create_task(worker.ask(question, never)) for question in questions]
        predict, cancelled = worker.predict, threading.Event()

        def cancel() -> None:
            asked[1].cancel()
            loop.call_soon(cancelled.set)

        def cancel_one_and_predict(texts: list[str], explain: bool) -> list[Answer]:
            if "a" in texts:
                loop.call_soon_threadsafe(cancel)
                assert cancelled.wait(10)
            return predict(texts, explain)

        worker.predict = cancel_one_and_predict
        model.go.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    *_, left, second, third = asyncio.run(ask_all())
    assert isinstance(left, asyncio.CancelledError)
    if bad:
        assert isinstance(second, ZeroDivisionError) and third[0]["n"] == 3
    else:
        assert (second[0]["n"], third[0]["n"]) == (2, 3)


def test_places_are_bounded_and_come_back():
    worker = Worker(Model().predict, joins=True, max_waiting=2)
    with worker.place(), pytest.raises(ZeroDivisionError), worker.place():
        with pytest.raises(HTTPException) as caught, worker.place():
            pass
        assert caught.value.status_code == 503 and caught.value.detail == "2 requests are waiting: try again in a moment"  # fmt: skip
        raise ZeroDivisionError
    assert worker.n_places == 0


def test_one_that_fails_fails_alone():
    """What else was predicted with it is predicted again, by itself; then requests go together as before."""
    model = Model()
    found = run(model, [one("first", explain=True), one("a"), one("bad"), one("ccc")])
    assert [type(answers) for answers in found] == [list, list, ZeroDivisionError, list]
    assert model.calls == [["first"], ["a", "bad", "ccc"], ["a"], ["bad"], ["ccc"]]


def test_a_connection_that_can_not_be_asked_is_one_that_has_left():
    async def broken() -> bool:
        raise OSError

    async def ask_all() -> Any:
        model = Model()
        model.go.set()
        worker = Worker(model.predict, joins=True, max_waiting=9)
        asked = [asyncio.create_task(worker.ask(one(text), broken)) for text in ("a", "b")]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(found) for found in asyncio.run(ask_all())] == [HTTPException, HTTPException]
