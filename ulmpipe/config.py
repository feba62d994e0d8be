"""The options of each command: one frozen dataclass, see options.py.

    ReadConfig                how a source is read: ulmpipe evaluate
    TokenizeConfig            ulmpipe tokenize
    HeldOutConfig             which documents are held out
    TrainConfig               what every training has in common
    PretrainConfig            ulmpipe pretrain  = tokenize + train options
    FinetuneConfig            ulmpipe finetune  = the same and its own
    ImportConfig              ulmpipe import-fastai
    DoctorConfig              ulmpipe doctor
    ServeConfig               ulmpipe serve

Where defaults stand, but for those of predicting, which are the arguments of its functions. Functions below the tasks take flat arguments and never one of these.
"""

from dataclasses import dataclass

from .errors import ConfigError
from .options import option


@dataclass(frozen=True)
class ReadConfig:
    """How a source is read."""

    text_column: str = option("text", "column of a table that holds the text")
    label_column: str = option("label", "column of a table that holds the label")
    workers: int = option(0, "processes that read and tokenize; 0: as many as processors", bound="0 or more")
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
    max_vocab: int = option(60_000, "tokens in the vocabulary at most, special tokens included", bound="more than 0")
    min_freq: int = option(2, "times a token must come to get an id", bound="more than 0")
    engine: str = option("fast", "spacy: the reference; fast: the same tokens, much sooner", choices=("fast", "spacy"))
    unit_timeout: float | None = option(
        None,
        "seconds that a worker may take for some 1 MB of text, before what it hangs on is looked for and quarantined",
        bound="more than 0",
    )
    force: bool = option(
        False,
        "begin even where the disk seems too small, and make a store again that lacks documents which killed or stopped their worker",
    )
    verify: float = option(0.001, "share of the documents that the reference tokenizes too, to compare", bound="0 to 1")
    multi_label: bool = option(False, "a document has any number of labels: the label column holds lists of them")
    label_separator: str = option("|", "between the labels of a cell that is text, with --multi-label")
    backend: str = option("loky", "where texts become tokens: processes of this machine, or a dask cluster", choices=("loky", "dask"))  # fmt: skip
    scheduler: str | None = option(None, "address of the cluster's scheduler, as tcp://host:8786, with --backend dask")

    def __post_init__(self) -> None:
        """Raise `ConfigError` for options that do not go together."""
        if self.backend == "dask" and not self.scheduler:
            raise ConfigError(
                "--backend dask needs --scheduler ADDRESS, such as tcp://host:8786, which `dask scheduler` prints"
            )
        if self.backend != "dask" and self.scheduler:
            raise ConfigError(f"--scheduler {self.scheduler} is for a cluster: add --backend dask, or leave it out")
        if self.backend == "dask" and self.unit_timeout is not None:
            raise ConfigError(
                "--unit-timeout ends processes of this machine, and no worker of a cluster: leave it out, or run without --backend dask"
            )


@dataclass(frozen=True)
class HeldOutConfig:
    """Which documents a model is judged by."""

    valid: str | None = option(None, "SOURCE of validation documents; default: some held out, by --valid-fraction")
    valid_fraction: float = option(
        0.1, "share of the documents that is held out without --valid (2,000 at most)", bound="between 0 and 1"
    )


@dataclass(frozen=True)
class TrainConfig(HeldOutConfig):
    """How a model is trained."""

    batch_size: int = option(64, "documents, or streams of text, in a batch", bound="more than 0")
    bptt: int = option(70, "tokens in a window of the language model", bound="more than 0")
    variable_bptt: bool = option(False, "draw window lengths around --bptt, as AWD-LSTM does")
    lr: float | None = option(
        None, "highest learning rate of the language model; default: by command", bound="more than 0"
    )
    max_steps: int | None = option(None, "stop the language model's training after so many steps", bound="more than 0")
    drop_mult: float = option(0.3, "multiplies the language model's dropouts; more for smaller data", bound="0 or more")
    sampled_words: int = option(
        4096,
        "words that a step of the language model scores: half of them the most frequent ones, the others drawn; 0: all",
        bound="0 or more",
    )
    seed: int = option(0, "of everything random", bound="0 or more")
    precision: str = option("auto", "number format in training; auto: bf16, on older GPUs fp16, where processor and model are made for it", choices=("auto", "fp32", "bf16", "fp16"))  # fmt: skip
    device: str = option("auto", "auto, cpu or cuda", offered=("auto", "cpu", "cuda"))
    checkpoint_steps: int = option(
        500, "write a checkpoint every so many steps; the last one is kept", bound="more than 0"
    )
    resume: bool = option(False, "go on from the output's checkpoint")
    tensorboard: bool = option(False, "write TensorBoard logs into the output folder, tensorboard/")
    report: bool = option(True, "write report.html into the model folder when it is done: see ulmpipe report")
    note: str | None = option(None, "what the journal shall say of this run: see ulmpipe journal")


