"""Rules: what is done to a text before, and to its tokens after, the tokenizer; and the four presets of them.

A pre rule is `str -> str`, a post rule `list[str] -> list[str]`; a preset is two tuples of them and the special tokens.
Nothing is removed and nothing is stemmed: what a rule takes out of the text (a capital, a repetition) it leaves behind
as a special token, so that the vocabulary stays small and the model still knows.

What the presets do was read in fast.ai's lesson 12 (`course`), fastai 1.0.61 and fastai 2.8.12. They repeat those
versions' defects, which models trained with them have learned; `default` is the lesson's with the defects mended.

A rule may say how far it can see (`scope`), so that the fast engine need not run it on every text. A rule that says
nothing is taken to see its whole document: slower, never wrong.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import ConfigError

UNK, PAD, BOS, EOS, FLD = "xxunk", "xxpad", "xxbos", "xxeos", "xxfld"
TK_REP, TK_WREP, TK_UP, TK_MAJ = "xxrep", "xxwrep", "xxup", "xxmaj"

COURSE_SPECIALS = (UNK, PAD, BOS, EOS, TK_REP, TK_WREP, TK_UP, TK_MAJ)
FASTAI_SPECIALS = (UNK, PAD, BOS, EOS, FLD, TK_REP, TK_WREP, TK_UP, TK_MAJ)

PreRule = Callable[[str], str]
PostRule = Callable[[list[str]], list[str]]


SCOPES = ("chunk", "gap", "ends", "token", "document")
Rule = TypeVar("Rule", bound=Callable[..., Any])


@dataclass(frozen=True)
class Scope:
    """How far a rule can see, and so what may be remembered of it.

    Pre rules: `chunk`, it changes each run of non-space by itself, may put spaces into it and around it, and leaves white
    space alone; `gap`, it changes each run of white space by itself, into white space, and leaves one space alone;
    `ends`, as `chunk`, and it may strip white space from the ends of the text and put words there; `document`, anything.
    Post rules: `token`, it changes each token by itself; `ends`, it adds tokens at the ends; `document`, anything.

    A `document` rule may name what it needs: it changes nothing where none of the strings `when` is in the text; or
    where no word comes `repeats` times in a row, with the same between them, all but the first or all but the last of
    them with the same white-space-delimited surroundings.
    """

    sees: Literal["chunk", "gap", "ends", "token", "document"] = "document"
    when: tuple[str, ...] = ()
    repeats: int = 0


def scope(sees: Any, *, when: tuple[str, ...] = (), repeats: int = 0) -> Callable[[Rule], Rule]:
    """Say how far a rule can see: "chunk", "gap", "ends", "token" or "document"; see `Scope`."""
    if sees not in SCOPES:
        raise ConfigError(f"a rule of scope {sees!r}: expected one of {', '.join(SCOPES)}")

    def mark(rule: Rule) -> Rule:
        setattr(rule, "scope", Scope(sees, when, repeats))  # noqa: B010
        return rule

    return mark


def scope_of(rule: Callable[..., Any]) -> Scope:
    """What a rule says of itself."""
    return getattr(rule, "scope", Scope())


@dataclass(frozen=True)
class Rules:
    """What happens to a text before the tokenizer (`pre`) and to its tokens after it (`post`), in order.

    The special tokens get the first ids, and the tokenizer never splits them.
    """

    pre: tuple[PreRule, ...]
    post: tuple[PostRule, ...]
    specials: tuple[str, ...] = COURSE_SPECIALS
    tokenizer: Callable[[], Any] | None = None  # makes a spaCy tokenizer, in the place of the language's own


# ---- before the tokenizer -------------------------------------------------------------------------------------------

# Lesson 12's clean-up, in its order. The patterns have no `&`: they suit text that has lost it, and turn a well-formed
# `&amp;` into `&&` and "lamp;" into "l&". `default` uses `unescape_entities` and `fix_markup` instead.
_LESSON_FIXES = (
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"), ("quot;", "'"),
    ("<br />", "\n"), ('\\"', '"'), ("<unk>", UNK), (" @.@ ", "."), (" @-@ ", "-"),
)  # fmt: skip

_LOST = ("#39;", "amp;", "#146;", "nbsp;", "#36;", "quot;")
_FIXED = ("&", *_LOST, "\\", "<br />", "<unk>", " @")
_BR = re.compile(r"<\s*br\s*/?>", re.IGNORECASE)
_SPACES = re.compile(r" {2,}")
_WELL_FORMED_OR_LOST = re.compile(
    r"&(?:amp;)*(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);"  # &amp; &#39; &#x27;, and &amp;lt; as one
    r"|(?<![&\w])(?:#39|#146|#36|amp|nbsp|quot);"  # the lesson's six, where the `&` was lost
)
_MARKUP = (("\\n", "\n"), ('\\"', '"'), ("<unk>", UNK), (" @.@ ", "."), (" @-@ ", "-"), (" @,@ ", ","), ("\\", " \\ "))


def _replace_all(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        text = text.replace(old, new)
    return text


@scope("document", when=(*_FIXED, "  "))
def fixup_text(text: str) -> str:
    """Clean up as lesson 12 does: entities that lost their `&`, `<br />`, WikiText's `@-@`, then runs of spaces."""
    text = _replace_all(text, (*_LESSON_FIXES, ("\\", " \\ ")))
    return _SPACES.sub(" ", html.unescape(text))


