"""`ulmpipe push MODEL owner/name`: a model folder onto the Hugging Face hub, with a page that says what it is.

model folder -> its config.json, told to people -> README.md (card.md) -> ulmpipe/hub.py -> the hub

The other way is `from_pretrained("owner/name")` (model_folder.py). The page says what config.json knows and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hub
from ..config import FinetuneConfig, PretrainConfig
from ..console import log
from ..durable import MANIFEST, check_files, check_keys, read_json
from ..reports.facts import changed_options
from ..train.metrics import perplexity
from .labels import standard_error
from .model_folder import CLASSIFIER, CONFIG_FILE, FILES, PARTS, named_model, read_model_manifest
from .source import source_name

# What the page shows of the results, by the hub's names where it has one.
METRICS = {"accuracy": "accuracy", "exact_match": "exact_match", "f1_macro": "f1", "f1_micro": "f1_micro"}
# Options that say nothing of the model, or something of the machine it was made on: paths, notes.
NOT_TOLD = (
    "text_column", "label_column", "workers", "tables", "vocab", "engine", "unit_timeout", "force", "verify", "device", "valid",
    "unlabelled", "checkpoint_steps", "resume", "tensorboard", "report", "note", "from_model", "lang", "rules", "max_tokens", "stage",
)  # fmt: skip


@dataclass(frozen=True)
class Pushed:
    """What was written to the hub, or would be; the fields of `push --json`."""

    repo_id: str
    url: str | None  # None: nothing was written, it was a dry run
    private: bool
    files: dict[str, int]  # names and bytes
    card: str


def push(
    model: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    license: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
) -> Pushed:
    """Write a model folder to `repo_id` on the hub, which is made where it is not there, and its page, README.md.

    `license` is a name as the hub knows them. `token` is needed where neither HF_TOKEN nor `hf auth login` gave one. With
    `dry_run` nothing is asked of the network. Raises `UlmpipeError` for a folder that is not whole, and where the hub refuses. A page that
    is there, and anyone has changed by hand, is replaced.
    """
    hub.check_names(repo_id, license)
    folder = named_model(str(model)) if isinstance(model, str) else model
    check_files(folder, read_model_manifest(folder), digests=True)
    config = read_json(folder / CONFIG_FILE)
    check_keys(config, PARTS, folder / CONFIG_FILE)
    card = make_card(config, repo_id, license=license)
    files: dict[str, Path | bytes] = {name: folder / name for name in (*FILES, MANIFEST)}
    files[hub.CARD_FILE] = card.encode("utf-8")
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    url = None if dry_run else hub.upload(repo_id, files, private=private, message="A model of ulmpipe", token=token)
    log(f"note: {CONFIG_FILE} goes as it is, with the source's name ({config['trained'].get('source')}) and all options of the training")  # fmt: skip
    return Pushed(repo_id, url, private, sizes, card)


def _judged_by(results: Mapping[str, float], n_valid: int) -> str:
    """How many documents judged a classifier, and how far its share of right ones may be off; nothing of an older model."""
    share = results.get("accuracy", results.get("exact_match"))
    return (
        f"{n_valid:,} documents, standard error {standard_error(share, n_valid):.3f}"
        if n_valid and share is not None
        else ""
    )


def make_card(config: dict[str, Any], repo_id: str, *, license: str | None = None) -> str:
    """The page of a model: what its `config.json` says, told to people, under what the hub reads (YAML)."""
    trained, recipe = config["trained"], config["recipe"]
    is_classifier = config["kind"] == CLASSIFIER
    found = {name: value for name, value in trained.get("results", {}).items() if isinstance(value, int | float)}
    options = trained.get("options", {})
    others = [name for name in changed_options(options, FinetuneConfig if is_classifier else PretrainConfig) if name not in NOT_TOLD]  # fmt: skip
    thresholds = config.get("thresholds") or [0.0] * len(config["labels"])
    told = ["valid_loss", *METRICS] if is_classifier else ["accuracy", "valid_loss"]
    results = {name: found[name] for name in told if name in found}
    metrics = {METRICS[name]: value for name, value in results.items() if name in METRICS}
    if not is_classifier and "valid_loss" in found:
        metrics = {"perplexity": perplexity(found["valid_loss"])}
        results |= metrics
    return hub.render_card(
        Path(__file__).with_name("card.md"),
        repo_id=repo_id,
        name=repo_id.split("/")[1],
        license=license,
        lang=str(recipe.get("lang", "")),
        rules=str(recipe.get("rules", "")),
        spacy=str(recipe.get("spacy", "")),
        source=source_name(str(trained.get("source", "texts"))),  # and not its path, which is nobody's business
        started_from=Path(str(trained["started_from"])).name if trained.get("started_from") else None,
        labels=dict(zip(config["labels"], thresholds, strict=False)),
        multi_label=bool(config.get("multi_label")),
        n_labels=int(trained.get("n_labels", 0)),
        judged_by=_judged_by(found, int(trained.get("n_valid", 0))) if is_classifier else "",
        max_tokens=int(trained.get("max_tokens", 0)),
        vocab_size=int(config["settings"].get("vocab_size", 0)),
        ngrams=bool(options.get("ngrams")),
        folds=trained.get("folds"),
        metrics=metrics,
        results=results,
        options={name: options[name] for name in others},
    )  # fmt: skip
