"""`ulmpipe import-fastai WEIGHTS.pth ITOS.pkl`: a language model that fastai published or saved becomes a model folder.

the two files (fastai_files.py) -> our names (models/fastai_names.py) -> our vocabulary -> model folder

For fastai's WikiText-103 models, forward and backward, those of lesson 12, and what `learn.save` and `save_encoder` of
fastai 1 and 2 write. A file of `save_encoder` has no decoder: it becomes a language model too, whose decoder has the
embedding's weight, as ever, and a bias of zero; what is tuned from an encoder needs no more.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import ImportConfig
from ..console import log
from ..durable import check_output, locked
from ..errors import SourceError, VocabMismatchError
from ..models import LanguageModel
from ..models.fastai_names import add_words, from_fastai
from ..options import make_config
from ..text.rules import BOS, FLD, PAD, TK_MAJ, TK_REP, UNK
from ..text.tokenizer import TokenizerRecipe, blank_tokenizer
from ..text.vocab import Vocab
from .fastai_files import read_itos, read_weights
from .model_folder import LANGUAGE_MODEL, MODELS_FOLDER, Pretrained

TASK = "import-fastai"
FAKE = "xxfake"  # fastai fills its vocabulary with these up to a multiple of 8; nothing looks them up
_OF_FASTAI_0 = ("_unk_", "_pad_")


@dataclass(frozen=True)
class ImportResult:
    """What was read; the fields of `import-fastai --json`."""

    vocab_size: int
    emb_size: int
    hidden_size: int
    n_layers: int
    rules: str
    lang: str
    backward: bool
    has_decoder: bool  # False: the decoder's bias is zero, and perplexity says nothing before the model is tuned
    n_unreachable: (
        int  # entries of the vocabulary that nothing looks up: padding, and all but the last of the same word
    )
    added: list[str]  # special tokens of the rules that the vocabulary had not
    out: str


def import_fastai(weights: str | Path, itos: str | Path, out: str | Path | None = None, **options: Any) -> ImportResult:
    """Write the model of fastai's files `weights` (.pth) and `itos` (.pkl) to `out`, by default `models/<name of weights>-lm`.

    `options` are the fields of `ImportConfig`. Ids and logits stay what they are in fastai. Raises `SourceError` for
    files that are not fastai's, `UlmpipeError` that names weights which do not fit.
    """
    config = make_config(ImportConfig, options)
    weights, itos = Path(weights), Path(itos)
    out = Path(out) if out is not None else MODELS_FOLDER / f"{weights.name.split('.')[0]}-lm"
    check_output(out, expected=LANGUAGE_MODEL)
    words = read_itos(itos)
    _check_specials(words, itos)
    rules = config.rules if config.rules != "auto" else rules_of(words)
    recipe = TokenizerRecipe(config.lang, rules)
    blank_tokenizer(config.lang)  # refused now, and not when the model is used
    imported = from_fastai(read_weights(weights))
    if len(words) != len(imported.weights["decoder.bias"]):
        raise VocabMismatchError(
            f"{itos} has {len(words):,} tokens, {weights} has {len(imported.weights['decoder.bias']):,} rows: "
            f"give the vocabulary that was saved with these weights"
        )
    names = reachable_names(words)
    added = [token for token in recipe.resolved_rules.specials if token not in set(names)]
    vocab = Vocab([*names, *added])
    settings = {"vocab_size": len(vocab), **imported.sizes, "pad_id": vocab.pad_id}
    model = LanguageModel(**settings)
    model.load_state_dict(add_words(imported.weights, len(added)))
    backward = config.backward if config.backward is not None else "bwd" in weights.name.lower()
    trained = {
        "task": TASK,
        "source": str(weights),
        "options": asdict(config),
        "backward": backward,
        "has_decoder": imported.has_decoder,
        "results": {},
    }
    with locked(out):
        Pretrained(LANGUAGE_MODEL, model, vocab, recipe.to_json(), settings, [], trained).save_pretrained(out)
    _tell(imported.has_decoder, backward, added)
    return ImportResult(
        vocab_size=len(vocab),
        **imported.sizes,
        rules=rules,
        lang=config.lang,
        backward=backward,
        has_decoder=imported.has_decoder,
        n_unreachable=sum(name != word for name, word in zip(names, words, strict=True)),
        added=added,
        out=str(out),
    )


def rules_of(itos: Sequence[str]) -> str:
    """The preset that a vocabulary was made with, by its special tokens: only fastai's have `xxfld`; 1 has `xxmaj` before `xxrep`.

    >>> rules_of(["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep"])
    'fastai1'
    >>> rules_of(["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"])
    'fastai2'
    >>> rules_of(["xxunk", "xxpad", "xxbos", "xxeos", "xxrep", "xxwrep", "xxup", "xxmaj"])
    'course'
    """
    if FLD not in itos:
        return "course"
    if TK_MAJ in itos and TK_REP in itos and itos.index(TK_REP) < itos.index(TK_MAJ):
        return "fastai2"
    return "fastai1"


def reachable_names(itos: Sequence[str]) -> list[str]:
    """The entries of a vocabulary, each once, every one at its id.

    Of equal entries fastai finds the last; the others, and padding, get a name of their own that no text has.

    >>> reachable_names(["xxunk", "a", "b", "a", "xxfake", "xxfake"])
    ['xxunk', 'xxfake1', 'b', 'a', 'xxfake4', 'xxfake5']
    """
    last = {word: i for i, word in enumerate(itos)}
    taken, names = set(itos), []
    for i, word in enumerate(itos):
        name = word
        if word == FAKE or last[word] != i:
            name = f"{FAKE}{i}"
            while name in taken:
                name += "_"
            taken.add(name)
        names.append(name)
    return names


def _check_specials(itos: Sequence[str], path: Path) -> None:
    if missing := [token for token in (UNK, PAD, BOS) if token not in itos]:
        if any(token in itos for token in _OF_FASTAI_0):
            raise SourceError(f"{path} is of fastai 0.7 ({_OF_FASTAI_0[0]}): take a file of fastai 1 or 2 (wt103-fwd.tgz)")  # fmt: skip
        raise SourceError(f"{path} lacks {', '.join(missing)}, expected a vocabulary of fastai 1 or 2, or of lesson 12")
    if repeated := [token for token in (UNK, PAD, BOS) if Counter(itos)[token] > 1]:
        raise SourceError(f"{path} has {', '.join(repeated)} twice: it was altered")


def _tell(has_decoder: bool, backward: bool, added: Sequence[str]) -> None:
    """Say what is worth knowing of an import."""
    if not has_decoder:
        log(
            "the file holds an encoder only: the decoder's bias begins at zero, tune it before you judge its perplexity"
        )
    if backward:
        log("the model reads texts from their end to their beginning: so must whatever is made of it")
    if added:
        log(f"the vocabulary lacked {', '.join(added)}: added, each as the mean of all words")
