"""The goal of this script is to measure what training on pictures takes and reaches: a step, the loader, whole commands.

    ULMPIPE_DATA=../shared/data python bench/vision.py [step] [loader] [train]     -> bench/results/vision.json

`step`: xresnet18, 64 pictures of 128 pixels, forward, backward and AdamW in the formats that `python -m vision train` uses,
beside the plain formulation of the same net (contiguous fp32), taken in turns, and beside its convolutions alone. First it
asserts that all compute the same.
`loader`: pictures a second on one core. `train`: the commands of README, each its own process.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import record
from bench.command import run_words
from ulmpipe.train import pick_precision
from vision.augment import Augment
from vision.data import ImageBatches, read_images
from vision.source import find_source
from vision.store import StreamedPictures
from vision.xresnet import build

BATCH_SIZE, SIZE, REPEATS = 64, 128, 7
LOADED = 2048  # pictures
TRAIN = {
    "defaults": "train imagenette -o {out}/nette",
    "5 epochs at 128": "train imagenette -o {out}/lesson --epochs 5 --first-size 128",
}
# Not measured here: on a like machine, before the work began.
FASTAI = {
    "version": "2.8.12",
    "arch": "xresnet18",
    "epochs": 5,
    "size": 128,
    "accuracy": 0.798,
    "minutes": 31,
}


# ---- a step ---------------------------------------------------------------------------------------------------------


def stepper(precision: str, memory_format: torch.memory_format) -> tuple[nn.Module, Callable[[Tensor, Tensor], float]]:
    """A network, and a training step with AdamW that returns the loss."""
    torch.manual_seed(0)
    model = build("xresnet18").to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            pred = model(x.contiguous(memory_format=memory_format))
        loss = F.cross_entropy(pred.float(), y, label_smoothing=0.1)
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss.item()

    return model, step


def convolutions_s(model: nn.Module, x: Tensor, precision: str) -> float:
    """Seconds that all convolutions of a step take by themselves, forward and backward, at the shapes of the net."""
    shapes: list[tuple[nn.Conv2d, torch.Size]] = []
    model.eval()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]

    def keep_shape(module: Any, inputs: Any) -> None:
        shapes.append((module, inputs[0].shape))

    hooks = [conv.register_forward_pre_hook(keep_shape) for conv in convs]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    model.train()
    total_s = 0.0
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for number, (conv, shape) in enumerate(shapes):
        given = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_(number > 0)
        weight = conv.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        begin_s = time.perf_counter()
        out = F.conv2d(given, weight, stride=conv.stride, padding=conv.padding)  # pyright: ignore[reportArgumentType]
        middle_s = time.perf_counter()
        grad = torch.randn_like(out)
        again_s = time.perf_counter()
        out.backward(grad)
        total_s += time.perf_counter() - again_s + middle_s - begin_s
    return total_s


def measure_step() -> dict[str, Any]:
    """Ours, ours in fp32, and plain, in turns."""
    auto = pick_precision("auto", torch.device("cpu"))
    torch.manual_seed(1)
    x, y = torch.randn(BATCH_SIZE, 3, SIZE, SIZE), torch.randint(10, (BATCH_SIZE,))
    kinds = {
        "ours": stepper(auto, torch.channels_last),
        "ours, fp32": stepper("fp32", torch.channels_last),
        "plain": stepper("fp32", torch.contiguous_format),
    }
    losses = {name: [step(x, y) for _ in range(2)] for name, (_, step) in kinds.items()}  # warm-up
    np.testing.assert_allclose(losses["ours, fp32"], losses["plain"], rtol=1e-3)
    np.testing.assert_allclose(losses["ours"], losses["plain"], rtol=3e-2)
    steps_s: dict[str, list[float]] = {name: [] for name in kinds}
    convs_s: dict[str, list[float]] = {"ours": [], "ours, fp32": []}
    for name, precision in (("ours", auto), ("ours, fp32", "fp32")):
        convolutions_s(kinds[name][0], x.contiguous(memory_format=torch.channels_last), precision)
    for _ in range(REPEATS):
        for name, (_, step) in kinds.items():
            begin_s = time.perf_counter()
            step(x, y)
            steps_s[name].append(time.perf_counter() - begin_s)
        for name, precision in (("ours", auto), ("ours, fp32", "fp32")):
            convs_s[name].append(
                convolutions_s(kinds[name][0], x.contiguous(memory_format=torch.channels_last), precision)
            )
    return {
        "precision": auto,
        "losses": losses,
        "step_s": {name: record.summary(found) for name, found in steps_s.items()},
        "convolutions_s": {name: record.summary(found) for name, found in convs_s.items()},
    }


# ---- the loader -----------------------------------------------------------------------------------------------------


def images_per_s(batches: ImageBatches, views: Augment | None = None) -> float:
    """Pictures a second on this core."""
    n, begin_s = 0, time.perf_counter()
    for index, (pictures, _) in enumerate(batches.batches(0)):
        if views:
            views.training_views(pictures, epoch=0, batch_index=index)
        n += len(pictures)
    return n / (time.perf_counter() - begin_s)


def measure_loader() -> dict[str, Any]:
    """With and without the cache, and with the views of the network, one core each."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    data = read_images("imagenette", Path("models/decoded-pictures"))
    plan = find_source("imagenette")
    assert plan is not None
    records = data.train[:LOADED]
    cached = ImageBatches(data.pictures, records, batch_size=BATCH_SIZE, shuffle=True)

    def streamed() -> ImageBatches:  # a new one reads the table again
        return ImageBatches(StreamedPictures(plan, data.pictures.side, 1), records, batch_size=BATCH_SIZE, shuffle=True)

    views = Augment(SIZE, mean=(118, 117, 110), std=(71, 70, 76))
    kinds: dict[str, Callable[[], float]] = {
        "cached": lambda: images_per_s(cached),
        "cached, with views of 128": lambda: images_per_s(cached, views),
        "decoded as it goes": lambda: images_per_s(streamed()),
        "decoded as it goes, with views of 128": lambda: images_per_s(streamed(), views),
    }
    for kind in kinds.values():
        kind()
    return {name: record.summary([kind() for _ in range(REPEATS)]) for name, kind in kinds.items()}


