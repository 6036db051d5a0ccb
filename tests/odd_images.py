"""Sixty pictures as no one wants them: broken, huge, rare, misnamed, or no pictures at all."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_board import pixels

RANDOM = np.random.default_rng(0)
_PIXELS = pixels(0, (40, 60, 3))
PHOTO = Image.fromarray(_PIXELS)


def write_all(folder: Path) -> tuple[set[str], set[str]]:
    """Write them; return the names of those that are pictures, and of those that are none."""
    good, bad = (
        {**_odd_modes(), **_odd_sizes(), **_odd_exif(), **_misnamed()},
        {**_cut(), **_none()},
    )
    for name, content in {**good, **bad}.items():
        (folder / name).write_bytes(content)
    return set(good), set(bad)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png(width: int, height: int, kind: int, rows: bytes, depth: int = 8) -> bytes:
    """Return a PNG by its definition: `kind` 0 is grey, 2 RGB, 6 RGBA; `rows` are compressed."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _odd_modes() -> dict[str, bytes]:
    grey16 = Image.fromarray(RANDOM.integers(0, 65536, (20, 30), dtype=np.uint16))
    floats = Image.fromarray(RANDOM.normal(0, 300, (20, 30)).astype(np.float32))
    palette, clear = PHOTO.quantize(16), PHOTO.convert("RGBA")
    clear.putalpha(Image.fromarray(_PIXELS[..., 0]))
    frames = [PHOTO.rotate(angle) for angle in (0, 90, 180)]
    several = {"save_all": True, "append_images": frames[1:]}
    rows16 = zlib.compress((b"\0" + bytes(range(240))) * 40)
    return {
        "cmyk.jpg": encoded(PHOTO.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(PHOTO.convert("CMYK"), "TIFF"),
        "grey16.png": encoded(grey16),
        "grey16.tif": encoded(grey16, "TIFF"),
        "rgb16.png": png(40, 40, 2, rows16, 16),
        "float.tif": encoded(floats, "TIFF"),
        "bits.png": encoded(PHOTO.convert("1")),
        "bits.tif": encoded(PHOTO.convert("1"), "TIFF", compression="group4"),
        "palette.png": encoded(palette),
        "palette_clear.png": encoded(palette, transparency=3),
        "palette_clear.gif": encoded(palette, "GIF", transparency=3),
        "grey_clear.png": encoded(clear.convert("LA")),
        "clear.png": encoded(clear),
        "colour_key.png": encoded(PHOTO, transparency=(1, 2, 3)),
        "clear.webp": encoded(clear, "WEBP"),
        "moving.gif": encoded(frames[0], "GIF", **several),
        "moving.png": encoded(frames[0], "PNG", **several),
        "moving.webp": encoded(frames[0], "WEBP", **several),
        "pages.tif": encoded(frames[0], "TIFF", **several),
        "lab.tif": encoded(Image.new("LAB", (9, 9)), "TIFF"),
        "progressive.jpg": encoded(PHOTO, "JPEG", progressive=True),
        "interlaced.gif": encoded(palette, "GIF", interlace=1),
    }


def _odd_sizes() -> dict[str, bytes]:
    large = zlib.compress(bytes(5700 * (4 * 5700 + 1)))
    return {
        "1x1.png": encoded(Image.new("RGB", (1, 1))),
        "1x1.jpg": encoded(Image.new("L", (1, 1)), "JPEG"),
        "1x5000.png": encoded(Image.new("RGB", (1, 5000))),
        "5000x1.gif": encoded(Image.new("P", (5000, 1)), "GIF"),
        "5000x1.jpg": encoded(Image.new("RGB", (5000, 1)), "JPEG"),
        "5700x5700_clear.png": png(5700, 5700, 6, large),
        "9000x9000.jpg": encoded(Image.new("L", (9000, 9000)), "JPEG"),
    }


def _odd_exif() -> dict[str, bytes]:
    found = {}
    for orientation in (3, 6, 8, 99):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"turned{orientation}.jpg"] = encoded(PHOTO, "JPEG", exif=exif)
    exif = Image.Exif()
    exif[0x010E] = "x" * 65_000
    found["long_exif.jpg"] = encoded(PHOTO, "JPEG", exif=exif)
    found["broken_exif.jpg"] = encoded(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    found["many_notes.jpg"] = encoded(PHOTO, "JPEG", comment=b"n" * 60_000)
    found["long_icc.png"] = encoded(PHOTO, icc_profile=bytes(1 << 20))
    return found


def _misnamed() -> dict[str, bytes]:
    jpeg = encoded(PHOTO, "JPEG")
    return {
        "png.jpg": encoded(PHOTO),
        "jpeg.png": jpeg,
        "webp.GIF": encoded(PHOTO, "WEBP"),
        "appended.jpg": jpeg + bytes(100_000),
        "with space\tand tab.png": encoded(PHOTO),
        "ünïcødé.png": encoded(PHOTO),
    }


def _cut() -> dict[str, bytes]:
    jpeg, flat = encoded(PHOTO, "JPEG"), encoded(PHOTO)
    webp, gif, tiff = (encoded(PHOTO, form) for form in ("WEBP", "GIF", "TIFF"))
    flipped = bytearray(flat)
    flipped[17] ^= 0xFF  # of its width
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut_head.jpg": jpeg[:20],
        "cut.png": flat[: len(flat) // 2],
        "cut_head.png": flat[:30],
        "cut.webp": webp[: len(webp) // 2],
        "cut.gif": gif[: len(gif) // 2],
        "cut.tif": tiff[: len(tiff) // 2],
        "flipped.png": bytes(flipped),
    }


def _none() -> dict[str, bytes]:
    bomb = zlib.compress(bytes(13_000 * 13_001))
    return {
        "empty.jpg": b"",
        "zeros.jpg": bytes(10_000),
        "text.jpg": b"This is no picture.\n" * 50,
        "page.png": b"<html><body>404 Not Found</body></html>",
        "30000x30000.png": png(30_000, 30_000, 2, b""),
        "bomb.png": png(13_000, 13_000, 0, bomb),
        "bomb.gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";",
        "vector.ppm": b"P6 99999999999999999999 1 255\n",
        "no_size.png": png(0, 0, 2, b""),
    }
