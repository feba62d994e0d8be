"""What is drawn for a batch, and what the network sees of it in training and in validation."""

import doctest

import numpy as np
import pytest
import torch
from colours import BATCH, SIDE, learner, noise
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from train.toy import same, values_of

import vision.augment
from ulmpipe.train import DebugCallback, FixedBatches, Learner
from vision.augment import (
    Augment,
    crop_resize,
    normalisation,
    random_boxes,
    random_lighting,
    sizes_of_epochs,
)

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN, STD = np.array([100, 120, 140], np.float32), np.array([40, 50, 60], np.float32)


def augment_of(learn: Learner) -> Augment:
    return next(cb for cb in learn.callbacks if isinstance(cb, Augment))


def plain_augment(seed: int = 0) -> Augment:
    return Augment(32, mean=MEAN.tolist(), std=STD.tolist(), seed=seed)


# ---- what is drawn --------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.floats(0.01, 0.75), st.integers(0, 100))
def test_boxes_lie_in_the_picture(side: int, min_scale: float, seed: int):
    boxes = random_boxes(np.random.default_rng(seed), 50, side, min_scale=min_scale)
    assert boxes.dtype == np.float32 and boxes.min() >= 0 and boxes[:, 2:].min() >= 1
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= side + 1e-3
    shares = boxes[:, 2] * boxes[:, 3] / side**2
    assert shares.min() >= min_scale * 0.999 and shares.max() <= 1.001


def test_boxes_have_the_areas_and_shapes_that_were_asked_for(rng: np.random.Generator):
    shares = random_boxes(rng, 20_000, 100, min_scale=0.3, max_stretch=1.0)[:, 2:].prod(1) / 100**2
    assert shares.mean() == pytest.approx(0.65, abs=0.01) and shares.std() == pytest.approx(0.7 / 12**0.5, abs=0.01)
    boxes = random_boxes(rng, 20_000, 100, min_scale=0.1)
    stretches = np.log(boxes[:, 3] / boxes[:, 2])
    assert np.abs(stretches).max() <= np.log(4 / 3) + 1e-5 and abs(stretches.mean()) < 0.01
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    np.testing.assert_allclose(middles.mean(0), 50, atol=0.5)


def test_boxes_are_those_of_the_seed():
    one, same_one, other = (random_boxes(np.random.default_rng(seed), 4, 50) for seed in (1, 1, 2))
    assert np.array_equal(one, same_one) and not np.array_equal(one, other)


