"""`evaluate` and `predict`: the numbers of known predictions, and one line for each picture that can't be read."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import COLOURS, FAST, TrainedNetwork, make_picture, write_folder

from ulmpipe.errors import ConfigError, SourceError, StoreError
from vision.evaluate import Prediction, evaluate, predict
from vision.model import ImageClassifier
from vision.train import train

pytestmark = pytest.mark.usefixtures("small")


def test_evaluation_agrees_with_the_training_and_with_single_predictions(network: TrainedNetwork):
    found = evaluate(network.net, network.shapes, device="cpu", workers=1)
    assert found.accuracy == pytest.approx(network.result.accuracy) and found.n == 36
    single = list(predict(network.net, [network.shapes / "val"], device="cpu"))
    confusion = np.zeros((3, 3), int)
    for prediction in single:
        assert prediction.label is not None
        confusion[found.labels.index(Path(prediction.path).parent.name), found.labels.index(prediction.label)] += 1
    assert confusion.tolist() == found.confusion
    own = [-np.log(p.probabilities[Path(p.path).parent.name]) for p in single]
    assert np.mean(own) == pytest.approx(found.loss, abs=1e-4)


def test_probabilities_add_up_and_the_largest_is_the_label(network: TrainedNetwork):
    for prediction in predict(network.net, [network.shapes / "val" / "red"], device="cpu"):
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.probability == max(prediction.probabilities.values())
        assert prediction.probabilities[str(prediction.label)] == prediction.probability


def test_a_batch_gives_what_single_pictures_give(network: TrainedNetwork):
    files = sorted((network.shapes / "val").rglob("*.png"))
    together = [p.probabilities for p in predict(network.net, files, device="cpu")]
    model = ImageClassifier.from_pretrained(network.net)
    alone = [next(iter(predict(model, [file]))).probabilities for file in files]
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_pictures_that_cannot_be_read_say_why_and_keep_their_place(network: TrainedNetwork, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    make_picture("green", np.random.default_rng(3)).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"<html>")
    found = list(predict(network.net, [tmp_path], device="cpu"))
    assert [(p.label, p.reason) for p in found] == [(None, "the file is empty"), ("green", None), (None, "no picture")]
    assert found[0] == Prediction(None, None, {}, str(tmp_path / "a.png"), "the file is empty")
    with pytest.raises(SourceError, match=r"nowhere.png does not exist"):
        list(predict(network.net, [tmp_path / "nowhere.png"], device="cpu"))


def test_pictures_of_other_sizes_and_modes_are_predicted(network: TrainedNetwork, tmp_path: Path):
    picture = make_picture("red", np.random.default_rng(5))
    picture.resize((320, 320), Image.Resampling.NEAREST).convert("CMYK").save(tmp_path / "large.jpg", quality=95)
    picture.resize((90, 70)).convert("RGBA").save(tmp_path / "alpha.png")
    assert [p.label for p in predict(network.net, [tmp_path], device="cpu")] == ["red", "red"]


def test_mirror_images_are_averaged(network: TrainedNetwork):
    plain, both = (evaluate(network.net, network.shapes, device="cpu", workers=1, tta=tta) for tta in (False, True))
    assert both.loss != plain.loss and abs(both.accuracy - plain.accuracy) < 0.1


def test_what_was_held_out_is_measured_where_the_source_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = write_folder(tmp_path / "some", 20)
    result = train(folder, tmp_path / "net", **FAST)
    found = evaluate(tmp_path / "net", folder, device="cpu", workers=1)
    assert found.n == result.n_valid == 12 and found.accuracy == pytest.approx(result.accuracy)
    assert "was trained on: measuring on what was held out" in capsys.readouterr().err
    other = write_folder(tmp_path / "other", 5, seed=9)
    assert evaluate(tmp_path / "net", other, device="cpu", workers=1).n == 15


def test_held_out_pictures_are_the_same_whatever_is_broken(tmp_path: Path):
    folder = write_folder(tmp_path / "some", 20)
    (folder / "green" / "000.png").write_bytes(b"broken")
    result = train(folder, tmp_path / "net", **{**FAST, "epochs": 1})
    found = evaluate(tmp_path / "net", str(folder) + "/", device="cpu", workers=1)
    assert found.n == result.n_valid and found.accuracy == pytest.approx(result.accuracy)


def test_pictures_that_were_all_trained_on_are_not_measured(
    network: TrainedNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = write_folder(tmp_path / "some", 8)
    valid = str(network.shapes / "val")
    train(folder, tmp_path / "net", **{**FAST, "epochs": 1, "valid": valid})
    with pytest.raises(
        SourceError, match=f"was trained on, all of it: measure on other pictures, {valid} for instance"
    ):
        evaluate(tmp_path / "net", folder, device="cpu", workers=1)
    make_picture("red", np.random.default_rng(9)).save(folder / "red" / "new.png")
    assert evaluate(tmp_path / "net", folder, device="cpu", workers=1).n == 25
    assert "has changed since it was trained on" in capsys.readouterr().err


def test_where_nothing_can_be_read_there_is_nothing_to_measure(network: TrainedNetwork, tmp_path: Path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(b"?")
    with pytest.raises(SourceError, match="not one of 1 pictures can be decoded: no picture"):
        evaluate(network.net, tmp_path, device="cpu", workers=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty holds no pictures: expected files that end in .jpg"):
        list(predict(network.net, [tmp_path / "empty"], device="cpu"))


def test_a_source_with_some_of_the_classes_is_measured(network: TrainedNetwork, tmp_path: Path):
    folder = tmp_path / "some"
    (folder / "red").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(4):
        make_picture("red", rng).save(folder / "red" / f"{k}.png")
    (folder / "red" / "bad.png").write_bytes(b"?")
    found = evaluate(network.net, folder, device="cpu", workers=1)
    assert found.n == 4 and found.quarantined == {"red/bad.png": "no picture"} and found.labels == sorted(COLOURS)
    assert sum(found.confusion[2]) == 4 and sum(map(sum, found.confusion)) == 4


def test_sources_and_models_that_do_not_fit(network: TrainedNetwork, tmp_path: Path):
    (tmp_path / "newt").mkdir()
    make_picture("red", np.random.default_rng(0)).save(tmp_path / "newt" / "a.png")
    with pytest.raises(
        SourceError, match="has pictures of newt, which training did not know: expected blue, green, red; rename"
    ):
        evaluate(network.net, tmp_path, device="cpu", workers=1)
    flat = tmp_path / "flat"
    flat.mkdir()
    make_picture("red", np.random.default_rng(0)).save(flat / "a.png")
    with pytest.raises(SourceError, match="has no labels"):
        evaluate(network.net, flat, device="cpu", workers=1)
    with pytest.raises(StoreError, match="expected an image classifier"):
        evaluate(tmp_path / "nowhere", network.shapes)
    with pytest.raises(ConfigError, match="unknown option 'worker'"):
        evaluate(network.net, network.shapes, worker=1)


def test_predictions_can_be_written_as_json(network: TrainedNetwork):
    (prediction,) = predict(network.net, [next((network.shapes / "val").rglob("*.png"))], device="cpu")
    assert json.loads(json.dumps(prediction.__dict__))["label"] == prediction.label


def test_what_is_no_plain_file_is_not_waited_for(network: TrainedNetwork, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    (said,) = predict(network.net, [tmp_path / "pipe.png"], device="cpu")
    assert said.reason == "it is no plain file"
