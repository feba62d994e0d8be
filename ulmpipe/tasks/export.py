"""`ulmpipe export MODEL [--format onnx]`: a classifier for programs without PyTorch, as one ONNX graph.

    ids (B, L), lengths (B,) int64 -> embedding -> LSTMs -> pooling -> two linear layers -> logits, probabilities (B, C)
                                   -> words and pairs, each once -> rows of a table, summed -> added to the logits

The graph is written node by node: dropouts fold away, whole documents are read in one piece, and no tracing decides which
sizes are fixed (none is). The tokens are not in it: `NAME.vocab.json` and the recipe in its metadata say how to make ids.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..durable import write_bytes
from ..errors import ConfigError, UlmpipeError
from ..hub import is_hub_name
from ..models import TextClassifier
from ..models.heads import NETWORK_SHARE, Standardize
from ..models.ngrams import FIRST, PRIME, SECOND, TINY, NGramScores
from .model_folder import Pretrained

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 18, 9  # the oldest that have what is needed: what reads them is onnxruntime 1.15 (2023) or newer


@dataclass(frozen=True)
class Exported:
    """What was written; the fields of `export --json`."""

    out: str
    vocab: str
    mb: float
    opset: int
    labels: list[str]


def export(model: str | Path, out: str | Path | None = None, *, format: str = "onnx") -> Exported:
    """Write a classifier as `out` (default: MODEL.onnx, of the hub's owner/name name.onnx), and its vocabulary beside it as `.vocab.json`.

    Raises `UlmpipeError` for a language model, where the extra is not installed, and before a file of another kind is replaced.
    """
    if format != "onnx":
        raise ConfigError(f"--format {format} is unknown: expected onnx")
    pretrained = Pretrained.from_pretrained(model)
    if not isinstance(pretrained.model, TextClassifier):
        raise UlmpipeError(f"export takes a classifier, and {model} is a {pretrained.kind}: finetune makes one of it")
    name = str(model).rstrip("/")  # of the hub's the last part: a folder OWNER here would hide its models
    path = Path(out) if out is not None else Path(f"{Path(name).name if is_hub_name(name) else name}.onnx")
    _check_older(path)
    written = onnx_model(pretrained).SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    vocab = path.with_suffix(".vocab.json")
    pretrained.vocab.save(vocab)
    write_bytes(path, written)
    return Exported(str(path), str(vocab), round(len(written) / 1e6, 3), OPSET, pretrained.labels)


def _check_older(path: Path) -> None:
    """Raise `UlmpipeError` where `path`, or the vocabulary beside it, is a file that no export has written."""
    vocab = path.with_suffix(".vocab.json")
    if path.exists() and not _is_own(path):
        raise UlmpipeError(f"the output {path} holds something else than an export: choose another -o")
    if vocab.exists() and not path.exists():
        raise UlmpipeError(f"the output {vocab} is there without its model: choose another -o, or remove it")


def _is_own(path: Path) -> bool:
    """Whether a file is a graph of ours."""
    onnx = _onnx()
    try:
        return onnx.load(path, load_external_data=False).producer_name == "ulmpipe"
    except Exception:  # protobuf's, of whatever kind: it is no graph
        return False


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as err:
        raise UlmpipeError("export needs the package onnx: pip install 'ulmpipe[onnx]'") from err
    return onnx


def onnx_model(pretrained: Pretrained) -> "ModelProto":
    """The graph and, as its metadata, labels, recipe, digest of the vocabulary and how documents were cut."""
    onnx = _onnx()
    from onnx import helper

    graph = Graph()
    classifier_nodes(graph, pretrained.model)  # pyright: ignore[reportArgumentType]
    if pretrained.multi_label:
        graph.add("Sigmoid", "logits", out="probabilities")
    else:
        graph.add("Softmax", "logits", out="probabilities", axis=-1)
    int64, float32 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    n_classes = len(pretrained.labels)
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "ulmpipe",
            [
                helper.make_tensor_value_info("ids", int64, ["B", "L"]),
                helper.make_tensor_value_info("lengths", int64, ["B"]),
            ],
            [helper.make_tensor_value_info(name, float32, ["B", n_classes]) for name in ("logits", "probabilities")],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ulmpipe",
        producer_version=__version__,
    )
    about = {
        "labels": pretrained.labels,
        "recipe": pretrained.recipe,
        "vocab_sha256": pretrained.vocab.sha256,
        "pad_id": pretrained.vocab.pad_id,
        "max_tokens": pretrained.trained["max_tokens"],
        **({"thresholds": pretrained.thresholds} if pretrained.multi_label else {}),
    }
    helper.set_model_props(made, {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()})
    onnx.checker.check_model(made)
    return made


class Graph:
    """Nodes and weights of an ONNX graph, in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, value: Tensor | np.ndarray) -> str:
        """Add a constant; its name."""
        from onnx import numpy_helper

        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def part(self, x: str, begin: str, end: str, *, out: str) -> str:
        """x[:, begin:end]."""
        return self.add("Slice", x, begin, end, "axis_1", out=out)

    def sort(self, x: str) -> str:
        """Sort along axis 1, (B, N) int64."""
        shape = self.add("Shape", x, out=f"{x}_shape")
        n = self.add("Slice", shape, "second_place", "end", "axis_0", out=f"n_{x}")
        return self.add("TopK", x, n, out=f"sorted_{x}", more_out=(f"{x}_places",), axis=1, largest=0)

    def add(self, op: str, *inputs: str, out: str, more_out: tuple[str, ...] = (), **attributes: Any) -> str:
        """Add a node whose first output is called `out`; its name. `more_out` are those that nothing reads."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [out, *more_out], name=out, **attributes))
        return out


def classifier_nodes(graph: Graph, model: TextClassifier) -> None:
    """What `TextClassifier.forward` does in evaluation mode, with time first, as ONNX has its LSTM."""
    for name, value in (("0", 0), ("1", 1)):
        graph.weight(name, np.array(value, np.int64))
    for name, axis in (("axis_0", 0), ("axis_1", 1), ("axis_2", 2)):
        graph.weight(name, np.array([axis], np.int64))
    encoder = model.encoder.rnn
    steps = graph.add("Transpose", "ids", out="ids_by_step", perm=[1, 0])  # (L, B)
    x = graph.add("Gather", graph.weight("embedding", encoder.embedding.weight), steps, out="vectors")  # (L, B, E)
    for n, rnn in enumerate(encoder.rnns):
        x = lstm_node(graph, x, rnn.module, f"rnns.{n}")  # pyright: ignore[reportArgumentType]
    x = pool_nodes(graph, x)  # (B, 3E)
    for n, layer in enumerate(model.head.layers):
        if isinstance(layer, Standardize):
            shifted = graph.add("Sub", x, graph.weight(f"head.{n}.mean", layer.mean), out=f"head.{n}.shifted")
            x = graph.add("Div", shifted, graph.weight(f"head.{n}.std", layer.std), out=f"head.{n}")
        elif isinstance(layer, nn.Linear):
            given = [graph.weight(f"head.{n}.{name}", value) for name, value in layer.named_parameters()]
            is_last = n == len(model.head.layers) - 1 and model.ngrams is None
            x = graph.add("Gemm", x, *given, out="logits" if is_last else f"head.{n}", transB=1)
        elif isinstance(layer, nn.ReLU):
            x = graph.add("Relu", x, out=f"head.{n}")
    if model.ngrams is not None:
        share = graph.weight("network_share", np.array(NETWORK_SHARE, np.float32))
        graph.add("Add", graph.add("Mul", x, share, out="shared"), ngram_nodes(graph, model.ngrams), out="logits")


def lstm_node(graph: Graph, x: str, lstm: nn.LSTM, name: str) -> str:
    """One LSTM layer over x (L, B, E), from a state of zeros; returns (L, B, H)."""
    w, r, b_ih, b_hh = (in_onnx_order(weight) for weight in lstm.all_weights[0])
    given = {"W": w[None], "R": r[None], "B": torch.cat([b_ih, b_hh])[None]}  # (1, 4H, E), (1, 4H, H), (1, 8H)
    names = [graph.weight(f"{name}.{key}", value) for key, value in given.items()]
    output = graph.add("LSTM", x, *names, out=f"{name}.out", hidden_size=lstm.hidden_size)  # (L, 1, B, H)
    return graph.add("Squeeze", output, "axis_1", out=name)


def in_onnx_order(weight: Tensor) -> Tensor:
    """Rows (4H, ...) of gates input, forget, cell, output, as PyTorch has them, to input, output, forget, cell."""
    i, f, g, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, g])


def pool_nodes(graph: Graph, x: str) -> str:
    """`concat_pool` over x (L, B, E): last real step, maximum and mean, pads left out; returns (B, 3E)."""
    for name, value in (("zero", 0.0), ("-inf", -np.inf)):
        graph.weight(name, np.array(value, np.float32))
    lengths = graph.add("Max", "lengths", "1", out="real_steps")  # (B,)
    n_steps = graph.add("Gather", graph.add("Shape", "ids", out="shape"), "1", out="L")
    place = graph.add("Unsqueeze", graph.add("Range", "0", n_steps, "1", out="places"), "axis_1", out="place")  # (L, 1)
    # Each (L, B, 1).
    is_real = graph.add("Unsqueeze", graph.add("Less", place, lengths, out="real"), "axis_2", out="is_real")
    last_places = graph.add("Sub", lengths, "1", out="last_places")
    is_last = graph.add("Unsqueeze", graph.add("Equal", place, last_places, out="last"), "axis_2", out="is_last")
    only_last = graph.add("Where", is_last, x, "zero", out="only_last")  # (L, B, E), as the next two
    or_zero = graph.add("Where", is_real, x, "zero", out="or_zero")
    or_less = graph.add("Where", is_real, x, "-inf", out="or_less")
    last = graph.add("ReduceSum", only_last, "axis_0", out="last_step", keepdims=0)  # (B, E)
    maximum = graph.add("ReduceMax", or_less, "axis_0", out="maximum", keepdims=0)
    total = graph.add("ReduceSum", or_zero, "axis_0", out="sum", keepdims=0)
    n_real = graph.add("Unsqueeze", graph.add("Cast", lengths, out="steps_as_float", to=1), "axis_1", out="n_real")
    mean = graph.add("Div", total, n_real, out="mean")
    return graph.add("Concat", last, maximum, mean, out="pooled", axis=1)


def ngram_nodes(graph: Graph, ngrams: NGramScores) -> str:
    """`NGramScores`: rows of words and pairs, sorted so that each counts once; returns logits (B, C)."""
    none = ngrams.shape["vocab_size"] + ngrams.shape["n_buckets"]
    numbers = {"first": FIRST, "second": SECOND, "prime": PRIME, **ngrams.shape, "none": none, "last_row": none - 1}
    for name, value in numbers.items():
        graph.weight(f"ngrams.{name}", np.array(value, np.int64))
    for name, value in (("begin", 0), ("second_place", 1), ("before_end", -1), ("end", np.iinfo(np.int64).max)):
        graph.weight(name, np.array([value], np.int64))
    words, n_words = word_nodes(graph)  # (B, L), (B, 1)
    first = graph.add("Mul", graph.part(words, "begin", "before_end", out="firsts"), "ngrams.first", out="first_hash")
    second = graph.add(
        "Mul", graph.part(words, "second_place", "end", out="seconds"), "ngrams.second", out="second_hash"
    )
    hashes = graph.add("Mod", graph.add("Add", first, second, out="both_hashes"), "ngrams.prime", out="hashes")
    buckets = graph.add("Mod", hashes, "ngrams.n_buckets", out="buckets")  # (B, L - 1)
    pairs = graph.add("Add", buckets, "ngrams.vocab_size", out="pairs")
    is_word = graph.add("Less", "steps", n_words, out="is_word")  # (B, L)
    is_pair = graph.part(is_word, "second_place", "end", out="is_pair")
    is_real = graph.add("Concat", is_word, is_pair, out="is_ngram", axis=1)  # (B, 2L - 1), as all below
    rows = graph.add("Concat", words, pairs, out="all_rows", axis=1)
    rows = graph.sort(graph.add("Where", is_real, rows, "ngrams.none", out="rows"))
    before, after = graph.part(rows, "begin", "before_end", out="rows_before"), graph.part(rows, "second_place", "end", out="rows_after")  # fmt: skip
    is_new = graph.add("Not", graph.add("Equal", before, after, out="repeats"), out="is_new")
    begins = graph.part(rows, "begin", "second_place", out="first_rows")
    is_first = graph.add(
        "Concat", graph.add("Equal", begins, begins, out="begin_is_new"), is_new, out="is_first", axis=1
    )
    counts = graph.add("And", is_first, graph.add("Less", rows, "ngrams.none", out="is_row"), out="counts")
    safe_rows = graph.add("Min", rows, "ngrams.last_row", out="safe_rows")
    picked = graph.add("Gather", graph.weight("ngrams.table", ngrams.table), safe_rows, out="picked")
    each = graph.add("Where", graph.add("Unsqueeze", counts, "axis_2", out="counts_once"), picked, "zero", out="each")
    total = graph.add("ReduceSum", each, "axis_1", out="ngram_total", keepdims=0)  # (B, C + 1)
    least = graph.weight("ngrams.tiny", np.array(TINY, np.float32))
    square = graph.add("Max", graph.part(total, "before_end", "end", out="ngram_sum"), least, out="ngram_square")
    scores = graph.part(total, "begin", "before_end", out="ngram_sums")
    scores = graph.add("Div", scores, graph.add("Sqrt", square, out="ngram_length"), out="ngram_scores")
    return graph.add("Add", scores, graph.weight("ngrams.bias", ngrams.bias), out="ngram_logits")


def word_nodes(graph: Graph) -> tuple[str, str]:
    """`only_words`: ids with special tokens and pads behind the words (B, L), and how many words there are (B, 1)."""
    steps = graph.add("Range", "0", "L", "1", out="steps")
    is_token = graph.add("Less", steps, graph.add("Unsqueeze", "lengths", "axis_1", out="row_lengths"), out="is_token")
    is_special = graph.add("Less", "ids", "ngrams.n_specials", out="is_special")
    keep = graph.add("And", is_token, graph.add("Not", is_special, out="is_no_special"), out="keep")  # (B, L)
    keys = graph.add("Where", keep, steps, graph.add("Add", steps, "L", out="steps_behind"), out="keys")
    places = graph.add("Mod", graph.sort(keys), "L", out="word_places")
    words = graph.add("GatherElements", "ids", places, out="words", axis=1)
    kept = graph.add("Cast", keep, out="kept", to=7)  # as int64
    return words, graph.add("ReduceSum", kept, "axis_1", out="n_words", keepdims=1)
