"""A spaCy pipeline component: `nlp.add_pipe("ulmpipe_classifier", config={"model": "models/reviews"})` fills `doc.cats`.

Beside the flow, on top of tasks/predict.py. spaCy finds it by the entry point in pyproject.toml, so nothing need be imported. It
reads a document's text and not its tokens: a classifier has rules and a tokenizer of its own. It is not trained here.
spaCy imports this module wherever it makes a pipeline, so torch is imported with the model, and not before.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spacy.language import Language
from spacy.tokens import Doc

from .errors import ConfigError

if TYPE_CHECKING:
    from .tasks.predict import Predictor

MODEL_FOLDER = "model"  # within the component's folder in that of a pipeline


@Language.factory(
    "ulmpipe_classifier",
    assigns=["doc.cats"],
    default_config={"model": None, "device": "auto", "quantize": False, "precision": "fp32"},
)
def make_classifier(
    nlp: Language, name: str, model: str | None, device: str, quantize: bool, precision: str
) -> "UlmpipeClassifier":
    """Make the component. The arguments but the first two are those of `ulmpipe.from_pretrained`.

    The model is loaded when the first document comes: a pipeline that is loaded from a folder brings its own.
    """
    return UlmpipeClassifier(model, device=device, quantize=quantize, precision=precision)


class UlmpipeClassifier:
    """Documents in, the same with the probability of each label in `doc.cats` out."""

    def __init__(self, model: str | None, *, device: str = "auto", quantize: bool = False, precision: str = "fp32"):
        self.model, self.device, self.quantize, self.precision = model, device, quantize, precision
        self._predictor: Predictor | None = None

    @property
    def predictor(self) -> "Predictor":
        """The classifier, loaded. Raises `UlmpipeError` for a model that is none."""
        if self._predictor is None:
            if self.model is None:
                raise ConfigError('ulmpipe_classifier has no model: nlp.add_pipe("ulmpipe_classifier", config={"model": FOLDER})')  # fmt: skip
            self._load(self.model)
            assert self._predictor is not None
        return self._predictor

    def _load(self, folder: str | Path) -> None:
        from .tasks.predict import from_pretrained

        self._predictor = from_pretrained(folder, device=self.device, quantize=self.quantize, precision=self.precision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the model's order; none before it is loaded, for spaCy asks while it makes a pipeline."""
        return tuple(self._predictor.labels) if self._predictor is not None else ()

    def __call__(self, doc: Doc) -> Doc:
        """Classify one document. Many are sooner done by `nlp.pipe`."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Classify documents, `batch_size` of them together, in their order."""
        stream = iter(stream)
        while docs := list(islice(stream, batch_size)):
            for doc, prediction in zip(docs, self.predictor.predict([doc.text for doc in docs]), strict=True):
                doc.cats.update(prediction.probabilities)
                yield doc

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the model into the pipeline's folder: with it the pipeline needs no other. Called by `nlp.to_disk`."""
        Path(path).mkdir(parents=True, exist_ok=True)
        self.predictor.save_pretrained(Path(path) / MODEL_FOLDER)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "UlmpipeClassifier":
        """Load the model that `to_disk` wrote. Called by `spacy.load`."""
        self._load(Path(path) / MODEL_FOLDER)
        return self