@scope("document", when=(*_FIXED, "  "))
def fix_html_fastai1(text: str) -> str:
    """Clean up as fastai 1 does: the lesson's, and WikiText's `@,@`."""
    text = _replace_all(text, (*_LESSON_FIXES, (" @,@ ", ","), ("\\", " \\ ")))
    return _SPACES.sub(" ", html.unescape(text))


@scope("document", when=(*_FIXED, "..."))
def fix_html_fastai2(text: str) -> str:
    """Clean up as fastai 2 does: the lesson's, three dots to an ellipsis, and backslashes left to `spec_add_spaces`."""
    return html.unescape(_replace_all(text, (*_LESSON_FIXES, ("...", " …"))))


@scope("document", when=("<",))
def sub_br(text: str) -> str:
    """Turn every form of the HTML line break into a newline.

    >>> sub_br("one<br />two<BR>three")
    'one\\ntwo\\nthree'
    """
    return _BR.sub("\n", text)


@scope("document", when=("&", *_LOST))
def unescape_entities(text: str) -> str:
    """Unescape HTML entities, each once; the lesson's six also where their `&` was lost.

    >>> unescape_entities("R&amp;B, quot;odd&#39;quot; lamp; &amp;lt;")
    'R&B, "odd\\'" lamp; &lt;'
    """
    return _WELL_FORMED_OR_LOST.sub(lambda m: html.unescape(m[0] if m[0][0] == "&" else "&" + m[0]), text)


@scope("document", when=("\\", "<unk>", " @"))
def fix_markup(text: str) -> str:
    """Undo what corpora put into their text: WikiText's `<unk>` and `@-@`, a `\\n` and `\\"` written as two characters.

    >>> fix_markup("a two @-@ part <unk>")
    'a two-part xxunk'
    """
    return _replace_all(text, _MARKUP)


def _rep_rule(at_least: int) -> PreRule:
    # Possessive: nothing follows that could want a character back, and else 100 bytes are kept for each, in case.
    pattern = re.compile(rf"(\S)(\1{{{at_least - 1},}}+)")

    @scope("chunk")
    def replace_rep(text: str) -> str:
        return pattern.sub(lambda m: f" {TK_REP} {len(m[0])} {m[1]} ", text)

    replace_rep.__doc__ = f"Replace a character repeated {at_least} times or more: `cccc` -> ` {TK_REP} 4 c `."
    return replace_rep


replace_rep = _rep_rule(at_least=4)
replace_rep_fastai2 = _rep_rule(at_least=3)

_WORD_4_TIMES = re.compile(r"(\b\w+\W+)(\1{3,}+)")
_WORD_3_TIMES = re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)")


@scope("document", repeats=4)
def replace_wrep(text: str) -> str:
    """Replace a word repeated four times or more; what follows the word stays.

    >>> replace_wrep("no no no no no end")
    ' xxwrep 5 no  end'
    """
    return _WORD_4_TIMES.sub(lambda m: f" {TK_WREP} {len(m[2].split()) + 1} {m[1]} ", text)


@scope("document", repeats=3)
def replace_wrep_fastai2(text: str) -> str:
    """Replace a word repeated three times or more, as fastai 2 does.

    >>> replace_wrep_fastai2("word word word.")
    ' xxwrep 3 word .'
    """
    return _WORD_3_TIMES.sub(lambda m: f" {TK_WREP} {len(m[2].split()) + 2} {m[1]} {m[3]}", text)


def _spaces_rule(characters: str) -> PreRule:
    pattern = re.compile(f"([{characters}])")

    @scope("chunk")
    def spec_add_spaces(text: str) -> str:
        return pattern.sub(r" \1 ", text)

    spec_add_spaces.__doc__ = f"Put spaces around each of `{characters}`."
    return spec_add_spaces


spec_add_spaces = _spaces_rule("/#")
spec_add_spaces_fastai2 = _spaces_rule("/#\\\\")


