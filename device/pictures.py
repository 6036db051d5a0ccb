"""The pictures of a stream for infer.py: `cat a.jpg b.png | infer.py model.tflite -`.

Each is yielded as soon as its last byte is there, so that a camera program's endless stream of
JPEGs is answered as it comes.  Where a picture ends its own format says; a TIFF, and a PNM of
text or bits, take all that follows.
"""

from __future__ import annotations

import re

import infer

_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|RIFF....WEBP|BM.{11}\0|P[1-6]\s|II\*\0|MM\0\*", re.DOTALL
)
# The same where chance is not to be taken for one.
_INSIDE = re.compile(
    rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|\x93NUMPY", re.DOTALL
)
_PNM = re.compile(rb"P([56])\s(?:\s|#[^\n]*\n)*(\d+)\s+(\d+)\s+(\d+)\s")
_BETWEEN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # ends what is coded behind a _SCAN
_MARK, _BEGIN, _END, _SCAN, _APP2 = 0xFF, 0xD8, 0xD9, 0xDA, 0xE2  # of JPEG's markers
_ALONE = {0x01, *range(0xD0, 0xDA), 0xFF}  # those without a length
_CHUNK_BYTES = 1 << 16


def each(stream):
    """Yield the bytes of each picture of a binary stream.

    What follows a picture and begins like none, such as the film behind a phone's photo, is left
    out; an ImageError is yielded for it if another picture may be in there.
    """
    ahead = _Ahead(stream)
    while ahead.reach(1):
        end = _end(ahead)
        yield ahead.rest() if end is None else ahead.take(end)
        if ahead.reach(1) and not ahead.begins(_START):
            if _INSIDE.search(ahead.rest()):
                said = "-: more follows a picture, and where it begins cannot be told; send names"
                yield infer.ImageError(said)
            return


class _Ahead:
    """What has come of a stream and is not taken yet; it waits for more only where needed."""

    def __init__(self, stream):
        self._stream, self.held = stream, bytearray()

    def reach(self, count):
        """Return whether there are so many bytes."""
        while len(self.held) < count:
            more = self._stream.read1(_CHUNK_BYTES)
            if not more:
                return False
            self.held += more
        return True

    def number(self, at, size, order="big"):
        """Return the number in `size` bytes; 0 where the stream has ended."""
        return int.from_bytes(self.held[at : at + size], order) if self.reach(at + size) else 0

    def find(self, pattern, at):
        """Return where a pattern of two bytes is, or else the end of the stream."""
        while True:
            found = pattern.search(self.held, at)
            if found:
                return found.start()
            at = max(at, len(self.held) - 1)
            if not self.reach(len(self.held) + 1):
                return len(self.held)

    def begins(self, pattern, at=0):
        """Return whether a pattern of up to 16 bytes comes at a place."""
        self.reach(at + 16)
        return pattern.match(self.held, at) is not None

    def take(self, count):
        content = bytes(self.held[:count])
        del self.held[:count]
        return content

    def rest(self):
        while self.reach(len(self.held) + 1):
            pass
        return self.take(len(self.held))


def _end(ahead):
    """Return how many bytes the next picture has; None if its format does not say."""
    for start, end in _ENDS:
        if ahead.reach(len(start)) and ahead.held.startswith(start):
            count = end(ahead)
            return count if count and ahead.reach(count) else None
    return None


def _jpeg(ahead):
    at, others = 2, []
    while ahead.reach(at + 2) and ahead.held[at] == _MARK:
        kind, size = ahead.held[at + 1], 0
        if kind == _END and max(others, default=0) <= at:
            return at + 2
        if kind == _BEGIN:  # the next one: this one was cut off
            return at
        if kind not in _ALONE:
            size = ahead.number(at + 2, 2)
            ahead.reach(at + 2 + size)
        if kind == _APP2:
            others += _others(ahead.held[at + 4 : at + 2 + size], at + 4)
        if kind == _END:
            at = max(others) + 2
        else:
            at += 2 + size if kind != _MARK else 1  # two of them fill a gap
        if kind == _SCAN:
            at = ahead.find(_BETWEEN, at)
    return None


def _others(segment, at):
    """Return where other pictures begin that a JPEG holds behind its own, such as a gain map.

    Its segment at byte `at` lists them (CIPA DC-007, Multi-Picture Format, section 5.2.3).
    """
    if segment[:4] != b"MPF\0":
        return []
    tiff, order = segment[4:], "little" if segment[4:6] == b"II" else "big"

    def number(place, size=4):
        return int.from_bytes(tiff[place : place + size], order)

    directory, found = number(4), []
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == 0xB002:  # noqa: PLR2004 the list, of 16 bytes a picture
            first = number(entry + 8)
            pictures = range(first, min(first + number(entry + 4), len(tiff)), 16)
            # From the TIFF header on; 0 for the first picture, which holds this.
            found += [at + 4 + number(picture + 8) for picture in pictures if number(picture + 8)]
    return found


def _png(ahead):
    at = 8
    while ahead.reach(at + 8):
        kind = ahead.held[at + 4 : at + 8]
        at += 12 + ahead.number(at, 4)
        if kind == b"IEND":
            return at
    return None


def _gif(ahead):
    at = 13 + _colours(ahead, 10)
    while ahead.reach(at + 1):
        kind, at = ahead.held[at], at + 1
        if kind == ord(";"):
            return at
        at += 9 + _colours(ahead, at + 8) if kind == ord(",") else 0
        at += 1  # the size of a code, or what an extension is
        while ahead.number(at, 1):
            at += 1 + ahead.number(at, 1)
        at += 1
    return None


def _colours(ahead, at):
    flags = ahead.number(at, 1)
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _riff(ahead):
    size = ahead.number(4, 4, "little")
    return 8 + size + size % 2


def _bmp(ahead):
    """Return the size that it states, which many do wrongly, if a picture follows there."""
    size = ahead.number(2, 4, "little")
    return size if ahead.reach(size + 1) and ahead.begins(_START, size) else None


def _pnm(ahead):
    while not _PNM.match(ahead.held) and len(ahead.held) < _CHUNK_BYTES:
        if not ahead.reach(len(ahead.held) + 1):
            return None
    found = _PNM.match(ahead.held)
    if not found:
        return None
    kind, width, height, most = map(int, found.groups())
    values = width * height * {5: 1, 6: 3}[kind]  # grey; red, green, blue
    return found.end() + values * (2 if most > 255 else 1)  # noqa: PLR2004 a byte holds no more


_ENDS = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG", _png),
    (b"GIF8", _gif),
    (b"RIFF", _riff),
    (b"BM", _bmp),
    (b"P5", _pnm),
    (b"P6", _pnm),
)