def test_normalisation_gives_mean_0_and_deviation_1():
    pictures = noise(4).astype(np.float32)
    gains, shifts = normalisation(4, pictures.mean((0, 1, 2)), pictures.std((0, 1, 2)))
    comp = pictures * gains[:, None, None] + shifts[:, None, None]
    np.testing.assert_allclose(comp.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(comp.std((0, 1, 2)), 1, atol=1e-4)


def test_lighting_varies_contrast_and_brightness_around_nothing(rng: np.random.Generator):
    gains, shifts = normalisation(20_000, MEAN, STD)
    lit_gains, lit_shifts = random_lighting(rng, gains, shifts, strength=0.2)
    contrasts = lit_gains / gains
    brightnesses = lit_shifts - shifts * contrasts
    np.testing.assert_allclose(contrasts, contrasts[:, :1].repeat(3, 1), rtol=1e-5)  # one for the three channels
    assert contrasts.min() >= 1 / 1.2 - 1e-5 and contrasts.max() <= 1.2 + 1e-5
    assert abs(np.log(contrasts).mean()) < 0.005
    assert np.abs(brightnesses).max() <= 0.2 + 1e-5 and abs(brightnesses.mean()) < 0.005
    assert brightnesses[:, 0].std() == pytest.approx(0.4 / 12**0.5, rel=0.05)


def test_no_lighting_changes_nothing(rng: np.random.Generator):
    plain = normalisation(5, MEAN, STD)
    for ref, comp in zip(plain, random_lighting(rng, *plain, strength=0.0), strict=True):
        np.testing.assert_array_equal(comp, ref)


@given(st.integers(32, 300), st.integers(16, 300), st.integers(0, 40))
def test_sizes_grow_to_the_full_one(size: int, first_size: int, n_epochs: int):
    sizes = sizes_of_epochs(size, first_size, n_epochs)
    assert len(sizes) == n_epochs and sizes == sorted(sizes)
    if n_epochs:
        assert sizes[-1] == size and sizes[0] >= min(first_size, size)


def test_a_single_epoch_has_the_full_size():
    assert sizes_of_epochs(128, 64, 1) == [128]
    assert sizes_of_epochs(128, 64, 2) == [96, 128]


def test_examples_of_the_module_hold():
    assert doctest.testmod(vision.augment).failed == 0


# ---- what the network sees ------------------------------------------------------------------------------------------


def test_views_depend_on_seed_epoch_and_batch():
    pictures = torch.from_numpy(noise(4))
    ref = plain_augment().training_views(pictures, epoch=1, batch_index=2)
    assert torch.equal(plain_augment().training_views(pictures, epoch=1, batch_index=2), ref)
    for seed, epoch, batch_index in [(1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1)]:
        comp = plain_augment(seed).training_views(pictures, epoch=epoch, batch_index=batch_index)
        assert not torch.allclose(comp, ref)


def seen(learn: Learner, n_epochs: int = 1) -> list[tuple[bool, Tensor]]:
    told: list[tuple[bool, Tensor]] = []
    look = DebugCallback("before_batch", lambda learn: told.append((learn.training, learn.inputs[0])))
    learn.fit(n_epochs, callbacks=[look])
    return told


def test_training_sees_views_and_validation_whole_pictures():
    learn = learner()
    augment = augment_of(learn)
    told = seen(learn)
    batches = [*learn.train_dl.batches(0), *(learn.valid_dl.batches(0) if learn.valid_dl else [])]
    assert [training for training, _ in told] == [True] * 4 + [False]
    for index, ((training, comp), (pictures, _)) in enumerate(zip(told, batches, strict=True)):
        if training:
            ref = augment.training_views(pictures, epoch=0, batch_index=index)
        else:
            ref = crop_resize(pictures, augment.plain_views(len(pictures), SIDE), 32)
        assert torch.equal(comp, ref)


def test_a_whole_picture_that_is_mirrored_is_its_mirror_image():
    augment, pictures = plain_augment(), torch.from_numpy(noise(2))
    ref = crop_resize(pictures, augment.plain_views(2, SIDE), 20)
    augment.mirror = True
    comp = crop_resize(pictures, augment.plain_views(2, SIDE), 20)
    assert torch.allclose(comp, ref.flip(3), atol=1e-5)


def test_without_flip_nothing_is_mirrored(rng: np.random.Generator):
    augment = plain_augment()
    assert 0.4 < augment.random_views(rng, 1000, SIDE).flips.mean() < 0.6
    augment.flip = False
    assert not augment.random_views(rng, 1000, SIDE).flips.any()


def test_pictures_grow_and_are_full_after_the_fit():
    learn = learner(size=48, first_size=16)
    assert [picture.shape[2] for _, picture in seen(learn, 2)] == 5 * [16] + 5 * [48]
    learn.fit(3, max_steps=1)
    assert augment_of(learn).sizes == [48]
    told: list[int] = []
    learn.callbacks.append(DebugCallback("before_batch", lambda learn: told.append(learn.inputs[0].shape[2])))
    learn.active = learn.callbacks
    learn.epoch = 0
    learn.validate()
    assert told == [48]


def test_size_is_full_again_after_an_exception():
    learn = learner(size=48, first_size=16)

    def fail(learn: Learner) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        learn.fit(3, callbacks=[DebugCallback("after_loss", fail)])
    assert augment_of(learn).sizes == [48]


def test_inputs_that_are_no_bytes_pass_as_they_are():
    learn = learner()
    pictures = torch.randn(BATCH, 3, 32, 32)
    learn.train_dl = FixedBatches([(pictures, torch.zeros(BATCH, dtype=torch.int64))])
    assert torch.equal(seen(learn)[0][1], pictures)


def test_the_same_seed_trains_the_same_network():
    ref, comp, other = learner(), learner(), learner(seed=1)
    for learn in (ref, comp, other):
        learn.fit(1, lr=1e-2)
    assert same(values_of(ref.model), values_of(comp.model))
    assert not same(values_of(ref.model), values_of(other.model))