@dataclass(frozen=True)
class PretrainConfig(TrainConfig, TokenizeConfig):
    """A language model from a large corpus."""

    size: str = option(
        "small",
        "model: tiny is for tests, small = 2 x 300, medium = 2 x 600, base = 3 x 1152",
        choices=("tiny", "small", "medium", "base"),
    )
    epochs: int = option(1, "times the corpus is read", bound="0 or more")


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig, TokenizeConfig):
    """A language model tuned on the target's texts, then a classifier on its labels."""

    from_model: str | None = option(
        None,
        "language model to start from, or none; default: the newest under models/, else the one in the box (en-small)",
        flag="from",
    )
    unlabelled: str | None = option(None, "SOURCE of further texts without labels, for the language model")
    stage: str = option("all", "what to train", choices=("all", "lm", "classifier"))
    n_labels: int | None = option(None, "use only so many labels, chosen by --seed", bound="more than 0")
    size: str = option("small", "model where there is none to start from", choices=("tiny", "small", "medium", "base"))
    lm_epochs: int | None = option(None, "epochs of the whole language model, after 300 steps at most of its embeddings; 0: it is not tuned; default: by the size of the corpus, 2 or 1", bound="0 or more")  # fmt: skip
    epochs: int | None = option(None, "epochs of the whole classifier, after its layers were unfrozen one by one; default: by how many documents it learns from, 8 to 1", bound="0 or more")  # fmt: skip
    classifier_lr: float = option(
        2e-3, "highest learning rate of the classifier's head, while it learns alone", bound="more than 0"
    )
    unfrozen_lr: float = option(5e-3, "the same once layers below it are trained too", bound="more than 0")
    layer_factor: float = option(
        2.0, "each layer's learning rate is the next one's divided by this", bound="more than 0"
    )
    gradual: bool = option(
        True, "unfreeze the classifier's layers one by one; else all are trained at once, for as many epochs"
    )
    ngrams: bool = option(
        True, "beside the network score the words and pairs of words of a document: better, the fewer labels the more"
    )
    self_training: bool = option(
        True,
        "with up to 5,000 labels, one a document, and as many texts without one, let the words learn from those too whose labels they guess most surely",
    )
    # The network alone is better with less (of 4,000 reviews read once right on 0.874 of 1,200 others at 0.2, on 0.868 at 0.5), but
    # surer than it should be, and no better beside the n-grams: of all of IMDB right on 0.9237 of the test reviews at 0.2, on
    # 0.9238 at 0.5. One seed each, and the last two of two language models.
    classifier_drop_mult: float = option(0.5, "multiplies the classifier's dropouts", bound="0 or more")
    max_tokens: int = option(
        1400,
        "tokens of a document that the classifier reads: the first half and the last half of so many",
        bound="more than 0",
    )
    class_weights: str = option(
        "none",
        "balanced: each class weighs as much as any other in what is learned, however often it comes",
        choices=("none", "balanced"),
    )
    label_smoothing: float = option(
        0.0,
        "share of each target that is spread over all classes: less sure of labels that may be wrong",
        bound="from 0 to below 1",
    )
    folds: int | None = option(
        None,
        "judge the classifier by so many trainings, each on all labelled documents but one part, then train it on all",
        bound="2 or more",
    )
    tune_thresholds: bool = option(
        False,
        "with --multi-label: choose for each label the probability from which it is given, by validation documents; scores told while training are those at 0.5",
    )

    def __post_init__(self) -> None:
        """Raise `ConfigError` for options that do not go together, all of them at once."""
        super().__post_init__()
        wrong: list[str] = []
        if self.multi_label and self.label_smoothing:
            wrong.append("--label-smoothing is for one label a document, expected none with --multi-label")
        if self.tune_thresholds and not self.multi_label:
            wrong.append("--tune-thresholds is for several labels a document: add --multi-label, or leave it out")
        if self.folds is not None and self.valid is not None:
            wrong.append(
                "--folds judges by parts of SOURCE, expected no --valid: evaluate says how good the model is on it"
            )
        of_classifier = {
            "--folds": self.folds,
            "--n-labels": self.n_labels,
            "--tune-thresholds": self.tune_thresholds or None,
        }
        if self.stage == "lm" and (given := [flag for flag, value in of_classifier.items() if value is not None]):
            wrong.append(
                f"{', '.join(given)} with --stage lm, which trains no classifier: give it to --stage classifier"
            )
        if self.stage == "classifier" and self.lm_epochs is not None:
            wrong.append("--lm-epochs with --stage classifier, which trains no language model: give it to --stage lm")
        if self.stage == "classifier" and self.from_model == "none":
            wrong.append("--stage classifier needs a tuned language model: --stage lm makes one, --from names one")
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True)
class ImportConfig:
    """What fastai's files do not say of themselves."""

    rules: str = option(
        "auto",
        "rules that the vocabulary was made with; auto: by its special tokens",
        choices=("auto", "default", "course", "fastai1", "fastai2"),
    )
    lang: str = option("en", "language of spaCy's tokenizer that the vocabulary was made with")
    backward: bool | None = option(None, "it was trained on texts read backward; default: if its name has bwd in it")


@dataclass(frozen=True)
class DoctorConfig(HeldOutConfig, TokenizeConfig):
    """How finetune would read the source: the same names and defaults as its own."""

    seed: int = option(0, "of the documents held out", bound="0 or more")


@dataclass(frozen=True)
class ServeConfig:
    """Where a server listens, and how much it may be asked."""

    host: str = option("127.0.0.1", "address to listen on: this machine alone, or 0.0.0.0 for whoever can reach it")
    port: int = option(8000, "port to listen on; 0: any that is free", bound="0 to 65535")
    max_texts: int = option(64, "texts of a request at most", bound="more than 0")
    max_characters: int = option(20_000, "characters of a text at most", bound="more than 0")
    max_body_kb: int = option(1024, "kilobytes of a request at most", bound="more than 0")
    max_waiting: int = option(64, "requests in hand; further ones are told to come again (503)", bound="more than 0")
