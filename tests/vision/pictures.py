"""Small pictures that the tests of `vision` share: smooth colours, encoded in any format, in folders; all seeded."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.source import Plan
from vision.store import Pictures


def colours(width: int = 12, height: int = 12, seed: int = 0) -> Image.Image:
    """Four random colours and what lies between them: smooth, so that a JPEG is close to it."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Encode a picture as Pillow does."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(seed: int = 0, side: int = 12) -> bytes:
    """Encode a picture of its own seed without loss."""
    return encode(colours(side, side, seed))


def png_header(width: int, height: int) -> bytes:
    """Claim a size in the header of a PNG that has no pixels."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    empty = b"IDAT" + zlib.compress(b"")
    chunks = (header, empty, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks
    )


def write_classes(root: Path, sizes: dict[str, int], *, side: int = 12, seed: int = 0) -> Path:
    """Write a folder of class folders, with so many pictures each; a seed for every picture."""
    for name, n in sizes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            seed += 1
            (root / name / f"{k:02}.png").write_bytes(png(seed, side))
    return root


def encoded(plan: Plan) -> list[bytes | None]:
    """All pictures of a plan, still encoded."""
    return [data for unit in plan.units for data in unit.read()]


def labelled(plan: Plan) -> list[str | None]:
    """The class of every picture of a plan, by name."""
    return [plan.classes[label] if label >= 0 else None for label in plan.labels]


def pixels_of(pictures: Pictures, records: list[int] | None = None) -> NDArray[np.uint8]:
    """Pixels of some pictures, or of all."""
    numbers = range(len(pictures.names)) if records is None else records
    ((_, pixels),) = pictures.read([np.array(numbers, np.int64)])
    return pixels
