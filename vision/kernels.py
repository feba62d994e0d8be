"""The numba kernel that cuts boxes out of pictures and resizes them, a batch at a time, on a processor.

Plain arrays in, plain arrays out; `augment.py` chooses the boxes, and does the same with torch on a GPU. Its slow and
obvious twin is `tests.reference.crop_resize`, and Pillow's `resize` with a box.
"""

import numba
import numpy as np
from numpy.typing import NDArray


def crop_resize(
    pictures: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    flips: NDArray[np.bool_],
    gains: NDArray[np.float32],
    shifts: NDArray[np.float32],
    size: int,
) -> NDArray[np.float32]:
    """Cut one box out of each picture, resize it with antialiasing, and return `gain * value + shift`.

    pictures: (B, S, S, 3) uint8. boxes: (B, 4) float32, top, left, height, width in pixels, within the picture. flips:
    (B,) bool, mirror it. gains, shifts: (B, 3) float32. Returns (B, size, size, 3) float32.

    The filter is a triangle as wide as the scale, as in Pillow's BILINEAR, without its rounding in between.
    """
    B, side = (*pictures.shape, 0, 0)[:2]
    shapes = [a.shape for a in (pictures, boxes, flips, gains, shifts)]
    if shapes != [(B, side, side, 3), (B, 4), (B,), (B, 3), (B, 3)]:
        raise ValueError(f"pictures, boxes, flips, gains and shifts are {', '.join(map(str, shapes))}: expected (B, S, S, 3), (B, 4), (B,), (B, 3), (B, 3)")  # fmt: skip
    if len(boxes) and not (boxes[:, :2].min() >= 0 and (boxes[:, :2] + boxes[:, 2:]).max() <= side + 1e-3 and boxes[:, 2:].min() > 0):  # fmt: skip
        raise ValueError(f"a box reaches out of its picture of {side} x {side} pixels")
    out = np.empty((len(pictures), size, size, 3), np.float32)
    most_taps = int(2 * max(1.0, side / size)) + 3
    _crop_resize(np.ascontiguousarray(pictures), boxes, flips, gains, shifts, most_taps, out)
    return out


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _crop_resize(pictures, boxes, flips, gains, shifts, most_taps, out):
    size, side = out.shape[1], pictures.shape[1]
    first_y, first_x = np.empty(size, np.int64), np.empty(size, np.int64)
    n_y, n_x = np.empty(size, np.int64), np.empty(size, np.int64)
    weight_y, weight_x = np.empty((size, most_taps), np.float32), np.empty((size, most_taps), np.float32)
    row = np.empty(side * 3, np.float32)
    for b in range(len(pictures)):
        flat = pictures[b].reshape(side, side * 3)
        triangle(boxes[b, 0], boxes[b, 2], side, first_y, n_y, weight_y)
        triangle(boxes[b, 1], boxes[b, 3], side, first_x, n_x, weight_x)
        left, right = 3 * first_x[0], 3 * (first_x[size - 1] + n_x[size - 1])
        for y in range(size):
            row[left:right] = 0.0
            for t in range(n_y[y]):  # down the columns first: whole rows of bytes at a time
                weight, line = weight_y[y, t], flat[first_y[y] + t]
                for x in range(left, right):
                    row[x] += weight * np.float32(line[x])
            for x in range(size):
                red, green, blue = np.float32(0), np.float32(0), np.float32(0)
                at = 3 * first_x[x]
                for t in range(n_x[x]):
                    weight = weight_x[x, t]
                    red += weight * row[at]
                    green += weight * row[at + 1]
                    blue += weight * row[at + 2]
                    at += 3
                to = size - 1 - x if flips[b] else x
                out[b, y, to, 0] = gains[b, 0] * red + shifts[b, 0]
                out[b, y, to, 1] = gains[b, 1] * green + shifts[b, 1]
                out[b, y, to, 2] = gains[b, 2] * blue + shifts[b, 2]


@numba.njit(cache=True, nogil=True)
def triangle(begin, length, side, first, n, weight):
    """Fill, for each output pixel, the first input pixel that counts, how many do, and the weight of each (their sum 1)."""
    scale = length / len(first)
    width = max(scale, 1.0)
    for o in range(len(first)):
        center = begin + (o + 0.5) * scale
        low = max(0, int(center - width + 0.5))
        high = min(side, int(center + width + 0.5))
        first[o], n[o] = low, high - low
        total = 0.0
        for t in range(high - low):
            weight[o, t] = max(0.0, 1.0 - abs((low + t + 0.5 - center) / width))
            total += weight[o, t]
        for t in range(high - low):
            weight[o, t] /= total
