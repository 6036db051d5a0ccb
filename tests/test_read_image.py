from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, form: str = "PNG", **options) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    stream.seek(0)
    return stream


def corners() -> Image.Image:
    """Four blocks of 16 x 8: red and green above, blue and white below."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16], pixels[:8, 16:], pixels[8:, :16], pixels[8:, 16:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "JPEG", "WEBP", "TIFF", "PPM"])
def test_every_format_gives_the_same_picture(infer, form):
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    if form == "WEBP":
        options = {"lossless": True}
    pixels = infer.read_image(saved(corners(), form, **options), (16, 32, 3))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(corners())).max() <= (2 if form == "JPEG" else 0)


def test_a_path_as_text_and_as_path_reads_as_a_stream_does(infer, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(saved(corners()).getvalue())
    for source in (file, str(file), saved(corners())):
        assert np.array_equal(infer.read_image(source, (16, 32, 3)), corners())


def test_the_pixels_are_the_callers_to_write_to(infer):
    pixels = infer.read_image(saved(corners()), (16, 32, 3))
    pixels[:] = 7
    assert (pixels == 7).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(infer, orientation):
    upright = np.asarray(corners())
    # EXIF 2.3, section 4.6.4: where row 0 and column 0 of what is stored lie in the upright scene.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(infer.read_image(stream, (16, 32, 3)), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_picture(infer):
    stream = saved(
        corners(), "JPEG", quality=100, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"
    )
    pixels = infer.read_image(stream, (16, 32, 3))
    assert np.abs(pixels.astype(int) - np.asarray(corners())).max() <= 2


@pytest.mark.parametrize("alpha", [0, 128, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_put_on_white(infer, mode, alpha):
    colour = (200, 100, 50, alpha) if mode == "RGBA" else (100, alpha)
    pixels = infer.read_image(saved(Image.new(mode, (4, 4), colour)), (4, 4, 3))
    shown = np.float64(colour[:-1]) * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(pixels - shown).max() <= 1


def test_a_palettes_transparent_colour_is_white(infer):
    image = Image.fromarray(np.uint8([[0, 1]]), "P")
    image.putpalette([*RED, *BLUE])
    pixels = infer.read_image(saved(image, transparency=1), (1, 2, 3))
    assert pixels.tolist() == [[[*RED], [*WHITE]]]


def test_a_transparent_colour_of_a_plain_picture_is_white(infer):
    image = Image.fromarray(np.uint8([[RED, BLUE]]))
    pixels = infer.read_image(saved(image, transparency=BLUE), (1, 2, 3))
    assert pixels.tolist() == [[[*RED], [*WHITE]]]


def test_a_palette_becomes_its_colours(infer):
    image = Image.fromarray(np.uint8([[0, 1, 1]]), "P")
    image.putpalette([*RED, *GREEN])
    assert infer.read_image(saved(image), (1, 3, 3)).tolist() == [[[*RED], [*GREEN], [*GREEN]]]


def test_one_bit_is_black_and_white(infer):
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    assert infer.read_image(saved(image), (1, 2, 1)).ravel().tolist() == [255, 0]


@pytest.mark.parametrize(("form", "order"), [("PNG", "<"), ("TIFF", "<"), ("PPM", "<")])
def test_16_bit_grey_keeps_its_high_byte(infer, form, order):
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], order + "u2")
    image = Image.fromarray(values)
    pixels = infer.read_image(saved(image, form), (1, 5, 1))
    assert pixels.ravel().tolist() == [0, 0, 1, 0x12, 0xFF]


def test_16_bit_big_endian_grey_keeps_its_high_byte(infer):
    # A TIFF by hand: 3 x 1 pixels, 16 bits, most significant byte first.
    entries = [(256, 3), (257, 1), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    entries.append((279, 6))
    directory = struct.pack(">H", len(entries))
    for tag, value in entries:
        directory += struct.pack(">HHIHH", tag, 3, 1, value, 0)
    pixels = struct.pack(">3H", 0x0102, 0x7FFF, 0xFE00)
    content = b"MM\0*" + struct.pack(">I", 14) + pixels + directory + b"\0\0\0\0"
    read = infer.read_image(io.BytesIO(content), (1, 3, 1))
    assert read.ravel().tolist() == [1, 0x7F, 0xFE]


def test_32_bit_grey_is_taken_as_16_bit_and_clipped(infer):
    image = Image.fromarray(np.int32([[-5, 256, 70000]]))
    assert image.mode == "I"
    assert infer.read_image(saved(image, "TIFF"), (1, 3, 1)).ravel().tolist() == [0, 1, 255]


def test_float_grey_is_clipped(infer):
    image = Image.fromarray(np.float32([[-1, 99.6, 300, np.nan]]))
    assert infer.read_image(saved(image, "TIFF"), (1, 4, 1)).ravel().tolist() == [0, 99, 255, 0]


def test_cmyk_becomes_rgb(infer):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta and yellow
    pixels = infer.read_image(saved(image, "JPEG", quality=100), (8, 8, 3))
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def test_grey_of_a_colour_is_its_luma(infer):
    # ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    pixels = infer.read_image(saved(Image.new("RGB", (2, 2), (200, 100, 50))), (2, 2, 1))
    assert np.abs(pixels - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)).max() <= 1


def test_grey_in_colour_has_three_equal_channels(infer):
    pixels = infer.read_image(saved(Image.new("L", (2, 2), 77)), (2, 2, 3))
    assert (pixels == 77).all()


def test_the_first_frame_of_an_animation_is_taken(infer):
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), GREEN)
    for form in ("GIF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        stream = saved(first, form, save_all=True, append_images=[second], **options)
        assert (infer.read_image(stream, (4, 4, 3)) == RED).all()


def test_shrinking_by_a_half_averages_boxes_of_a_smooth_picture(infer):
    rows, columns = np.mgrid[0:32, 0:32]
    ramp = np.uint8(4 * rows + 3 * columns)
    pixels = infer.read_image(saved(Image.fromarray(ramp)), (16, 16, 1), "bilinear")[..., 0]
    boxes = ramp.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    assert np.abs(pixels - boxes)[2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_flat_picture_stays_flat_whatever_the_filter(infer, resize):
    image = Image.new("RGB", (31, 17), (10, 200, 90))
    for fit in ("stretch", "crop"):
        assert (infer.read_image(saved(image), (8, 9, 3), resize, fit) == (10, 200, 90)).all()


def test_nearest_takes_pixels_and_mixes_none(infer):
    pixels = infer.read_image(saved(corners()), (5, 7, 3), "nearest")
    colours = {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}
    assert colours == {RED, GREEN, BLUE, WHITE}


def test_crop_takes_the_middle_of_a_wide_and_of_a_tall_picture(infer):
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 255
    for pixels in (wide, wide.T):
        assert (
            infer.read_image(saved(Image.fromarray(pixels)), (8, 8, 1), fit="crop") == 255
        ).all()


def test_pad_keeps_the_aspect_and_adds_black(infer):
    wide = np.full((8, 16), 255, np.uint8)
    expected = np.zeros((16, 16), np.uint8)
    expected[4:12] = 255
    for pixels, square in ((wide, expected), (wide.T, expected.T)):
        read = infer.read_image(saved(Image.fromarray(pixels)), (16, 16, 1), "nearest", "pad")
        assert np.array_equal(read[..., 0], square)


def test_a_large_jpeg_comes_out_as_without_the_short_cut(infer):
    rows, columns = np.mgrid[0:480, 0:640]
    wave = np.uint8(127 + 100 * np.sin(rows / 40) * np.cos(columns / 50))
    picture = Image.fromarray(np.stack([wave, wave[::-1], 255 - wave], axis=2))
    stream = saved(picture, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(stream.getvalue())).resize((32, 32), Image.Resampling.BILINEAR)
    pixels = infer.read_image(stream, (32, 32, 3))
    assert np.abs(pixels.astype(int) - np.asarray(whole)).max() <= 4


def test_a_truncated_picture_is_named(infer, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for form in ("JPEG", "PNG", "WEBP"):
        whole = saved(Image.fromarray(noise), form).getvalue()
        file = tmp_path / f"cut.{form.lower()}"
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(infer.ImageError, match=rf"{file}: cannot be read as a picture: \S"):
            infer.read_image(file, (32, 32, 3))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"GIF89a", b"BM", b"P6\n"])
def test_what_is_no_picture_is_an_image_error(infer, content):
    with pytest.raises(infer.ImageError, match="it: cannot be read as a picture"):
        infer.read_image(io.BytesIO(content), (4, 4, 3))


def test_a_missing_file_and_a_folder_are_image_errors(infer, tmp_path):
    with pytest.raises(infer.ImageError, match=r"no.jpg: .*: No such file or directory$"):
        infer.read_image(tmp_path / "no.jpg", (4, 4, 3))
    with pytest.raises(infer.ImageError, match=r": Is a directory$"):
        infer.read_image(tmp_path, (4, 4, 3))


def test_a_header_of_too_many_pixels_is_refused_before_they_are_unpacked(infer):
    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(infer.ImageError, match="decompression bomb"):
        infer.read_image(io.BytesIO(png), (4, 4, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_whatever_bytes_are_changed_only_an_image_error_comes_of_it(infer, form):
    random = np.random.default_rng(1)
    whole = saved(corners(), form).getvalue()
    shapes, messages = set(), []
    for _ in range(60):
        content = bytearray(whole)
        for place in random.integers(0, min(len(content), 200), 3):
            content[place] = random.integers(0, 256)
        try:
            shapes.add(infer.read_image(io.BytesIO(content), (8, 8, 3)).shape)
        except infer.ImageError as error:
            messages.append(str(error))
    assert shapes <= {(8, 8, 3)}
    assert "\n" not in "".join(messages)


def test_without_pillow_it_says_how_to_install_it(tmp_path):
    (tmp_path / "PIL.py").write_text("raise ImportError('no Pillow')\n")
    script = Path(__file__).parent.parent / "device" / "infer.py"
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += f"infer = runpy.run_path({str(script)!r})\n"
    code += "try:\n    infer['read_image']('a.png', (4, 4, 3))\n"
    code += "except infer['ModelError'] as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "reading pictures needs Pillow; install it: pip install pillow\n"
