"""The reference tokenizer (`--engine spacy`): rules as Python, `spacy.blank(lang).tokenizer`, and nothing else.

    text -> rules.pre -> spaCy's rule-based tokenizer -> rules.post -> tokens

Slow and obvious: every other engine must give exactly these tokens. It knows no ids (vocab.py) and no files.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..lean import import_spacy
from .patterns import linear_searches
from .rules import PRESETS, PostRule, PreRule, Rules

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as SpacyTokenizer

MAX_CHUNK = 20_000  # characters without white space that spaCy is given at once
_LONG_CHUNK = re.compile(rf"\S{{{MAX_CHUNK + 1},}}")


@dataclass(frozen=True)
class TokenizerRecipe:
    """All that is needed to build the same tokenizer elsewhere.

    This is what travels to worker processes and into manifests, never a spaCy tokenizer: pickling one
    silently loses settings (`faster_heuristics`, `max_cache_size`, flags of its regular expressions).
    """

    lang: str = "en"
    rules: str | Rules = "default"  # a preset's name, or a user's own rules

    @property
    def resolved_rules(self) -> Rules:
        """The rules themselves. Raises `ConfigError` for an unknown preset."""
        if isinstance(self.rules, Rules):
            return self.rules
        if self.rules not in PRESETS:
            raise ConfigError(f"--rules {self.rules} is unknown: choose one of {', '.join(PRESETS)}")
        return PRESETS[self.rules]

    def to_json(self) -> dict[str, Any]:
        """What manifests and model folders keep. A user's own rules are named: code is not stored, nor run from a file."""
        rules = self.resolved_rules
        value: dict[str, Any] = {"lang": self.lang, "rules": self.rules, "specials": list(rules.specials)}
        if isinstance(self.rules, Rules):
            value["rules"] = "custom"
            value["custom"] = rule_names(rules)
        return value | {"spacy": spacy_version()}

    @classmethod
    def from_json(cls, value: dict[str, Any], *, rules: Rules | None = None) -> "TokenizerRecipe":
        """Make the recipe again. `rules` must be given, the same, where the stored one was made with a user's own."""
        expected = value.get("custom")
        found = rule_names(rules) if rules else None
        if expected != found:
            raise ConfigError(
                f"this was made with {_describe(expected, value['rules'])}, not with {_describe(found, 'a preset')}: "
                "pass from Python custom_rules= as they were then"
            )
        return cls(value["lang"], rules or value["rules"])


def _describe(custom: list[str] | None, preset: str) -> str:
    return f"--rules {preset}" if custom is None else f"rules of your own ({', '.join(custom)})"


def rule_names(rules: Rules) -> list[str]:
    """The names of all rules, in order."""
    return [function_name(rule) for rule in (*rules.pre, *rules.post)]


def function_name(rule: Callable[..., Any]) -> str:
    """`package.module.function`; a rule may also be a method such as `str.lower`, or an object that can be called."""
    named = rule if hasattr(rule, "__qualname__") else type(rule)
    return f"{getattr(named, '__module__', 'builtins')}.{named.__qualname__}"


def spacy_version() -> str:
    """The installed spaCy's version, without importing it. Tokens depend on it, so recipes carry it."""
    from importlib.metadata import version

    return version("spacy")


class Tokenizer:
    """Texts to tokens, exactly as the recipe says."""

    def __init__(self, recipe: TokenizerRecipe | None = None):
        self.recipe = recipe or TokenizerRecipe()
        self.rules = self.recipe.resolved_rules
        self.spacy = build_spacy_tokenizer(self.rules, self.recipe.lang)
        self.n_cut = 0  # chunks that were cut for their length, so far

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one document, special tokens included."""
        return self.run(text, self.rules.pre, self.rules.post)

    def run(self, text: str, pre: Iterable[PreRule], post: Iterable[PostRule]) -> list[str]:
        """Tokens of a text under some of the rules."""
        for pre_rule in pre:
            text = pre_rule(text)
        tokens = self.split(text)
        for post_rule in post:
            tokens = post_rule(tokens)
        return tokens

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Forget, where the block ends, all words that were new in it: spaCy keeps each one it has met, some 500 bytes.

        Of no use for another kind of tokenizer than spaCy's.
        """
        vocab: Any = getattr(self.spacy, "vocab", None)
        with vocab.memory_zone() if vocab is not None else nullcontext():
            yield

    def split(self, text: str) -> list[str]:
        """spaCy's tokens, and nothing else."""
        parts = cut_long_chunks(text)
        self.n_cut += len(parts) - 1
        return [token.text for part in parts for token in self.spacy(part)]


def cut_long_chunks(text: str) -> list[str]:
    """Cut every run of more than `MAX_CHUNK` characters without white space: some take spaCy time with their square.

    >>> [len(part) for part in cut_long_chunks("a " + "b" * 50_000 + " c")]
    [20002, 20000, 10002]
    """
    if len(text) <= MAX_CHUNK:
        return [text]
    cuts = [cut for run in _LONG_CHUNK.finditer(text) for cut in range(run.start() + MAX_CHUNK, run.end(), MAX_CHUNK)]
    return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def build_spacy_tokenizer(rules: Rules, lang: str) -> "SpacyTokenizer":
    """spaCy's tokenizer of a language, or the rules' own, told never to split the special tokens.

    Raises `ConfigError` for an unknown language.
    """
    tokenizer: Any = rules.tokenizer() if rules.tokenizer else blank_tokenizer(lang)
    from spacy.symbols import ORTH
    from spacy.tokenizer import Tokenizer as SpacyTokenizer

    if type(tokenizer) is not SpacyTokenizer:  # ja, ko, zh, th, vi have tokenizers of another kind, without rules
        return tokenizer
    # What else spaCy finds out of each new word is half of its time, and no part of a token.
    tokenizer.vocab.lex_attr_getters = {}
    made = SpacyTokenizer(
        tokenizer.vocab,
        rules=tokenizer.rules | {special: [{ORTH: special}] for special in rules.specials},
        token_match=tokenizer.token_match,
        infix_finditer=tokenizer.infix_finditer,
        faster_heuristics=tokenizer.faster_heuristics,
        max_cache_size=tokenizer.max_cache_size,
        **linear_searches(tokenizer),
    )
    made._flush_cache()  # a special case with a space leaves chunks there that were split without special cases
    return made


def blank_tokenizer(lang: str) -> Any:
    """The tokenizer of a language, as spaCy makes it."""
    spacy = import_spacy()
    try:
        return spacy.blank(lang).tokenizer
    except ImportError as err:
        raise ConfigError(f"--lang {lang}: spaCy can't load it: {str(err).strip().splitlines()[0]}") from err
