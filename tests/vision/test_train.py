"""`train` and `transfer` as functions: what they reach, write, refuse, and how they go on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from shapes import FAST, TrainedNetwork, write_folder

from ulmpipe.errors import ConfigError, OutputInUseError, SourceError, UlmpipeError
from ulmpipe.journal import newest
from ulmpipe.train import Callback, Checkpoint, Learner
from vision import train as task
from vision.model import ImageClassifier
from vision.train import train, transfer

pytestmark = pytest.mark.usefixtures("small")


def weights(folder: Path) -> torch.Tensor:
    model = ImageClassifier.from_pretrained(folder).model
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_network_learns_to_tell_colours(network: TrainedNetwork):
    result = network.result
    assert result.accuracy > 0.9 and (result.n_train, result.n_valid) == (120, 36)
    assert result.classes == ["blue", "green", "red"] and result.precision == "fp32" and result.n_quarantined == 0
    assert result.n_steps == 4 * (120 // 16) and result.images_per_s > 0 and result.out == str(network.net)


def test_what_a_training_leaves(network: TrainedNetwork):
    names = {path.name for path in network.net.iterdir()} - {".lock"}
    assert names == {"config.json", "model.safetensors", "manifest.json", "metrics.jsonl", "steps.jsonl", "layers.jsonl", "report.json", "report.html", "checkpoint-28", "batch.png", "top_losses.png"}  # fmt: skip
    assert [line["epoch"] for line in metrics(network.net)] == [0, 1, 2, 3]
    assert all(picture_size(network.net / name)[0] > 300 for name in ("batch.png", "top_losses.png"))
    config = json.loads((network.net / "config.json").read_text())
    assert config["classes"] == ["blue", "green", "red"] and config["size"] == 32 and config["flip"] is True
    assert config["trained"]["results"]["accuracy"] == network.result.accuracy
    assert {path.name.rsplit("-", 1)[0] for path in (network.folder / "decoded-pictures").iterdir()} == {
        "shapes-32",
        "shapes-valid-32",
    }


def test_the_same_seed_gives_the_same_network(network: TrainedNetwork, tmp_path: Path):
    train(network.shapes, tmp_path / "net", **FAST)
    assert torch.equal(weights(tmp_path / "net"), weights(network.net))
    train(network.shapes, tmp_path / "other", **{**FAST, "seed": 1})
    assert not torch.equal(weights(tmp_path / "other"), weights(network.net))


class StopAt(Callback):
    """Stop in the middle of an epoch, with a checkpoint behind, as a signal does."""

    order = Checkpoint.order + 1

    def __init__(self, step: int):
        self.stop_at = step

    def after_batch(self, learn: Learner) -> None:
        if learn.training and learn.step == self.stop_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4, "first_size": 16}], ids=["plain", "mixup, growing pictures"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_ends(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
):
    options = {**FAST, "epochs": 2, "checkpoint_steps": 3, **options}
    train(network.shapes, tmp_path / "ref", **options)
    whole = task.cnn_learner
    monkeypatch.setattr(task, "cnn_learner", lambda *args, **kw: whole(*args, callbacks=[StopAt(10)], **kw))
    with pytest.raises(KeyboardInterrupt):
        train(network.shapes, tmp_path / "comp", **options)
    monkeypatch.setattr(task, "cnn_learner", whole)
    with pytest.raises(UlmpipeError, match="did not finish: go on with --resume"):
        train(network.shapes, tmp_path / "comp", **options)
    with pytest.raises(ConfigError, match=r"was begun with .*seed 0, not 3"):
        train(network.shapes, tmp_path / "comp", **options, resume=True, seed=3)
    assert train(network.shapes, tmp_path / "comp", **options, resume=True, note="again").n_steps == 14
    ends = [(run["state"], run["goes_on_from"]) for run in newest(tmp_path / "journal.db", 9)]
    assert ends == [("done", 2), ("refused", 2), ("interrupted", None), ("done", None)]
    assert torch.equal(weights(tmp_path / "comp"), weights(tmp_path / "ref"))


def test_transfer_keeps_the_body_and_learns_other_classes(network: TrainedNetwork, tmp_path: Path):
    folder = write_folder(tmp_path / "two", 20, seed=5)
    for path in (folder / "red").iterdir():
        path.unlink()
    (folder / "red").rmdir()
    result = transfer(folder, network.net, tmp_path / "net", **{**OPTIONS, "head_epochs": 4, "epochs": 4})
    assert result.classes == ["blue", "green"] and result.accuracy > 0.8 and result.n_steps == 8 * 4
    body = ImageClassifier.from_pretrained(tmp_path / "net").model.get_submodule("body")
    before = ImageClassifier.from_pretrained(network.net).model
    assert body.get_submodule("stem.0.0").weight.shape == before.get_submodule("stem.0.0").weight.shape  # pyright: ignore
    assert [line["phase"] for line in metrics(tmp_path / "net")] == ["head"] * 4 + ["all"] * 4
    more = {**OPTIONS, "head_epochs": 1, "epochs": 0, "note": "all colours"}
    again = transfer(network.shapes, tmp_path / "net", tmp_path / "again", **more)
    assert again.classes == ["blue", "green", "red"]
    last, first = newest(tmp_path / "journal.db", 9)
    assert (last["task"], last["note"], last["options"]["from_model"]) == ("vision transfer", "all colours", str(tmp_path / "net"))  # fmt: skip
    assert first["result"]["accuracy"] == result.accuracy and len(first["curve"]) == 8 and first["data"]


OPTIONS = {name: value for name, value in FAST.items() if name != "first_size"}


def test_the_head_alone_leaves_the_convolutions_as_they_were(network: TrainedNetwork, tmp_path: Path):
    transfer(network.shapes, network.net, tmp_path / "net", **{**OPTIONS, "head_epochs": 1, "epochs": 0})
    before = ImageClassifier.from_pretrained(network.net).model.state_dict()
    after = ImageClassifier.from_pretrained(tmp_path / "net").model.state_dict()
    for name, value in before.items():
        if name.startswith("head."):
            continue
        same = torch.equal(value, after[f"body.{name}"])
        assert same if value.dim() == 4 else True
    moved = [
        n for n, v in before.items() if v.dim() == 1 and "head" not in n and not torch.equal(v, after[f"body.{n}"])
    ]
    assert any(name.endswith("weight") for name in moved) and any(name.endswith("running_mean") for name in moved)


def test_broken_pictures_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_folder(tmp_path / "some", 10)
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    result = train(folder, tmp_path / "net", **{**FAST, "epochs": 1})
    assert result.n_quarantined == 1 and result.n_train + result.n_valid == 30
    assert "quarantined red/broken.png: no picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 0}, "--epochs is 0, expected more than 0"),
        ({"arch": "resnet18"}, "--arch is 'resnet18', expected one of xresnet18"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"device": "gpu"}, "--device gpu is unknown"),
        ({"resume": True}, "has no checkpoint to resume from"),
        ({"mixup": -1.0}, "--mixup is -1.0, expected 0 or more"),
        ({"epoch": 3}, "unknown option 'epoch', did you mean 'epochs'?"),
    ],
)
def test_wrong_options_are_refused_before_any_work(tmp_path: Path, options: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        train(tmp_path / "nowhere", tmp_path / "net", **{**FAST, **options})
    assert not (tmp_path / "net").exists()


def test_sources_that_cannot_be_trained_on(tmp_path: Path):
    with pytest.raises(SourceError, match="does not exist and is no name"):
        train(tmp_path / "nowhere", tmp_path / "net", **FAST)
    write_folder(tmp_path / "one", 3)
    for colour in ("green", "blue"):
        for path in (tmp_path / "one" / colour).iterdir():
            path.unlink()
    with pytest.raises(SourceError, match="has 3 pictures of 1 classes, expected two at least"):
        train(tmp_path / "one", tmp_path / "net", **FAST)
    assert not (tmp_path / "net").exists()


def test_an_output_that_holds_something_else_is_refused(network: TrainedNetwork, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(UlmpipeError, match=r"holds something else \(thesis.txt\)"):
        train(network.shapes, tmp_path, **FAST)
    with pytest.raises(ConfigError, match="is the model to start from"):
        transfer(network.shapes, network.net, network.net, **OPTIONS)


def test_an_output_in_use_is_refused(network: TrainedNetwork, tmp_path: Path):
    from filelock import FileLock

    (tmp_path / "net").mkdir()
    with FileLock(tmp_path / "net/.lock"), pytest.raises(OutputInUseError, match="in use by another run"):
        train(network.shapes, tmp_path / "net", **FAST)


def test_a_run_in_progress_is_in_use_and_not_unfinished(network: TrainedNetwork, tmp_path: Path):
    from filelock import FileLock

    (tmp_path / "net" / "checkpoint-3").mkdir(parents=True)
    with FileLock(tmp_path / "net/.lock"):
        for options in ({}, {"resume": True}):
            with pytest.raises(OutputInUseError, match="in use by another run"):
                train(network.shapes, tmp_path / "net", **{**FAST, **options})


def test_few_pictures_get_smaller_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_folder(tmp_path / "few", 20)
    result = train(folder, tmp_path / "net", **{**FAST, "epochs": 1, "batch_size": 64})
    assert result.n_steps == 4 and "48 pictures are few: batches of 12" in capsys.readouterr().err


def test_few_pictures_are_enough(tmp_path: Path):
    rng_pictures = write_folder(tmp_path / "few", 2)
    result = train(rng_pictures, tmp_path / "net", **{**FAST, "epochs": 1})
    assert (result.n_train, result.n_valid, result.n_steps) == (3, 3, 1)


def test_a_training_goes_on_with_the_same_pictures_only(tmp_path: Path):
    train(write_folder(tmp_path / "some", 10), tmp_path / "net", **{**FAST, "epochs": 1})
    other = write_folder(tmp_path / "other", 10, seed=8)
    with pytest.raises(ConfigError, match=r"was begun with pictures \w+, not \w+: resume with the options"):
        train(other, tmp_path / "net", **{**FAST, "epochs": 1, "resume": True})


def test_a_run_that_died_early_does_not_stand_in_the_way(network: TrainedNetwork, tmp_path: Path):
    (tmp_path / "net").mkdir()
    for name in (".lock", "batch.png", "metrics.jsonl"):
        (tmp_path / "net" / name).touch()
    assert train(network.shapes, tmp_path / "net", **{**FAST, "epochs": 1}).n_steps == 7


def test_broken_pictures_that_are_decoded_as_it_goes_leave_steps_and_numbers_alone(tmp_path: Path):
    folder = write_folder(tmp_path / "some", 20)
    for k in range(0, 20, 3):
        (folder / "red" / f"{k:03}.png").write_bytes(b"broken")
    options = {**FAST, "epochs": 2, "batch_size": 4, "cache": "never"}
    result = train(folder, tmp_path / "net", **options)
    assert result.n_quarantined == 7 and result.n_steps == 24 and 0 <= result.accuracy <= 1 and result.valid_loss > 0
    config = json.loads((tmp_path / "net/config.json").read_text())
    assert len(config["trained"]["quarantined"]) == 7 and (tmp_path / "net/checkpoint-24").is_dir()


def test_digits_are_not_mirrored_and_not_magnified_too_far(tmp_path: Path):
    result = train("digits", tmp_path / "net", **{**OPTIONS, "size": None, "epochs": 3, "batch_size": 64})
    config = json.loads((tmp_path / "net/config.json").read_text())
    assert config["flip"] is False and (config["side"], config["size"], result.size) == (8, 32, 32)
    assert result.n_train + result.n_valid == 1797 and result.accuracy > 0.8
