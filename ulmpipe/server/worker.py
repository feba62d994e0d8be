"""Who is answered when: one thread predicts, requests wait their turn, and short ones that wait are predicted together.

Between app.py, whose event loop must not wait for a model, and the model, which computes one thing at a time. A few short texts
together take a processor half as long as one after the other (bench/serve.py), so what has come meanwhile goes along.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fastapi import HTTPException

from .messages import Question

JOINED_TEXTS, JOINED_CHARACTERS = 16, 20_000  # of what is predicted together; a request that is more goes alone

Answer = dict[str, Any]
Predict = Callable[[list[str], bool], list[Answer]]  # texts, and whether to explain


@dataclass(frozen=True)
class Waiting:
    """A request and who waits for its answers."""

    question: Question
    has_left: Callable[[], Awaitable[bool]]
    answers: "asyncio.Future[list[Answer]]"


class Worker:
    """Answers questions, one after the other. Its methods belong to one event loop, `predict` is called in a thread of its own.

    `joins` says that texts may be predicted with those of others. Of `max_waiting` requests each has a place.
    """

    def __init__(self, predict: Predict, *, joins: bool, max_waiting: int):
        self.predict, self.joins, self.max_waiting = predict, joins, max_waiting
        self.n_alone = 0  # requests at the head of those that wait which are predicted by themselves
        self.n_places = 0  # taken
        self.waiting: deque[Waiting] = deque()
        self.thread = ThreadPoolExecutor(1)
        self.work: asyncio.Task[None] | None = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places, from before a body is read until its answer is there. Raises `HTTPException` 503."""
        if self.n_places >= self.max_waiting:
            raise HTTPException(
                503, f"{self.n_places:,} requests are waiting: try again in a moment", {"Retry-After": "1"}
            )
        self.n_places += 1
        try:
            yield
        finally:
            self.n_places -= 1

    async def ask(self, question: Question, has_left: Callable[[], Awaitable[bool]]) -> list[Answer]:
        """The answer to each text. A client that has left when its turn comes is passed over, with an `HTTPException`."""
        answers = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(question, has_left, answers))
        if self.work is None or self.work.done():
            self.work = asyncio.create_task(self._work())
        return await answers

    async def _work(self) -> None:
        while self.waiting:
            turn = [waiting for waiting in self._next() if not await _is_passed_over(waiting)]
            if not turn:
                continue
            texts = [text for waiting in turn for text in waiting.question.texts]
            explain = turn[0].question.explain
            try:
                found = await asyncio.get_running_loop().run_in_executor(self.thread, self.predict, texts, explain)
            except Exception as err:
                if len(turn) > 1:  # one of them fails, and the others have nothing to do with it: each alone
                    self.n_alone = len(turn)
                    self.waiting.extendleft(reversed(turn))
                elif not turn[0].answers.done():
                    turn[0].answers.set_exception(err)
                continue
            rest = iter(found)
            for waiting in turn:
                own = list(islice(rest, len(waiting.question.texts)))
                if not waiting.answers.done():  # its request was cancelled: the server is stopped by force
                    waiting.answers.set_result(own)

    def _next(self) -> list[Waiting]:
        """The first that waits, and those behind it that go along."""
        turn = [self.waiting.popleft()]
        if self.n_alone:
            self.n_alone -= 1
            return turn
        n_texts, n_characters = _size(turn[0].question)
        while self.waiting and self.joins and not turn[0].question.explain:
            more_texts, more_characters = _size(self.waiting[0].question)
            n_texts, n_characters = n_texts + more_texts, n_characters + more_characters
            if self.waiting[0].question.explain or n_texts > JOINED_TEXTS or n_characters > JOINED_CHARACTERS:
                break
            turn.append(self.waiting.popleft())
        return turn


def _size(question: Question) -> tuple[int, int]:
    return len(question.texts), sum(map(len, question.texts))


async def _is_passed_over(waiting: Waiting) -> bool:
    try:
        has_left = not waiting.answers.done() and await waiting.has_left()
    except Exception:  # whatever its connection is, nobody is there to be answered
        has_left = True
    if has_left and not waiting.answers.done():
        waiting.answers.set_exception(HTTPException(400, "the client has left"))
    return waiting.answers.done()
