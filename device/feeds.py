"""Inputs for infer.py beyond pictures: files of arrays, stdin, a watched folder, a camera.

Each function yields (name, read), as console.py's `items` does: `read()` returns what the model
takes or raises an ImageError.  They wait between two items, never inside a `read`, so that SIGTERM
may end a wait at once and a picture in the works is finished.  Nothing is imported before it is
needed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time

import infer
import numpy as np

# A picture or a .npy, which no list of paths begins like.
_BINARY = rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|RIFF....WEBP|BM.*\0|II\*\0|MM\0\*|P[1-6]\n|\x93NUMPY"
_FOREIGN = rb"PK\x03\x04|....TFL3"  # a zip, such as a .npz, and a model
_SUFFIXES = (*infer._SUFFIXES, ".npy", ".npz")
_POLL_S = 0.1
_SETTLED_S = 0.5  # a file is whole when it has not changed for as long
_TURNED_BYTES = 64 << 20  # of arrays in Fortran's order, which must be in memory whole
_PATIENCE = 10  # frames that may fail one after another
_FRAME = (640, 480)  # of the Pi's camera: wide enough to shrink from, in the sensor's own aspect
# Which numbers of a picamera2 pixel are red, green, blue: its formats are named backwards.
_ORDERS = {"BGR888": [0, 1, 2], "RGB888": [2, 1, 0]}
_ORDERS.update({"XBGR8888": [0, 1, 2], "XRGB8888": [2, 1, 0]})


def live(model, folder, camera, state=None):
    """Yield what arrives in `folder` and what `camera` sees, of which one is None, for ever."""
    if folder and camera:
        raise infer.ModelError("--watch and --camera cannot both be waited for; take one")
    if folder:
        for path in arrivals(folder, state=state):
            yield from infer._beside("console").items(model, path)
    else:
        yield from frames(model, camera)


def arrivals(folder, wait=time.sleep, state=None):
    """Yield the path of each picture or array file that is put into `folder`, for ever.

    What lies there at the start is left alone.  A file counts as put there once it has not changed
    for half a second, be it written in place or renamed; one that changes later, such as a
    `latest.jpg`, comes again.  Hidden files are not looked at.  A folder that goes away, as that of
    a stick does, is waited for.

    Args:
      wait: Called with the seconds until the next look.
      state: File that notes what was done, see `Notes`; what came since the last note is then
        yielded, too.
    """
    done, young, gone = _listing(folder), {}, False
    notes = Notes(state) if state else None
    if notes:
        done = notes.begin(done)
    while True:
        began = time.monotonic()
        try:
            found, gone = _listing(folder), False
        except infer.ModelError as error:
            if not gone:
                print(f"infer.py: {error}; waits for it", file=sys.stderr)
            gone = True
            wait(1)
            continue
        took_s = time.monotonic() - began
        done = {name: state for name, state in done.items() if name in found}
        new = {name: state for name, state in found.items() if done.get(name) != state}
        # (state, since when it is so) of each
        young = {
            name: young[name] if young.get(name, ("",))[0] == state else (state, began)
            for name, state in new.items()
        }
        for name in sorted(new, key=lambda name: (new[name], name)):
            if began - young[name][1] >= _SETTLED_S:
                done[name], _ = young.pop(name)
                try:
                    yield os.path.join(folder, name)
                finally:  # also where this was the last that was asked for
                    if notes:
                        notes.add(name, done[name])
        # A folder of many files takes long to look through: do so a twentieth of the time.
        wait(max(_POLL_S, 20 * took_s))


class Notes:
    """A file that says what of a folder was answered, so that a restart goes on after it.

    A line a file, written when that is answered: a restart leaves nothing out.  The disk is not
    waited for, so after a power cut the last few may be answered once more.
    """

    def __init__(self, path):
        self._path = path

    def begin(self, found):
        """Return what of `found`, {name: state}, was answered; all of it if nothing is noted yet.

        What is no longer there is forgotten, so that the file does not grow for ever.
        """
        done = dict(found)
        if os.path.exists(self._path):
            noted = self._read()
            done = {name: state for name, state in found.items() if noted.get(name) == state}
        with self._writing():
            partial = self._path + ".new"
            with open(partial, "w") as stream:
                stream.writelines(map(self._line, done.items()))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, self._path)
        return done

    def add(self, name, state):
        """Note that the file of this name was answered as it was then."""
        with self._writing(), open(self._path, "a") as stream:
            stream.write(self._line((name, state)))

    def _read(self):
        noted = {}
        with self._writing(), open(self._path, errors="replace") as stream:
            for line in stream:
                # A line that a power cut has spoilt notes nothing: its file is answered again.
                with contextlib.suppress(ValueError, TypeError):
                    name, state = json.loads(line)
                    noted[name] = tuple(state)
        return noted

    def _line(self, item):
        return json.dumps(item) + "\n"

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            said = f"{self._path}: cannot be kept: {infer._line(error)}; name another --state"
            raise infer.ModelError(said) from error


def _listing(folder):
    """Return {name: (time of change in ns, bytes, inode)} of the files that may be inputs."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith("."):
                    with contextlib.suppress(OSError):  # it went meanwhile, or cannot be read
                        state = entry.stat()
                        found[entry.name] = (state.st_mtime_ns, state.st_size, state.st_ino)
    except OSError as error:
        said = f"{folder}: cannot be watched: {infer._line(error)}; name a folder"
        raise infer.ModelError(said) from error
    return found