@scope("gap")
def spec_add_newlines(text: str) -> str:
    """Put spaces around each newline, as fastai 1 does with the characters of `spec_add_spaces`."""
    return text.replace("\n", " \n ")


@scope("gap")
def rm_useless_spaces(text: str) -> str:
    """Make runs of spaces one space."""
    return _SPACES.sub(" ", text)


_ALL_CAPS = re.compile(r"(\s|^)([A-Z]+[^a-z\s]*)(?=(\s|$))")
_FIRST_CAP = re.compile(r"(\s|^)([A-Z][^A-Z\s]*)(?=(\s|$))")


@scope("chunk")
def replace_all_caps_fastai2(text: str) -> str:
    """Lower words in capitals and say so: `I AM` -> `i xxup am`. ASCII only, cut at white space, as in fastai 2."""
    return _ALL_CAPS.sub(lambda m: f"{m[1]}{TK_UP + ' ' if len(m[2]) > 1 else ''}{m[2].lower()}", text)


@scope("chunk")
def replace_maj_fastai2(text: str) -> str:
    """Lower words that begin with a capital and say so: `Hello` -> `xxmaj hello`; see `replace_all_caps_fastai2`."""
    return _FIRST_CAP.sub(lambda m: f"{m[1]}{TK_MAJ + ' ' if len(m[2]) > 1 else ''}{m[2].lower()}", text)


@scope("ends")
def lowercase_fastai2(text: str) -> str:
    """Lower the rest, strip, and begin the document."""
    return f"{BOS} {text.lower().strip()}"


@scope("ends")
def mark_begin_fastai1(text: str) -> str:
    """Begin the document, before any other rule, as fastai 1 does when it joins the fields of a row."""
    return f"{BOS} {text}"


# ---- after the tokenizer --------------------------------------------------------------------------------------------


@scope("token")
def replace_all_caps(tokens: list[str]) -> list[str]:
    """Lower tokens in capitals and say so.

    >>> replace_all_caps(["I", "AM", "here"])
    ['I', 'xxup', 'am', 'here']
    """
    out: list[str] = []
    for token in tokens:
        if token.isupper() and len(token) > 1:
            out += (TK_UP, token.lower())
        else:
            out.append(token)
    return out


@scope("token")
def replace_maj(tokens: list[str]) -> list[str]:
    """Lower tokens that begin with a capital and say so; lower everything else too (the lesson's `deal_caps`).

    Must come after `replace_all_caps`, which would find nothing in capitals any more: the lesson's order
    never emits `xxup`, and the `course` preset keeps that.

    >>> replace_maj(["The", "I", "end"])
    ['xxmaj', 'the', 'i', 'end']
    """
    out: list[str] = []
    for token in tokens:
        if len(token) > 1 and token[0].isupper() and token[1:].islower():
            out.append(TK_MAJ)
        if token:
            out.append(token.lower())
    return out


@scope("ends")
def add_bos_eos(tokens: list[str]) -> list[str]:
    """Mark where the document begins and ends."""
    return [BOS, *tokens, EOS]


@scope("token")
def replace_space_fastai2(tokens: list[str]) -> list[str]:
    """Write a space inside a token as `▁`, as fastai 2 does to keep its token files splittable."""
    return [token.replace(" ", "▁") for token in tokens]


# ---- the presets ----------------------------------------------------------------------------------------------------

PRESETS: dict[str, Rules] = {
    "default": Rules(
        # Line breaks come first: `spec_add_spaces` would turn `<br/>` into `<br / >`, which nothing recognises.
        pre=(sub_br, unescape_entities, fix_markup, replace_rep, replace_wrep, spec_add_spaces, rm_useless_spaces),
        post=(replace_all_caps, replace_maj, add_bos_eos),
    ),
    "course": Rules(
        pre=(fixup_text, replace_rep, replace_wrep, spec_add_spaces, rm_useless_spaces, sub_br),
        post=(replace_maj, replace_all_caps, add_bos_eos),
    ),
    "fastai1": Rules(
        pre=(
            mark_begin_fastai1,
            fix_html_fastai1,
            replace_rep,
            replace_wrep,
            spec_add_spaces,
            spec_add_newlines,
            rm_useless_spaces,
        ),  # fmt: skip
        post=(replace_all_caps, replace_maj),
        specials=FASTAI_SPECIALS,
    ),
    "fastai2": Rules(
        pre=(
            fix_html_fastai2,
            replace_rep_fastai2,
            replace_wrep_fastai2,
            spec_add_spaces_fastai2,
            rm_useless_spaces,
            replace_all_caps_fastai2,
            replace_maj_fastai2,
            lowercase_fastai2,
        ),  # fmt: skip
        post=(replace_space_fastai2,),
        specials=FASTAI_SPECIALS,
    ),
}
