"""What is held out is fair and stays the same, and an epoch's batches are decided by its seed and number alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ulmpipe.errors import SourceError
from vision.data import ImageBatches, ImageData, channel_stats, gather, hold_out, read_images, usable
from vision.source import find_source
from vision.store import Pictures, StreamedPictures

from .pictures import pixels_of, png, write_classes

SIDE = 6


def read(source: Path | str, beside: Path, **options: Any) -> ImageData:
    chosen: dict[str, Any] = {"side": SIDE, "workers": 1}
    return read_images(str(source), beside, **(chosen | options))


@pytest.fixture
def data_of_12(tmp_path: Path) -> ImageData:
    """12 pictures of two classes; 2 of the first and 1 of the second are held out."""
    return read(write_classes(tmp_path / "pets", {"cat": 8, "dog": 4}), tmp_path)


def batches_of(pictures: Pictures, records: list[int], **options: Any) -> ImageBatches:
    return ImageBatches(pictures, np.array(records), **({"batch_size": 4, "shuffle": True} | options))


def records_of(batches: ImageBatches, epoch: int, start: int = 0) -> list[list[int]]:
    """The records of each batch, known by their pixels."""
    known = {pixels.tobytes(): record for record, pixels in enumerate(pixels_of(batches.pictures))}
    found = list(batches.batches(epoch, start))
    assert all(x.dtype == torch.uint8 and y.dtype == torch.int64 and len(x) == len(y) for x, y in found)
    records = [[known[pixels.numpy().tobytes()] for pixels in x] for x, _ in found]
    assert [y.tolist() for _, y in found] == [batches.pictures.labels[numbers].tolist() for numbers in records]
    return records


# ---- what is held out -----------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_hold_out_takes_its_share_of_every_class(sizes: list[int], fraction: float, seed: int):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
    records = np.arange(len(labels))
    if max(sizes) < 2:
        with pytest.raises(SourceError, match="one picture of each class: give more, or --valid SOURCE"):
            hold_out(labels, fraction, seed)
        return
    train, held_out = hold_out(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), records)
    assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()
    for label, size in enumerate(sizes):
        n = int((labels[held_out] == label).sum())
        assert abs(n - fraction * size) <= 1 and (n == 0 if size < 2 else 1 <= n < size)


def test_hold_out_is_decided_by_the_seed_and_leaves_out_what_has_no_label(rng: np.random.Generator):
    labels = rng.integers(-1, 3, 50)
    ref = hold_out(labels, 0.3, 5)
    assert all(np.array_equal(a, b) for a, b in zip(hold_out(labels, 0.3, 5), ref, strict=True))
    assert not np.array_equal(hold_out(labels, 0.3, 6)[1], ref[1])
    assert np.array_equal(np.sort(np.concatenate(ref)), np.flatnonzero(labels >= 0))


# ---- batches --------------------------------------------------------------------------------------------------------


def test_batches_are_decided_by_seed_and_epoch(data_of_12: ImageData):
    first, other = (batches_of(data_of_12.pictures, [*range(12)], seed=seed) for seed in (3, 4))
    again = batches_of(data_of_12.pictures, [*range(12)], seed=3)
    assert records_of(first, 0) == records_of(again, 0) and records_of(first, 7) == records_of(again, 7)
    assert len({str(records_of(*which)) for which in [(first, 0), (first, 1), (other, 0), (other, 1)]}) == 4


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("start", range(5))
def test_batches_resume_where_they_were(data_of_12: ImageData, start: int, shuffle: bool):
    batches = batches_of(data_of_12.pictures, [*range(11)], batch_size=3, shuffle=shuffle)
    assert records_of(batches, 2, start) == records_of(batches, 2)[start:]


@pytest.mark.parametrize(("batch_size", "n_batches"), [(1, 11), (3, 3), (4, 2), (11, 1), (64, 1)])
def test_training_sees_a_picture_once_at_most_and_no_partial_batch(
    data_of_12: ImageData, batch_size: int, n_batches: int
):
    batches = batches_of(data_of_12.pictures, [*range(1, 12)], batch_size=batch_size)
    left_out = []
    for epoch in range(3):
        found = records_of(batches, epoch)
        assert len(batches) == len(found) == n_batches and {len(records) for records in found} == {min(batch_size, 11)}
        seen = [record for records in found for record in records]
        assert len(set(seen)) == len(seen) and set(seen) <= set(range(1, 12))
        left_out.append(set(range(1, 12)) - set(seen))
    assert batch_size != 4 or left_out[0] != left_out[1]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 64])
def test_validation_sees_every_picture_once_in_order(data_of_12: ImageData, batch_size: int):
    batches = batches_of(data_of_12.pictures, [*range(1, 12)], batch_size=batch_size, shuffle=False)
    found = records_of(batches, 0)
    assert len(batches) == len(found) and sum(found, []) == [*range(1, 12)] and found == records_of(batches, 1)


def test_train_and_valid_batches_share_no_picture(data_of_12: ImageData):
    train, valid = data_of_12.batches(batch_size=3, seed=1)
    seen, held_out = sum(records_of(train, 0), []), sum(records_of(valid, 0), [])
    assert len(train) == 3 and len(valid) == 1 and valid.batch_size == 3
    assert sorted(seen + held_out) == list(range(12)) and data_of_12.pictures.labels[held_out].tolist() == [0, 0, 1]


def test_no_pictures_no_batches(data_of_12: ImageData):
    for shuffle in (True, False):
        batches = batches_of(data_of_12.pictures, [], shuffle=shuffle)
        assert len(batches) == 0 and list(batches.batches(0)) == []


# ---- what is known of the pictures ----------------------------------------------------------------------------------


def test_channel_stats_are_those_of_all_pixels(tmp_path: Path):
    pictures = read(write_classes(tmp_path / "pets", {"a": 200, "b": 99}, side=3), tmp_path).pictures
    records = np.arange(3, 290, dtype=np.int64)
    values = pixels_of(pictures, records.tolist()).reshape(-1, 3) / 1.0
    comp = channel_stats(pictures, records)
    assert np.allclose(comp.mean, values.mean(0), rtol=0, atol=5e-4)
    assert np.allclose(comp.std, values.std(0), rtol=0, atol=5e-4)


def test_channel_stats_of_many_pictures_take_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pictures = read(write_classes(tmp_path / "pets", {"a": 10, "b": 2}), tmp_path).pictures
    monkeypatch.setattr("vision.data.STATS_PICTURES", 5)
    values = pixels_of(pictures, [0, 3, 6, 9]).reshape(-1, 3) / 1.0
    assert np.allclose(channel_stats(pictures, np.arange(12)).mean, values.mean(0), rtol=0, atol=5e-4)


def test_channel_stats_of_one_colour_can_be_divided_by(tmp_path: Path):
    for name in "ab":
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.ppm").write_bytes(b"P6 2 2 255\n" + bytes([7, 8, 9] * 4))
    plan = find_source(str(tmp_path / "pets"))
    assert plan is not None
    assert channel_stats(StreamedPictures(plan, 2, 1), np.arange(2)) == ((7, 8, 9), (1, 1, 1))


def test_channel_stats_without_a_picture_say_so(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"broken")
    plan = find_source(str(tmp_path))
    assert plan is not None
    for records in (np.arange(1), np.arange(0)):
        with pytest.raises(SourceError, match=f"not one of {len(records)} pictures can be decoded"):
            channel_stats(StreamedPictures(plan, 2, 1), records)


def test_gather(data_of_12: ImageData):
    comp = gather(data_of_12.pictures, [5, 0, 5])
    assert comp.dtype == torch.uint8 and np.array_equal(comp, pixels_of(data_of_12.pictures)[[5, 0, 5]])


# ---- from a source --------------------------------------------------------------------------------------------------


def test_broken_and_unlabelled_pictures_are_in_neither_part(tmp_path: Path):
    pictures, labels = [png(n) for n in range(9)], [0, 1, 0, 1, None, 0, 1, 0, 1]
    pq.write_table(pa.table({"image": [b"x", *pictures[1:]], "label": labels}), tmp_path / "a.parquet")
    comp = read(tmp_path / "a.parquet", tmp_path / "kept", valid_fraction=0.4)
    assert sorted([*comp.train, *comp.valid]) == [1, 2, 3, 5, 6, 7, 8] and len(comp.valid) in (3, 4)
    assert comp.n_quarantined == 1 and usable(comp.pictures).tolist() == [1, 2, 3, 5, 6, 7, 8]


def test_the_sources_own_validation_split_is_used(tmp_path: Path):
    write_classes(tmp_path / "pets/train", {"a": 3, "b": 2})
    write_classes(tmp_path / "pets/val", {"a": 1, "b": 2}, seed=50)
    (tmp_path / "pets/val/b/01.png").write_bytes(b"broken")
    comp = read(tmp_path / "pets", tmp_path / "kept")
    assert comp.train.tolist() == [0, 1, 2, 3, 4] and comp.valid.tolist() == [0, 1] and comp.n_quarantined == 1
    assert comp.classes == ["a", "b"] and comp.valid_pictures is not comp.pictures
    assert sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "kept").iterdir()) == ["pets-6", "pets-valid-6"]


@pytest.mark.parametrize("split", ["", "val"])
def test_another_validation_source_goes_before_its_own(tmp_path: Path, split: str):
    write_classes(tmp_path / "pets/train", {"a": 3, "b": 2})
    write_classes(tmp_path / "pets/val", {"a": 1, "b": 1}, seed=50)
    write_classes(tmp_path / "others" / split, {"a": 4, "b": 1}, seed=90)
    assert len(read(tmp_path / "pets", tmp_path / "kept", valid=str(tmp_path / "others")).valid) == 5


@pytest.mark.parametrize("cache", ["always", "never"])
def test_cached_and_streamed_pictures_give_the_same_batches(tmp_path: Path, cache: str):
    write_classes(tmp_path / "pets", {"a": 5, "b": 5})
    ref, _ = read(tmp_path / "pets", tmp_path / "ref").batches(batch_size=3)
    comp, _ = read(tmp_path / "pets", tmp_path / "comp", cache=cache).batches(batch_size=3)
    for (ref_x, ref_y), (x, y) in zip(ref.batches(1), comp.batches(1), strict=True):
        assert torch.equal(x, ref_x) and torch.equal(y, ref_y)


def test_classes_that_differ_are_refused(tmp_path: Path):
    write_classes(tmp_path / "pets/train", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "pets/val", {"cat": 2, "newt": 2})
    with pytest.raises(
        SourceError, match="has pictures of newt, which training did not know: expected cat, dog; rename"
    ):
        read(tmp_path / "pets", tmp_path / "kept")


@pytest.mark.parametrize(("sizes", "n"), [({"cat": 3}, 1), ({".": 3}, 0)])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, sizes: dict[str, int], n: int):
    write_classes(tmp_path / "pets", sizes)
    with pytest.raises(SourceError, match=f"pictures of {n} classes, expected two at least"):
        read(tmp_path / "pets", tmp_path / "kept")


def test_a_validation_split_alone_is_refused(tmp_path: Path):
    write_classes(tmp_path / "pets/val", {"a": 1, "b": 1})
    with pytest.raises(SourceError, match="has no training pictures: expected a folder train beside its val"):
        read(tmp_path / "pets", tmp_path / "kept")


@pytest.mark.parametrize("which", ["training", "validation"])
def test_a_part_without_a_usable_picture_is_refused(tmp_path: Path, which: str):
    import datasets

    features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["a", "b"])})
    for part in ("training", "validation"):
        labels = [None, None] if part == which else [0, 1]
        table = pa.table({"image": [png(1), png(2)], "label": pa.array(labels, pa.int64())})
        pq.write_table(table.cast(features.arrow_schema), tmp_path / f"{part}.parquet")
    with pytest.raises(SourceError, match=f"not one of 2 {which} pictures has a label and can be decoded"):
        read(tmp_path, tmp_path / "kept")


@pytest.mark.data
def test_imagenette(data: Path):
    train, valid = (find_source(str(data / "imagenette160"), split) for split in ("train", "valid"))
    assert train is not None and valid is not None and train.classes == valid.classes
    pictures = StreamedPictures(train, 160, workers=1)
    first = gather(pictures, [0, 9_468])
    assert first.shape == (2, 160, 160, 3) and first.float().std() > 20 and not pictures.quarantined