def frames(model, camera):
    """Yield what a camera sees, for ever; `camera` is picamera2 or opencv:N."""
    if model.card["input"]["kind"] != "image":
        raise infer.ModelError("--camera: this model takes arrays, not pictures")
    kind, _, number = camera.partition(":")
    if kind == "picamera2" and not number:
        opened = _picamera2()
    elif kind == "opencv" and re.match(r"\d+$", number):
        opened = _opencv(int(number))
    else:
        raise infer.ModelError(f"--camera must be picamera2 or opencv:N, got {camera}")
    capture, close = opened
    failed = number = 0
    try:
        while failed < _PATIENCE:
            frame = capture()
            name, number = f"{camera}[{number}]", number + 1
            failed = failed + 1 if frame is None else 0
            yield name, _reader(model, name, frame)
    finally:
        close()
    raise infer.ModelError(f"{camera}: gave no picture {_PATIENCE} times; look at its cable")


def _reader(model, name, frame):
    """Return a `read` for the pixels of a frame, uint8 [height, width, 3] in red, green, blue."""

    def read():
        if frame is None:
            raise infer.ImageError(f"{name}: the camera gave no picture")
        if frame.shape == model.shape:
            return frame
        # By way of a file, so that it is shrunk by the very code that shrank the training photos.
        height, width, _ = frame.shape
        return _picture(model, name, b"P6 %d %d 255\n" % (width, height) + frame.tobytes())

    return read


def _picture(model, name, content):
    stream, entry = io.BytesIO(content), model.card["input"]
    stream.name = name
    return infer.read_image(stream, model.shape, entry["resize"], entry["fit"])


def _picamera2():
    """Start the Pi's camera; return how to take a frame and how to stop."""
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        said = "--camera picamera2: sudo apt install python3-picamera2; a venv sees it if it was"
        said += " made with --system-site-packages"
        raise infer.ModelError(f"{said} ({infer._line(error)})") from error
    try:
        camera = Picamera2()
        main = {"size": _FRAME, "format": "BGR888"}
        camera.configure(camera.create_video_configuration(main=main))
        camera.start()
    except (RuntimeError, LookupError, OSError) as error:
        said = "--camera picamera2: no camera answers; look at its cable, and whether another"
        raise infer.ModelError(f"{said} program has it ({infer._line(error)})") from error
    # What was asked for may have been adjusted, and rows padded to a stride.
    given = camera.camera_configuration()["main"]
    order, width = _ORDERS.get(given["format"]), given["size"][0]
    if order is None:
        camera.close()
        raise infer.ModelError(f"--camera picamera2: gives {given['format']}, not one of {_ORDERS}")

    def capture():
        return np.ascontiguousarray(camera.capture_array("main")[:, :width][..., order])

    def close():
        camera.stop()
        camera.close()

    return capture, close


def _opencv(number):
    """Open a camera of OpenCV's; return how to take a frame and how to stop."""
    try:
        import cv2
    except ImportError as error:
        said = "--camera opencv: pip install opencv-python-headless"
        raise infer.ModelError(f"{said} ({infer._line(error)})") from error
    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        said = f"--camera opencv:{number}: there is none, or another program has it"
        raise infer.ModelError(f"{said}; v4l2-ctl --list-devices lists them")

    def capture():
        good, frame = camera.read()
        if not good:
            return None
        if frame.ndim == 2:  # noqa: PLR2004 a grey camera's
            frame = frame[..., None].repeat(3, axis=2)
        return np.ascontiguousarray(frame[..., 2::-1])  # blue, green, red, and perhaps a fourth

    return capture, camera.release


