"""Several pictures on stdin, one behind the other."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from odd_images import encoded
from PIL import Image
from tiny_board import SCRIPT, pixels


@pytest.fixture
def pictures(infer):
    return infer._beside("pictures")


def image(seed, mode="RGB"):
    return Image.fromarray(pixels(seed, (31, 43, 3))).convert(mode)


def with_preview() -> bytes:
    """A JPEG with a JPEG in its EXIF, as cameras write it."""
    exif = (
        b"Exif\0\0" + b"II*\0" + bytes(20) + encoded(image(9), "JPEG") + encoded(image(8), "JPEG")
    )
    return encoded(image(1), "JPEG", exif=exif)


def several(*behind: int) -> bytes:
    """A JPEG that lists others behind it, as phones write a photo with its gain map."""
    more = [image(seed) for seed in behind]
    return encoded(image(0), "MPO", save_all=True, append_images=more)


FILES = {
    "baseline": encoded(image(0), "JPEG"),
    "progressive": encoded(image(1), "JPEG", progressive=True, quality=90),
    "grey": encoded(image(2, "L"), "JPEG", comment=b"\xff\xd9\xff\xd8\xff"),
    "restarts": encoded(image(3), "JPEG", restart_marker_blocks=1),
    "preview": with_preview(),
    "several": several(1, 2),
    "png": encoded(image(4)),
    "palette": encoded(image(4).quantize(7)),
    "gif": encoded(image(5).quantize(16), "GIF"),
    "animated": encoded(
        image(5), "GIF", save_all=True, append_images=[image(6), image(7)], loop=0, duration=40
    ),
    "webp": encoded(image(6), "WEBP"),
    "ppm": encoded(image(7), "PPM"),
    "pgm": encoded(image(7, "L"), "PPM"),
    "pgm16": b"P5 # of a microscope\n# twice\n3 2\n65535\n" + bytes(range(12)),
    "filled": b"\xff\xd8" + b"\xff\xff" + encoded(image(8), "JPEG")[3:],
}


class Dribble:
    """A stream of which little comes at once; `taken` is how much has come."""

    def __init__(self, content, step):
        self.content, self.step, self.taken = content, step, 0

    def read1(self, _):
        start, self.taken = self.taken, self.taken + self.step
        return self.content[start : self.taken]


@pytest.mark.parametrize("step", [1 << 16, 7])
def test_each_picture_of_a_stream_is_found(pictures, step):
    wanted = list(FILES.values())
    found = list(pictures.each(Dribble(b"".join(wanted), step)))
    names = [name for name, file, other in zip(FILES, wanted, found, strict=False) if file != other]
    assert names == []
    assert len(found) == len(wanted)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"several"}))
def test_a_picture_is_there_as_soon_as_its_last_byte_is(pictures, name):
    """A camera program sends the next one when it has it."""
    stream = Dribble(FILES[name] * 2, 1)
    assert next(pictures.each(stream)) == FILES[name]
    assert stream.taken == len(FILES[name])


@pytest.mark.parametrize("size", ["right", "none"])
def test_bitmaps_are_found_if_they_state_their_size(pictures, size):
    bitmap = encoded(image(3), "BMP")
    assert int.from_bytes(bitmap[2:6], "little") == len(bitmap)
    if size == "right":
        assert list(pictures.each(io.BytesIO(bitmap * 2))) == [bitmap] * 2
    else:
        bitmap = bitmap[:2] + bytes(4) + bitmap[6:]
        assert list(pictures.each(io.BytesIO(bitmap))) == [bitmap]


@pytest.mark.parametrize("kept", [1 / 2, 0.95])
def test_a_picture_that_was_cut_off_takes_no_other_with_it(pictures, kept):
    cut = FILES["baseline"][: int(len(FILES["baseline"]) * kept)]
    found = list(pictures.each(io.BytesIO(cut + FILES["preview"] + FILES["png"])))
    assert found == [cut, FILES["preview"], FILES["png"]]


def test_a_film_behind_a_photo_is_left_out(pictures):
    film = (24).to_bytes(4, "big") + b"ftypisom" + np.random.default_rng(0).bytes(5000)
    photo = FILES["baseline"]
    assert list(pictures.each(io.BytesIO(photo + film))) == [photo]
    first, told = pictures.each(io.BytesIO(photo + film + photo))
    assert first == photo
    assert str(told).startswith("-: more follows a picture, and where it begins cannot be told")


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"\x89PNG", b"GIF89a", b"P6\n9 9", b"RIFF"])
def test_what_ends_too_early_is_yielded_as_it_is(pictures, content):
    assert list(pictures.each(io.BytesIO(content))) == [content]


def test_no_bytes_make_it_fail_or_lose_any_before_the_last_picture(pictures):
    random = np.random.default_rng(1)
    for name, file in FILES.items():
        for _ in range(40):
            damaged = bytearray(file)
            for place in random.integers(4, len(file), 5):
                damaged[place] = random.integers(256)
            found = [one for one in pictures.each(io.BytesIO(damaged)) if isinstance(one, bytes)]
            assert bytes(damaged).startswith(b"".join(found)), name


@pytest.mark.slow
def test_pictures_one_behind_the_other_are_answered_each(model, tmp_path):
    files = ["baseline", "png"]
    for name in files:
        (tmp_path / name).write_bytes(FILES[name])
    command = [sys.executable, SCRIPT, model, "--json"]
    sent = FILES["baseline"] + FILES["png"] + b"\x89PNG"
    done = subprocess.run([*command, "-"], input=sent, capture_output=True, check=False)
    first, second, broken = map(json.loads, done.stdout.splitlines())
    assert [one["input"] for one in (first, second, broken)] == ["-", "-[1]", "-[2]"]
    assert (done.returncode, "cannot be read as a picture" in broken["error"]) == (2, True)
    alone = subprocess.run(
        [*command, *(tmp_path / name for name in files)], capture_output=True, check=True
    )
    wanted = [json.loads(line)["classes"] for line in alone.stdout.splitlines()]
    assert [first["classes"], second["classes"]] == wanted
