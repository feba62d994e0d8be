"""What a client may ask and how it is told what is wrong: the bytes of a body to a `Question`, and both sides as JSON schema.

Everything is checked here, by hand: a refusal is one sentence with what was found and what is expected. Knows no addresses.
"""

import reprlib
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException
from pydantic_core import from_json

FIELDS = ("text", "texts", "explain")
KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number", type(None): "null"}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much may be asked: beyond it a request is refused."""

    max_texts: int  # of a request
    max_characters: int  # of a text
    max_body_bytes: int  # of a request
    max_waiting: int  # requests that are read, wait or are predicted


@dataclass(frozen=True)
class Question:
    """A request that is in order."""

    texts: list[str]
    several: bool  # it gave `texts`: the answer is a list too
    explain: bool


def read_question(body: bytes, limits: Limits) -> Question:
    """Read a body. Raises `HTTPException`: 400 where it is no JSON, 413 where it is too much, 422 where it is something else."""
    given = _parse(body)
    if not isinstance(given, dict):
        raise HTTPException(422, f"""the body is {KINDS[type(given)]}, expected an object such as {{"text": "..."}}""")
    if unknown := [name for name in given if name not in FIELDS]:
        raise HTTPException(
            422, f"the field {reprlib.repr(unknown[0])} is unknown, expected one of {', '.join(FIELDS)}"
        )
    several = "texts" in given
    if several == ("text" in given):
        found = "both text and texts are given" if several else "neither text nor texts is given"
        raise HTTPException(422, f"{found}, expected one of them")
    texts = given["texts"] if several else [given["text"]]
    if not isinstance(texts, list):
        raise HTTPException(422, f"texts is {KINDS[type(texts)]}, expected a list of strings")
    if not texts:
        raise HTTPException(422, "texts is empty, expected one text at least")
    if len(texts) > limits.max_texts:
        raise HTTPException(413, f"there are {len(texts):,} texts, expected {limits.max_texts:,} at most")
    for i, text in enumerate(texts):
        name = f"texts[{i}]" if several else "text"
        if not isinstance(text, str):
            raise HTTPException(422, f"{name} is {KINDS[type(text)]}, expected a string")
        if len(text) > limits.max_characters:
            raise HTTPException(413, f"{name} has {len(text):,} characters, expected {limits.max_characters:,} at most")
    explain = given.get("explain", False)
    if not isinstance(explain, bool):
        raise HTTPException(422, f"explain is {KINDS[type(explain)]}, expected true or false")
    return Question(texts, several, explain)


def _parse(body: bytes) -> Any:
    """By pydantic's parser and not by `json`: deep nesting, long numbers and lone surrogates are a `ValueError` to it."""
    try:
        return from_json(body.decode("utf-8"), allow_inf_nan=False)
    except UnicodeDecodeError as err:
        raise HTTPException(400, f"the body is no UTF-8 from byte {err.start} on, expected JSON in UTF-8") from err
    except ValueError as err:
        what = "holds half a surrogate pair, which is no character" if "hex escape" in str(err) else "is no JSON"
        raise HTTPException(400, f"the body {what}: {err}") from err


# ---- for /openapi.json ----------------------------------------------------------------------------------------------

_STRING, _PROBABILITY = {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}
_WORD = {"type": "array", "prefixItems": [_STRING, {"type": "number"}], "minItems": 2, "maxItems": 2}
# `Prediction` of tasks/predict.py.
ANSWER = {
    "type": "object",
    "title": "Prediction",
    "required": ["label", "probability", "probabilities", "text", "labels"],
    "properties": {
        "label": {**_STRING, "description": "the most probable label"},
        "probability": {**_PROBABILITY, "description": "of that label"},
        "probabilities": {"type": "object", "additionalProperties": _PROBABILITY, "description": "of each label"},
        "text": _STRING,
        "labels": {"type": "array", "items": _STRING, "description": "what it is given: that label, or any number"},
        "words": {"type": "array", "items": _WORD, "description": "tokens, and what each did for the label"},
    },
}
ANSWERS = {"type": "object", "required": ["predictions"], "properties": {"predictions": {"type": "array", "items": ANSWER}}}  # fmt: skip
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {**_STRING, "description": "one sentence"}}}


def question_schema(limits: Limits) -> dict[str, Any]:
    """What `read_question` takes."""
    text = {**_STRING, "maxLength": limits.max_characters}
    explain = {"type": "boolean", "default": False, "description": "say which words mattered, which takes longer"}
    ways = {"text": text, "texts": {"type": "array", "items": text, "minItems": 1, "maxItems": limits.max_texts}}
    return {
        "oneOf": [
            {
                "type": "object",
                "required": [name],
                "properties": {name: way, "explain": explain},
                "additionalProperties": False,
            }
            for name, way in ways.items()
        ]
    }