def stdin(model):
    """Yield what stdin brings: pictures or a .npy as such, or the paths of inputs, a line each."""
    if not sys.stdin:
        yield "-", infer.ImageError("-: stdin is closed; name files, or send paths to it")
        return
    start = sys.stdin.buffer.peek(16)
    if re.match(_BINARY, start, re.DOTALL):
        yield from piped(model, sys.stdin.buffer)
        return
    if re.match(_FOREIGN, start, re.DOTALL):
        yield "-", infer.ImageError("-: wants a path a line, a picture or a .npy; got another file")
        return
    lines = (line.rstrip("\r\n") for line in iter(sys.stdin.readline, ""))
    for line in lines:
        if "\0" in line:  # of find -print0, or another file than a picture or a .npy
            yield "-", infer.ImageError("-: wants a path a line, a picture or a .npy")
        elif line not in ("", "-"):
            console = infer._beside("console")
            for path in infer.paths([line], console.suffixes(model)):
                yield from console.items(model, path)


def piped(model, stream):
    """Yield the pictures, one behind the other, or the arrays of the .npy of a binary `stream`."""
    if stream.peek(6)[:6] == b"\x93NUMPY":
        yield from _unpacked(model, stream, "-")
    elif model.card["input"]["kind"] == "image":
        for number, content in enumerate(infer._beside("pictures", "stdin").each(stream)):
            name = f"-[{number}]" if number else "-"
            if isinstance(content, bytes):
                yield name, lambda name=name, content=content: _picture(model, name, content)
            else:
                yield name, content
    else:
        yield "-", _unfit(model, "-", "got a picture")


def arrays(model, path):
    """Yield each array in a .npy or .npz file."""
    if path[-4:].lower() == ".npz":
        yield from _zipped(model, path)
        return
    try:
        stack = np.asarray(np.lib.format.open_memmap(path, mode="r"))
        names = _names_in(model, path, stack.dtype, stack.shape)
    except infer._DAMAGED as error:
        yield path, _unfit(model, path, error)
    else:
        for name, x in zip(names, stack.reshape((-1, *model.shape))):
            yield name, lambda x=x: x


def _zipped(model, path):
    """Yield the arrays of a .npz: of its `x`, or of the only one that it holds."""
    import zipfile  # here: it takes longer to import than an inference does

    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            names = [name for name in names if name == "x.npy"] or names
            if len(names) != 1:
                raise ValueError(f"got {', '.join(names) or 'nothing'}; call the inputs x")
            with archive.open(names[0]) as stream:
                yield from _unpacked(model, stream, path)
    except (*infer._DAMAGED, zipfile.BadZipFile) as error:
        yield path, _unfit(model, path, error)


def _unpacked(model, stream, path):
    """Yield the arrays of a .npy one by one: neither a stack nor a zip bomb need fit in memory."""
    try:
        if np.lib.format.read_magic(stream) != (1, 0):  # a header of the others may be gigabytes
            raise ValueError("got one of fields with names")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        names = _names_in(model, path, dtype, shape)
        if fortran and len(shape) > 1:
            stream = _turned(stream, shape, dtype)
        size_bytes = int(np.prod(model.shape)) * dtype.itemsize
        for name in names:
            content = stream.read(size_bytes)
            if len(content) < size_bytes:
                yield name, infer.ImageError(f"{name}: was cut off; copy it again")
                return
            x = np.frombuffer(content, dtype).reshape(model.shape)
            yield name, lambda x=x: x
    except infer._DAMAGED as error:
        yield path, _unfit(model, path, error)


def _turned(stream, shape, dtype):
    """Return a stream of a stack in Fortran's order, whose items lie apart, one after another."""
    size_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size_bytes > _TURNED_BYTES:
        raise ValueError("got the order of Fortran; save np.ascontiguousarray of it")
    content = stream.read(size_bytes)
    stack = np.frombuffer(content.ljust(size_bytes, b"\0"), dtype).reshape(shape, order="F")
    if len(content) < size_bytes:
        raise ValueError("got a part of one; copy it again")
    return io.BytesIO(stack.tobytes())


def _names_in(model, path, dtype, shape):
    """Return the names of the items in an array from a file; a ValueError if it does not fit."""
    if dtype != model.dtype or model.shape not in (shape, shape[1:]):
        raise ValueError(f"got {dtype} {shape}")
    return [path] if shape == model.shape else (f"{path}[{number}]" for number in range(shape[0]))


def _unfit(model, path, error):
    """Return what to say of a file that holds no arrays for `model`, as an ImageError."""
    said = f"{path}: must be a .npy of {model.dtype} {model.shape}, or a stack of them"
    return infer.ImageError(f"{said}: {infer._line(error)}")
