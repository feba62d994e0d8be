"""A small corpus that can be learned: sentences made from seeded templates, good words in one class and bad in the other."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

GOOD = ("brilliant", "moving", "charming", "superb", "joyful")
BAD = ("dull", "clumsy", "tedious", "awful", "lifeless")
THINGS = ("plot", "cast", "score", "camera", "ending", "script", "pace", "dialogue")
FRAMES = (
    "The {thing} was {word}, and the {other} {word2} too.",
    "I found the {thing} {word} from the first scene on.",
    "A {word} {thing}; I will tell all my friends about its {word2} {other}.",
    "What a {word} film! Its {thing} is {word2}.",
)

Doc = tuple[str, str]  # text, label


def make_docs(n: int, seed: int = 0) -> list[Doc]:
    """`n` documents of one to three sentences, the labels `pos` and `neg` in turn."""
    rng = random.Random(seed)
    docs: list[Doc] = []
    for i in range(n):
        words, label = (GOOD, "pos") if i % 2 else (BAD, "neg")
        sentences = [
            rng.choice(FRAMES).format(
                thing=rng.choice(THINGS), other=rng.choice(THINGS), word=rng.choice(words), word2=rng.choice(words)
            )
            for _ in range(rng.randint(1, 3))
        ]
        docs.append((" ".join(sentences), label))
    return docs


def write_csv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write a table and return its path."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


# What a model is trained with in the tests: seconds, and the two classes are told apart.
READ = {"workers": 1}
TINY_LM = {**READ, "size": "tiny", "batch_size": 8, "bptt": 20, "epochs": 9, "max_steps": 40, "lr": 1e-2}
TINY_CLASSIFIER = {
    **READ, "batch_size": 16, "bptt": 20, "max_steps": 10, "epochs": 3,
    "classifier_lr": 1e-2, "unfrozen_lr": 1e-2, "layer_factor": 1.1, "classifier_drop_mult": 0.0,
}  # fmt: skip


class Trained:
    """A folder with texts, a language model `lm` and a classifier `clf` made of them. To be read, never written."""

    def __init__(self, folder: Path):
        from ulmpipe.tasks.finetune import finetune
        from ulmpipe.tasks.pretrain import pretrain

        self.folder, self.lm, self.clf = folder, folder / "lm", folder / "clf"
        self.train = write_csv(folder / "train.csv", make_docs(200))
        self.test = write_csv(folder / "test.csv", make_docs(60, seed=1))
        self.pretrained = pretrain(self.train, self.lm, **TINY_LM)
        self.finetuned = finetune(self.train, self.clf, from_model=str(self.lm), **TINY_CLASSIFIER)
        manifests = (folder / "tokens").glob("train-*/manifest.json")  # of both trainings: one has labels
        self.store = next(path.parent for path in manifests if json.loads(path.read_text())["labels"])


def files_below(folder: Path) -> set[str]:
    """Names of all files below a folder but locks, which mean nothing once they are released."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder itself but its lock, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def weights(folder: Path) -> bytes:
    """Those of the model in a folder: the same bytes are the same model."""
    return (folder / "model.safetensors").read_bytes()
