"""A .tflite as bytes: a flatbuffer, and perhaps a zip archive behind it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ai_edge_litert import schema_py_generated as schema

from tfedge.errors import UserError

IDENTIFIER = b"TFL3"

# What zipfile raises for an archive that is none, is damaged, or is packed in a way it cannot read.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def split(blob: bytes) -> tuple[bytes, bytes]:
    """Return the flatbuffer and the zip archive behind it, which is empty where there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            starts = [entry.header_offset for entry in archive.infolist()]
            start = min(starts, default=archive.start_dir)
    except _ZIP_ERRORS:
        return blob, b""
    return (blob[:start], blob[start:]) if 0 <= start <= len(blob) else (blob, b"")


def unpack(archive: bytes, where: object) -> dict[str, bytes]:
    """Return the files in a zip archive by name; none for no bytes."""
    if not archive:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return {name: opened.read(name) for name in opened.namelist()}
    except _ZIP_ERRORS as error:
        raise UserError(
            where, f"the files behind the model are damaged ({error})", "copy the file again"
        ) from error


def pack(files: Mapping[str, bytes], *, behind: bytes = b"", deflate: bool = False) -> bytes:
    """Return `behind` with a zip archive of `files` after it.

    The clock and the machine stay out, so the same files make the same bytes.

    Args:
      behind: What the archive is appended to; its offsets count from the start of that.
      deflate: Compress.  MediaPipe refuses a model with any compressed file behind it
        ("Expected uncompressed zip archive").
    """
    out = io.BytesIO()
    out.write(behind)
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # as on Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            archive.writestr(entry, content)
    return out.getvalue()


def root(flatbuffer: bytes, where: object) -> schema.Model:
    """Return the schema's view of a model; call it, and read the view, inside `decoding`."""
    if flatbuffer[4:8] != IDENTIFIER:
        raise UserError(
            where,
            f"not a .tflite file: expected {IDENTIFIER!r} at byte 4, got {flatbuffer[4:8]!r}",
            'give a .tflite; a Keras network becomes one by a stage with use = "convert"',
        )
    return schema.Model.GetRootAs(flatbuffer, 0)


@contextmanager
def decoding(where: object) -> Iterator[None]:
    """Turn what a damaged flatbuffer makes the schema's classes raise into a `UserError`.

    They check nothing: an offset that points outside is a `struct.error`, a text that is none a
    `UnicodeDecodeError`, a missing table an `AttributeError`.
    """
    try:
        yield
    except (
        struct.error,
        LookupError,
        ArithmeticError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise UserError(
            where, f"the model is cut off or damaged ({error})", "copy or convert it again"
        ) from error
