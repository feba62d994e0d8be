"""Bodies that are in order, and all others: each is refused with a status and one sentence."""

import json
from typing import Any

import pytest
from fastapi import HTTPException

from ulmpipe.server.messages import ANSWER, Limits, Question, question_schema, read_question
from ulmpipe.tasks.predict import Prediction

LIMITS = Limits(max_texts=3, max_characters=10, max_body_bytes=1000, max_waiting=2)

GOOD: dict[str, tuple[Any, Question]] = {
    "one text": ({"text": "été 日本 😀"}, Question(["été 日本 😀"], False, False)),
    "an empty text": ({"text": ""}, Question([""], False, False)),
    "one in a list": ({"texts": ["a"]}, Question(["a"], True, False)),
    "as many as there may be": ({"texts": ["a", "b", "c" * 10]}, Question(["a", "b", "c" * 10], True, False)),
    "explained": ({"text": "a\x00b", "explain": True}, Question(["a\x00b"], False, True)),
    "characters, not bytes": ({"text": "😀" * 10, "explain": False}, Question(["😀" * 10], False, False)),
}

BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "the body is no JSON: EOF while parsing a value at line 1 column 0"),
    "half": (b'{"text": "a', 400, "the body is no JSON: EOF while parsing a string at line 1 column 11"),
    "two": (b'{"text": "a"} {}', 400, "the body is no JSON: trailing characters at line 1 column 15"),
    "latin-1": (b'{"text": "\xe9"}', 400, "the body is no UTF-8 from byte 10 on, expected JSON in UTF-8"),
    "utf-16": ('{"text": "a"}'.encode("utf-16"), 400, "the body is no UTF-8 from byte 0 on, expected JSON in UTF-8"),
    "a surrogate as bytes": (b'{"text": "\xed\xa0\x80"}', 400, "the body is no UTF-8 from byte 10 on, expected JSON in UTF-8"),
    "a lone surrogate": (rb'{"text": "\ud800"}', 400, "the body holds half a surrogate pair, which is no character: "),
    "the other half": (rb'{"text": "\udc00 "}', 400, "the body holds half a surrogate pair, which is no character: "),
    "a lone surrogate in a name": (rb'{"\ud800x": 1}', 400, "the body holds half a surrogate pair, which is no character: "),
    "deep": (b"[" * 900, 400, "the body is no JSON: recursion limit exceeded"),
    "a long number": (b"1" * 900 + b"0" * 9000, 400, "the body is no JSON: number out of range"),
    "not a number": (b'{"text": NaN}', 400, "the body is no JSON: expected value"),
    "a list": (b'["a"]', 422, 'the body is a list, expected an object such as {"text": "..."}'),
    "a string": (b'"a"', 422, 'the body is a string, expected an object such as {"text": "..."}'),
    "null": (b"null", 422, 'the body is null, expected an object such as {"text": "..."}'),
    "an unknown field": (b'{"text": "a", "txt": "b"}', 422, "the field 'txt' is unknown, expected one of text, texts, explain"),
    "a long unknown field": (b'{"%s": 1}' % (b"x" * 900), 422, "the field 'xxxxxxxxxxxx...xxxxxxxxxxxxx' is unknown, expected"),
    "neither": (b'{"explain": true}', 422, "neither text nor texts is given, expected one of them"),
    "both": (b'{"text": "a", "texts": ["b"]}', 422, "both text and texts are given, expected one of them"),
    "a number as text": (b'{"text": 1}', 422, "text is a number, expected a string"),
    "a list as text": (b'{"text": ["a"]}', 422, "text is a list, expected a string"),
    "no text": (b'{"text": null}', 422, "text is null, expected a string"),
    "a string as texts": (b'{"texts": "ab"}', 422, "texts is a string, expected a list of strings"),
    "an empty list": (b'{"texts": []}', 422, "texts is empty, expected one text at least"),
    "an object among texts": (b'{"texts": ["a", {}]}', 422, "texts[1] is an object, expected a string"),
    "a word as explain": (b'{"text": "a", "explain": "yes"}', 422, "explain is a string, expected true or false"),
    "a number as explain": (b'{"text": "a", "explain": 1}', 422, "explain is a number, expected true or false"),
    "too many texts": (b'{"texts": ["a", "b", "c", "d"]}', 413, "there are 4 texts, expected 3 at most"),
    "a long text": (b'{"text": "%s"}' % (b"a" * 11), 413, "text has 11 characters, expected 10 at most"),
    "a long text among texts": (b'{"texts": ["a", "%s"]}' % (b"a" * 11), 413, "texts[1] has 11 characters, expected 10 at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_in_order_is_read(name: str):
    given, ref = GOOD[name]
    assert read_question(json.dumps(given).encode(), LIMITS) == ref
    assert read_question(json.dumps(given, ensure_ascii=False).encode(), LIMITS) == ref


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_is_refused(name: str):
    body, status, reason = BAD[name]
    with pytest.raises(HTTPException) as caught:
        read_question(body, LIMITS)
    assert caught.value.status_code == status and caught.value.detail.startswith(reason)
    assert "\n" not in caught.value.detail and len(caught.value.detail) < 200


def test_schema_of_an_answer_is_that_of_a_prediction():
    made = Prediction("a", 0.9, {"a": 0.9}, "t", ["a"])
    assert set(ANSWER["properties"]) == set(vars(made))
    assert set(ANSWER["required"]) == {name for name, value in vars(made).items() if value is not None}


def test_schema_of_a_question_has_the_limits():
    one, several = question_schema(LIMITS)["oneOf"]
    assert one["properties"]["text"]["maxLength"] == 10 and several["properties"]["texts"]["maxItems"] == 3
    assert {*one["properties"], *several["properties"]} == {"text", "texts", "explain"}
