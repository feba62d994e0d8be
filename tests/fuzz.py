"""Texts made to trip a tokenizer: rules of the language, punctuation, URLs, every white space, in every order."""

import random
from collections.abc import Sequence

SPACES = [" "] * 12 + ["  ", "\n", "\t", "\xa0", "\u2003", "\r\n", " \n ", "\u3000", "\x1c", "\x85", "\u1680", "   "]
MARKS = list(".,!?;:'\"()[]{}-–—…/\\#*&%$€£<>=+~_^@`´’‘“”«»°|§") + [
    "...", "--", "''", ":)", ":-(", ":'(", "n't", "'s", "’s", "!!!!", "????", "....", "aaaa", "US$", "C$", "A$", "km/h",
    "http://", "www.", "@x", "1.5", "10km", "3,000", "°C.", "a.m.", "U.S.", "<br />", "<br>", "&amp;", "&#39;", "amp;",
    "xxbos", "@-@", "<unk>", "\\n", "/", "#",
]  # fmt: skip
WORDS = [
    "word", "Word", "WORD", "wOrD", "naïve", "Straße", "ÇA", "éa", "я", "Москва", "что-то", "Ελλάδα", "ΟΔΟΣ", "كتاب",
    "مرحبا", "नमस्ते", "日本", "😀", "👨‍👩‍👧", "e\u0301", "İstanbul", "ŉ", "\u200d", "\ufeff", "\x00", "a\x00b", "x", "I",
    "A", "s", "S", "1", "2023", "007", "1st", "no", "no", "no", "the", "the",
]  # fmt: skip


def chunk(rng: random.Random, rules: Sequence[str]) -> str:
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(rules)
    if kind < 0.45:
        return rng.choice(WORDS)
    if kind < 0.6:
        return rng.choice(MARKS) * rng.choice([1, 1, 1, 2, 4])
    makers = (lambda: rng.choice(MARKS), lambda: rng.choice(WORDS), lambda: rng.choice(rules), lambda: rng.choice(WORDS) + rng.choice(MARKS))  # fmt: skip
    return "".join(rng.choice(makers)() for _ in range(rng.randint(2, 4)))


def texts(n: int, rules: Sequence[str], seed: object) -> list[str]:
    """`n` texts; `rules` are the special cases of a language."""
    rng = random.Random(repr(seed))
    made = []
    for _ in range(n):
        parts = [chunk(rng, rules) + rng.choice(SPACES) for _ in range(rng.randint(0, 12))]
        made.append(rng.choice(["", "", "", " ", "  ", "\n"]) + "".join(parts) + rng.choice(["", "", " "]))
    return made
