"""Any bytes become a square picture that looks as it should, or a `PictureError`; nothing else, and nothing is printed."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vision.decode import PictureError, decode, natural_side

from .pictures import colours, encode, png, png_header

SIDE = 12
JPEG = {"quality": 95, "subsampling": 0}
FORMS = {"PNG": {}, "BMP": {}, "PPM": {}, "TIFF": {}, "WEBP": {"lossless": True}}
ORIENTATION = 0x0112
UNTURN = {
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_270],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_90],
}


def close(comp: NDArray[np.uint8], ref: Image.Image | NDArray[np.uint8], atol: float = 10) -> bool:
    """No value further from the reference than a JPEG may be."""
    return np.allclose(comp.astype(int), np.asarray(ref).astype(int), rtol=0, atol=atol)


def decodes_or_says_why(data: bytes) -> None:
    try:
        comp = decode(data, SIDE)
    except PictureError as err:
        assert str(err)
    else:
        assert comp.shape == (SIDE, SIDE, 3) and comp.dtype == np.uint8


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_the_right_size_is_passed_unchanged(form: str):
    comp = decode(encode(colours(), form, **FORMS[form]), SIDE)
    assert comp.dtype == np.uint8 and comp.shape == (SIDE, SIDE, 3)
    assert np.array_equal(comp, np.asarray(colours()))


def test_jpeg_is_close():
    assert close(decode(encode(colours(), "JPEG", **JPEG), SIDE), colours())


def test_a_large_jpeg_is_reduced_like_a_large_png():
    large = colours(500, 400)
    assert close(decode(encode(large, "JPEG", **JPEG), SIDE), decode(encode(large), SIDE))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_grey_has_three_equal_channels(form: str):
    comp = decode(encode(colours().convert("L"), form), SIDE)
    assert np.array_equal(comp[..., 0], comp[..., 1]) and np.array_equal(comp[..., 0], comp[..., 2])
    assert close(comp[..., 0], colours().convert("L"))


def test_black_and_white():
    image = colours().convert("1")
    assert np.array_equal(decode(encode(image), SIDE), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_keeps_the_high_byte(form: str):
    grey = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    comp = decode(encode(Image.fromarray(grey * 257), form), SIDE)
    assert np.array_equal(comp, np.dstack([grey] * 3))


def test_float_grey_fills_the_range_and_is_not_upset_by_what_is_no_number():
    values = np.linspace(-3, 7, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    comp = decode(encode(Image.fromarray(values), "TIFF"), SIDE)
    assert comp[0, 0, 0] == 0 and comp[-1, -1, 0] == 255 and (np.diff(comp[..., 0].ravel().astype(int)) >= 0).all()
    values[0, :3] = np.nan, np.inf, -np.inf
    comp = decode(encode(Image.fromarray(values), "TIFF"), SIDE)
    assert comp[0, :3, 0].tolist() == [0, 255, 0] and comp[-1, -1, 0] == 255
    for same in (2.5, np.nan, np.inf):
        assert not decode(encode(Image.fromarray(np.full_like(values, same)), "TIFF"), SIDE).any()


def test_cmyk_jpeg_has_its_colours():
    for colour in [(255, 0, 0), (0, 128, 0), (20, 40, 200), (255, 255, 255), (0, 0, 0)]:
        data = encode(Image.new("RGB", (400, 300), colour).convert("CMYK"), "JPEG", **JPEG)
        assert close(decode(data, SIDE), np.full((SIDE, SIDE, 3), colour, np.uint8))


# ---- transparency and animation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_what_is_transparent_is_white(form: str, options: dict[str, bool]):
    image = colours().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 6, SIDE))
    comp = decode(encode(image, form, **options), SIDE)
    assert (comp[:, :6] == 255).all() and np.array_equal(comp[:, 6:], np.asarray(colours())[:, 6:])


def test_half_transparent_is_half_white():
    comp = decode(encode(Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128))), SIDE)
    assert (comp == 127).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_is_white(form: str):
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 255, 200, 30, 10])
    image.paste(0, (0, 0, 6, SIDE))
    comp = decode(encode(image, form, transparency=0), SIDE)
    assert (comp[:, :6] == 255).all() and (comp[:, 6:] == (200, 30, 10)).all()


def test_palette_with_a_transparency_for_each_colour():
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 255, 200, 30, 10])
    image.paste(0, (0, 0, 6, SIDE))
    comp = decode(encode(image, transparency=bytes([0, 255])), SIDE)
    assert (comp[:, :6] == 255).all() and (comp[:, 6:] == (200, 30, 10)).all()


@pytest.mark.parametrize(("mode", "value"), [("L", 9), ("RGB", (9, 9, 9)), ("1", 0)])
def test_one_transparent_colour_of_a_png(mode: str, value: int | tuple[int, ...]):
    assert (decode(encode(Image.new(mode, (SIDE, SIDE), value), transparency=value), SIDE) == 255).all()


@pytest.mark.parametrize(("form", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_the_first_picture_of_an_animation(form: str, options: dict[str, bool]):
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert (decode(data, SIDE) == (255, 0, 0)).all()


# ---- shape ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(20, 12), (12, 20)])
def test_the_middle_square_is_taken(size: tuple[int, int]):
    image = colours(*size)
    left, top = (size[0] - 12) // 2, (size[1] - 12) // 2
    ref = np.asarray(image.crop((left, top, left + 12, top + 12)))
    assert np.array_equal(decode(encode(image), 12), ref)


def test_colours_stay_where_they_are():
    image = Image.new("RGB", (60, 20), "red")
    image.paste("lime", (20, 0, 30, 20))
    image.paste("blue", (30, 0, 40, 20))
    comp = decode(encode(image), 10)
    assert (comp[:, 2] == (0, 255, 0)).all() and (comp[:, 7] == (0, 0, 255)).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_tiny_and_narrow_pictures_grow(form: str, size: tuple[int, int]):
    data = encode(Image.new("RGB", size, (250, 120, 10)), form, **(JPEG if form == "JPEG" else {}))
    assert close(decode(data, SIDE), np.full((SIDE, SIDE, 3), (250, 120, 10), np.uint8))
    assert natural_side(data) == min(size)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_upright(orientation: int, form: str):
    turned = colours(16, 10, seed=3)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(turned, form, exif=exif, **(JPEG if form == "JPEG" else {}))
    for step in UNTURN.get(orientation, []):
        turned = turned.transpose(step)
    assert close(decode(data, 10), decode(encode(turned), 10))
    assert natural_side(data) == 10


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01"]
)
def test_damaged_exif_leaves_the_picture_as_it_is(exif: bytes):
    assert close(decode(encode(colours(), "JPEG", exif=exif, **JPEG), SIDE), colours())


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "the file is empty"), (b"# no picture\n", "no picture"), (b"%PDF-1.4", "no picture"), (b"\xff\xd8\xff", "."),
     (png_header(0, 5), "."), (png_header(9, 9), "damaged")],
)  # fmt: skip
def test_what_is_no_picture_says_so(data: bytes, reason: str):
    with pytest.raises(PictureError, match=reason):
        decode(data, SIDE)


def test_eps_is_refused():
    data = encode(colours(), "EPS")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
    for function in (natural_side, lambda data: decode(data, SIDE)):
        with pytest.raises(PictureError, match="no picture"):
            function(data)


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_000, 9_000), (2**31 - 1, 1)])
def test_a_huge_picture_is_refused_by_its_header(size: tuple[int, int]):
    for function in (natural_side, lambda data: decode(data, SIDE)):
        with pytest.raises(PictureError, match="more than 89,478,485 pixels"):
            function(png_header(*size))


def test_a_truncated_picture_is_refused_wherever_it_ends():
    data = encode(colours(40, 40), "JPEG")
    for end in range(0, len(data) - 2, 7):
        with pytest.raises(PictureError):
            decode(data[:end], SIDE)
    data = png()
    for end in range(0, len(data) - 24, 7):
        with pytest.raises(PictureError):
            decode(data[:end], SIDE)


@given(data=st.binary(max_size=300), head=st.sampled_from(["", "JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"]))
def test_random_bytes_raise_nothing_else(data: bytes, head: str):
    decodes_or_says_why((encode(colours(), head)[:24] if head else b"") + data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_flipped_bytes_raise_nothing_else(form: str, rng: np.random.Generator):
    whole = encode(colours(), form)
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        decodes_or_says_why(bytes(data))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"])
def test_every_mode_of_a_tiff(mode: str):
    data = encode(Image.new(mode, (SIDE, SIDE)), "TIFF")
    assert decode(data, SIDE).shape == (SIDE, SIDE, 3)


def test_damaged_pictures_print_no_warnings():
    """Pillow warns of them; the tests make errors of warnings, so that one must be asked who does not."""
    data = encode(colours(), "TIFF")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(encode(colours(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), SIDE)
        for end in range(8, len(data), 9):
            with pytest.raises(PictureError):
                decode(data[:end], SIDE)
    assert not caught


def test_decoding_imports_no_torch():
    code = "import sys, vision.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
