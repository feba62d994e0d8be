"""The resizing kernel against its slow twin, Pillow and the matrices that a GPU uses."""

import numpy as np
import pytest
import reference
import torch
from colours import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vision import kernels
from vision.augment import Views, crop_resize, crop_resize_by_matrices, random_boxes, whole


def views(n: int, side: int, seed: int = 0) -> Views:
    """Boxes down to a fiftieth of the picture, any flips, gains and shifts."""
    rng = np.random.default_rng(seed)
    gains, shifts = rng.uniform(0.5, 2, (n, 3)).astype(np.float32), rng.uniform(-5, 5, (n, 3)).astype(np.float32)
    return Views(random_boxes(rng, n, side, min_scale=0.02, max_stretch=3.0), rng.random(n) < 0.5, gains, shifts)


def plain(boxes: np.ndarray) -> Views:
    n = len(boxes)
    return Views(boxes, np.zeros(n, bool), np.ones((n, 3), np.float32), np.zeros((n, 3), np.float32))


@settings(max_examples=12)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_kernel_is_its_slow_twin(side: int, size: int, seed: int):
    pictures, how = noise(2, side, seed), views(2, side, seed)
    ref = reference.crop_resize(pictures, *how, size)
    np.testing.assert_allclose(kernels.crop_resize(pictures, *how, size), ref, rtol=1e-5, atol=1e-3)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_kernel_is_two_matrix_products(side: int, size: int, seed: int):
    pictures, how = torch.from_numpy(noise(3, side, seed)), views(3, side, seed)
    ref, comp = crop_resize_by_matrices(pictures, how, size), crop_resize(pictures, how, size)
    assert comp.shape == (3, 3, size, size) and comp.dtype == torch.float32
    assert comp.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(comp, ref, rtol=1e-4, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [32, 128, 200])
def test_gpu_cuts_the_same_views(size: int):
    pictures, how = torch.from_numpy(noise(8, 160)), views(8, 160)
    comp = crop_resize(pictures.cuda(), how, size).cpu()
    assert torch.allclose(comp, crop_resize(pictures, how, size), rtol=1e-3, atol=0.5)  # TF32 in matrix products


@pytest.mark.parametrize("size", [5, 31, 64, 100])
def test_kernel_is_pillow_without_its_rounding(size: int):
    pictures, how = noise(4, 64), plain(views(4, 64).boxes)
    comp = kernels.crop_resize(pictures, *how, size)
    for picture, (top, left, height, width), one in zip(pictures, how.boxes.tolist(), comp, strict=True):
        box = (left, top, min(64.0, left + width), min(64.0, top + height))
        ref = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, box=box)
        assert np.abs(np.asarray(ref, np.float32) - one).max() <= 1.01


def test_whole_picture_at_its_own_size_is_itself():
    pictures = noise(3, 17)
    np.testing.assert_array_equal(kernels.crop_resize(pictures, *plain(whole(3, 17)), 17), pictures)


def test_flip_mirrors_left_and_right():
    pictures, how = noise(2, 12), plain(whole(2, 12))
    comp = kernels.crop_resize(pictures, *how._replace(flips=np.array([True, False])), 12)
    np.testing.assert_array_equal(comp[0], pictures[0, :, ::-1])
    np.testing.assert_array_equal(comp[1], pictures[1])


def test_one_colour_stays_what_it_is():
    comp = kernels.crop_resize(np.full((5, 30, 30, 3), 200, np.uint8), *plain(views(5, 30).boxes), 13)
    np.testing.assert_allclose(comp, 200, rtol=1e-6)


def test_pictures_need_not_be_contiguous():
    pictures, how = noise(6, 10), plain(whole(3, 10))
    ref = kernels.crop_resize(pictures[::2].copy(), *how, 7)
    np.testing.assert_array_equal(kernels.crop_resize(pictures[::2], *how, 7), ref)


def test_no_pictures_give_none():
    assert kernels.crop_resize(noise(0, 10), *plain(whole(0, 10)), 7).shape == (0, 7, 7, 3)


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, -0.5, 5, 5), (6, 0, 5, 5), (0, 0, 5, 11), (0, 0, 0, 5), (0, 0, 5, -2), (0, 0, np.nan, 5)]
)
def test_box_outside_of_its_picture_is_refused(box: tuple[float, ...]):
    boxes = np.array([(0, 0, 10, 10), box], np.float32)
    with pytest.raises(ValueError, match="out of its picture of 10 x 10"):
        kernels.crop_resize(noise(2, 10), *plain(boxes), 4)


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("pictures", np.zeros((2, 10, 9, 3), np.uint8)),
        ("pictures", np.zeros((2, 10, 10, 4), np.uint8)),
        ("pictures", np.zeros((2, 10, 10), np.uint8)),
        ("pictures", np.zeros(2, np.uint8)),
        ("boxes", np.ones((2, 3), np.float32)),
        ("boxes", np.ones((3, 4), np.float32)),
        ("flips", np.zeros(1, bool)),
        ("gains", np.ones((2, 1), np.float32)),
        ("shifts", np.ones(2, np.float32)),
    ],
)
def test_wrong_shapes_are_refused(name: str, wrong: np.ndarray):
    arrays = {"pictures": noise(2, 10), **plain(whole(2, 10))._asdict(), name: wrong}
    with pytest.raises(ValueError, match=r"expected \(B, S, S, 3\)"):
        kernels.crop_resize(**arrays, size=4)
