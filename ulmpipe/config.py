"""Options: one frozen dataclass for each command. A field is a flag, a keyword of the Python function, and what is saved.

    ReadConfig                how a source is read: ulmpipe evaluate
    TokenizeConfig            ulmpipe tokenize
    TrainConfig               what every training has in common
    PretrainConfig            ulmpipe pretrain  = tokenize + train options
    FinetuneConfig            ulmpipe finetune  = the same and its own

The only place where defaults stand. Functions below the tasks take flat arguments and never one of these.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from .errors import ConfigError

Config = TypeVar("Config")


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), flag: str = "") -> Any:
    """A field with the help text of its flag; `flag` where the flag's name is not the field's."""
    return field(default=default, metadata={"help": help, "choices": choices, "flag": flag})


@dataclass(frozen=True)
class ReadConfig:
    """How a source is read."""

    text_column: str = option("text", "column of a table that holds the text")
    label_column: str = option("label", "column of a table that holds the label")
    workers: int = option(0, "processes that read and tokenize; 0: as many as processors")
    tables: str | None = option(
        None, "file that remembers how chunks of text are tokenized: read if it is there, and added to"
    )


@dataclass(frozen=True)
class TokenizeConfig(ReadConfig):
    """How texts become tokens and ids."""

    lang: str = option("en", "language of spaCy's tokenizer; xx for many languages")
    rules: str = option(
        "default", "what is done before and after the tokenizer", choices=("default", "course", "fastai1", "fastai2")
    )
    vocab: str | None = option(
        None, "number with this vocabulary (vocab.json, or a folder that holds one) instead of a new one"
    )
    max_vocab: int = option(60_000, "tokens in the vocabulary at most, special tokens included")
    min_freq: int = option(2, "times a token must come to get an id")
    engine: str = option("fast", "spacy: the reference; fast: the same tokens, much sooner", choices=("fast", "spacy"))
    verify: float = option(0.001, "share of the documents that the reference tokenizes too, to compare")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    batch_size: int = option(64, "documents, or streams of text, in a batch")
    bptt: int = option(70, "tokens in a window of the language model")
    variable_bptt: bool = option(False, "draw window lengths around --bptt, as AWD-LSTM does")
    lr: float | None = option(None, "highest learning rate of the language model; default: by command")
    max_steps: int | None = option(None, "stop the language model's training after so many steps")
    drop_mult: float = option(0.3, "multiplies the language model's dropouts; more for smaller data")
    seed: int = option(0, "of everything random")
    precision: str = option("fp32", "number format in training", choices=("fp32", "bf16", "fp16"))
    device: str = option("auto", "auto, cpu or cuda")
    valid: str | None = option(None, "SOURCE of validation documents; default: some held out, by --valid-fraction")
    valid_fraction: float = option(0.1, "share of the documents that is held out without --valid (2,000 at most)")
    checkpoint_steps: int = option(500, "write a checkpoint every so many steps; the last one is kept")
    resume: bool = option(False, "go on from the output's checkpoint")


@dataclass(frozen=True)
class PretrainConfig(TrainConfig, TokenizeConfig):
    """A language model from a large corpus."""

    size: str = option(
        "small", "model: tiny is for tests, small = 2 x 300, base = 3 x 1152", choices=("tiny", "small", "base")
    )
    epochs: int = option(1, "times the corpus is read")


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig, TokenizeConfig):
    """A language model tuned on the target's texts, then a classifier on its labels."""

    from_model: str | None = option(
        None, "language model to start from; default: the newest under models/", flag="from"
    )
    unlabelled: str | None = option(None, "SOURCE of further texts without labels, for the language model")
    stage: str = option("all", "what to train", choices=("all", "lm", "classifier"))
    n_labels: int | None = option(None, "use only so many labels, chosen by --seed")
    size: str = option("small", "model where there is none to start from", choices=("tiny", "small", "base"))
    lm_epochs: int = option(1, "epochs of the whole language model, after one of its embeddings")
    epochs: int = option(2, "epochs of the whole classifier, after its layers were unfrozen one by one")
    classifier_lr: float = option(1e-2, "highest learning rate of the classifier's head")
    unfrozen_lr: float = option(5e-3, "the same once all layers are trained")
    layer_factor: float = option(2.0, "each layer's learning rate is the next one's divided by this")
    classifier_drop_mult: float = option(0.5, "multiplies the classifier's dropouts")
    max_tokens: int = option(
        1400, "tokens of a document that the classifier reads: the first half and the last half of so many"
    )


def make_config(kind: type[Config], options: Mapping[str, Any]) -> Config:
    """Build a config from options by name. Raises `ConfigError` listing every unknown name and every bad value at once."""
    known = {f.name: f for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    wrong = [_unknown(name, known) for name in options if name not in known]
    wrong += [reason for name, value in options.items() if name in known and (reason := _bad_value(known[name], value))]
    if wrong:
        raise ConfigError("; ".join(wrong))
    return kind(**options)


def _unknown(name: str, known: Mapping[str, Field[Any]]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"unknown option {name!r}" + (
        f", did you mean {nearest[0]!r}?" if nearest else f", known: {', '.join(known)}"
    )


POSITIVE = {"max_vocab", "min_freq", "batch_size", "bptt", "max_steps", "checkpoint_steps", "n_labels", "max_tokens", "lr", "classifier_lr", "unfrozen_lr", "layer_factor"}  # fmt: skip
NOT_NEGATIVE = {"workers", "seed", "drop_mult", "classifier_drop_mult", "epochs", "lm_epochs"}


def _bad_value(option: Field[Any], value: Any) -> str:
    """Why a value can't be, or an empty string."""
    flag = flag_name(option)
    if not isinstance(value, option.type) and not (isinstance(value, int) and option.type in (float, float | None)):  # pyright: ignore[reportArgumentType]
        return f"{flag} is {value!r}, expected {getattr(option.type, '__name__', option.type)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{flag} is {value}, expected a finite number"
    if choices := option.metadata["choices"]:
        return "" if value in choices else f"{flag} is {value!r}, expected one of {', '.join(choices)}"
    if value is None:
        return ""
    if option.name in POSITIVE and value <= 0:
        return f"{flag} is {value}, expected more than 0"
    if option.name in NOT_NEGATIVE and value < 0:
        return f"{flag} is {value}, expected 0 or more"
    if option.name == "verify" and not 0 <= value <= 1:
        return f"{flag} is {value}, expected 0 to 1"
    if option.name == "valid_fraction" and not 0 < value < 1:
        return f"{flag} is {value}, expected between 0 and 1"
    return ""


def flag_name(option: Field[Any]) -> str:
    """`--batch-size` for the field `batch_size`."""
    return "--" + (option.metadata["flag"] or option.name).replace("_", "-")


def pick(kind: type[Config], config: Any) -> Config:
    """The part of a larger config that belongs to `kind`: the tokenize options of a finetune config, for instance."""
    values = asdict(config)
    return kind(**{f.name: values[f.name] for f in fields(kind)})  # pyright: ignore[reportArgumentType]
