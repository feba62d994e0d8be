"""Encoded pictures to square arrays: JPEG, PNG, GIF, WebP, BMP, TIFF bytes in, (S, S, 3) uint8 out.

Believes the bytes and never the file's name. What can't be decoded raises `PictureError` with a reason, and its caller
puts it in quarantine. Knows nothing of sources and labels.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # none that starts another program, as EPS does
BACKGROUND = (255, 255, 255)  # behind what is transparent
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # more than 8 bits a value, grey


class PictureError(Exception):
    """A picture that can't be decoded; says why."""


def decode(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode one picture, upright and in RGB, its middle square resized to (side, side, 3) uint8.

    Of an animation the first frame; behind transparency white. Raises `PictureError` where it is no picture, cut short,
    empty, or absurdly large (Pillow's limit of 89 million pixels).
    """
    image = upright_rgb(data, side)
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def natural_side(data: bytes) -> int:
    """Return the shorter side of a picture in pixels, from its header. Raises `PictureError`."""
    return min(_open(data).size)


def _open(data: bytes) -> Image.Image:
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as err:
        raise PictureError("no picture" if data else "the file is empty") from err
    except Exception as err:
        raise _picture_error(err) from err
    if min(image.size) == 0:
        raise PictureError("it has no pixels")
    return image


def upright_rgb(data: bytes, side: int) -> Image.Image:
    """Decode to RGB and turn as EXIF says; a JPEG much larger than `side` is decoded at a half, a quarter or an eighth."""
    image = _open(data)
    try:
        with _quiet():
            if image.format == "JPEG" and image.mode != "CMYK":
                image.draft("RGB", (2 * side, 2 * side))
            image.load()
            return _to_rgb(_upright(image))
    except Exception as err:
        raise _picture_error(err) from err


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Pillow not warn of what is damaged, but fail where a picture is too large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _picture_error(err: Exception) -> PictureError:
    """Say what is wrong; damaged files raise OSError, SyntaxError, ValueError, struct.error, ..."""
    if isinstance(err, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return PictureError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels")
    return PictureError(f"damaged: {str(err) or type(err).__name__}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF is damaged, the pixels are not
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        return from_deep(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")
    return image.convert("RGB")


def from_deep(image: Image.Image) -> Image.Image:
    """Bring grey values of more than 8 bits down to 8: 16 bits by their high byte, anything else by its own range."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        values = values / 257
    else:
        finite = values[np.isfinite(values)]
        low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        values = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