# ---- whole commands -------------------------------------------------------------------------------------------------


def measure_train() -> dict[str, Any]:
    """Train, then evaluate, once each."""
    found: dict[str, Any] = {"fastai": FASTAI}
    with tempfile.TemporaryDirectory() as out:
        read_images("imagenette", Path(out, "decoded-pictures"))  # decoded for both
        for name, command in TRAIN.items():
            words = command.format(out=out).split()
            trained = run(words)
            evaluated = run(["evaluate", trained["out"], "imagenette", "--tta"])
            rows = [json.loads(line) for line in Path(trained["out"], "metrics.jsonl").read_text().splitlines()]
            found[name] = {
                "command": f"python -m vision {command.format(out='models')}",
                **{
                    key: trained[key]
                    for key in ("accuracy", "seconds", "images_per_s", "precision", "n_train", "n_valid")
                },
                "with_mirror_images": evaluated["accuracy"],
                "epochs": [{key: row[key] for key in ("epoch", "valid_loss", "accuracy", "seconds")} for row in rows],
            }
    return found


def run(words: list[str]) -> dict[str, Any]:
    """Run `python -m vision WORDS --json` and return what it prints."""
    return run_words([sys.executable, "-m", "vision", *words, "--json"])


def main() -> None:
    """Measure what was asked for; the rest of the results stays as it was."""
    measures = {"step": measure_step, "train": measure_train, "loader": measure_loader}
    record.where()
    # The loader last: it keeps to one core.
    for name, measure in measures.items():
        if name in (sys.argv[1:] or measures):
            record.update("vision", name, measure())


if __name__ == "__main__":
    main()
