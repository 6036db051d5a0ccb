#!/usr/bin/env python3
"""Classify pictures or arrays with a .tflite that tfedge built, on the device itself.

    python3 infer.py model.tflite cat.jpg photos/      # a line a picture
    ls *.jpg | python3 infer.py model.tflite - --top-k 3 --format json
    python3 infer.py model.tflite --selftest           # does it answer as on the workstation?
    python3 infer.py model.tflite --bench 200          # milliseconds

Copy this one file and the model.  It runs on Python 3.7 and later, with numpy, ai-edge-litert or
tflite-runtime or tensorflow, and Pillow if it is to read pictures.  Labels and preprocessing come
from the card inside the model.  Exit status: 0 done, 1 self-test failed, 2 a line says what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib.util
import io
import json
import os
import struct
import sys
import time
import zipfile
import zlib

try:
    import numpy as np
except ImportError:
    print("infer.py: needs numpy; install it: pip install numpy", file=sys.stderr)
    sys.exit(2)

RUNTIMES = ("ai-edge-litert", "tflite-runtime", "tensorflow")  # in order of preference
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_ZIP_LIMIT_BYTES = 64 << 20  # of a whole zip, unpacked: a board has little memory
_KINDS = {"image": "uint8", "array": "float32"}  # what a user hands in
_ATTACH = "tfedge attach {} --from ORIGINAL.tflite"
# What zipfile, json, numpy and Pillow raise over bytes that are not what they claim to be.
_DAMAGED = (OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError, AttributeError)
_DAMAGED += (ArithmeticError, MemoryError, RuntimeError, struct.error, zlib.error)
_DAMAGED += (zipfile.BadZipFile,)


class ModelError(Exception):
    """A model or a runtime that cannot be used; the message is one line that says what to do."""


class ImageError(Exception):
    """A picture or an array that cannot be used; the message is one line that names it."""


class Classifier:
    """A model, ready to answer.  `threads` 0 takes up to 4 usable cores, on tflite-runtime 1."""

    def __init__(self, path, threads=0):
        start, path = time.perf_counter(), os.fspath(path)
        try:
            with open(path, "rb") as stream:
                flatbuffer, self._files = split_model(stream.read(), path)
            self.card = json.loads(self._files["card.json"].decode("utf-8"))
            entry, self.labels = self.card["input"], self.card["labels"]
            self.shape, self.dtype = tuple(entry["shape"]), np.dtype(_KINDS[entry["kind"]])
            scaling = np.float32([entry["mean"], entry["std"]]).reshape(2, self.shape[-1])
            self._mean, self._std = scaling
        except _DAMAGED as error:
            raise ModelError(f"{path}: cannot be read: {_line(error)}") from error
        self.runtime, interpreter = load_runtime()
        usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        threads = threads or (1 if self.runtime.startswith("tflite-runtime") else 4)
        self.threads = max(1, min(threads, len(usable)))
        try:
            # Bytes that were checked: over a damaged file one runtime crashes, another is wrong.
            self._interpreter = interpreter(model_content=flatbuffer, num_threads=self.threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, SystemError) as error:
            said = f"{path}: {self.runtime} cannot run it; take a newer one or, for an Edge TPU's"
            raise ModelError(f"{said} model, what it was compiled from ({_line(error)})") from error
        tensors = self._interpreter.get_input_details() + self._interpreter.get_output_details()
        found = [tensor["shape"].tolist() for tensor in tensors]
        if found != [[1, *self.shape], [1, len(self.labels)]]:
            said = f"{path}: its card is another model's: this one's tensors are {found}"
            raise ModelError(f"{said}; put its own in with: {_ATTACH.format(path)}")
        self._input, self._output = tensors
        self._convert = self._look_up() if self.dtype == np.uint8 else self._normalise
        self.load_ms = 1e3 * (time.perf_counter() - start)

    def quantise(self, x):
        """Return the model's tensor [1, *shape] for `x` as recorded: uint8 pixels, else float32."""
        if x.shape != self.shape or x.dtype != self.dtype:
            raise ModelError(f"expected {self.dtype} {self.shape}, got {x.dtype} {x.shape}")
        return self._convert(x)[None]

    def invoke(self, tensor):
        """Run the model on what `quantise` made; return its output [classes] as it is."""
        self._interpreter.set_tensor(self._input["index"], tensor)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])[0]

    def raw(self, x):
        """Return the model's output for `x` as it is: int8 [classes] of an int8 model."""
        return self.invoke(self.quantise(x))

    def logits(self, x):
        """Return the model's logits for `x`, float32 [classes]."""
        return self._dequantised(self.raw(x))

    def classify(self, x, top_k=1):
        """Return the `top_k` likeliest classes, best first: [(label, share from 0 to 1)]."""
        logits = self.logits(x)
        each = self.card["output"].get("probabilities") == "sigmoid"  # classes do not compete
        shares = np.exp(-np.logaddexp(0, -logits) if each else logits - np.logaddexp.reduce(logits))
        best = (-shares).argsort(kind="stable")[:top_k]
        return [(self.labels[i], float(shares[i])) for i in best]

    def selftest(self):
        """Run the golden vectors; return what was wrong, a line each, [] where nothing was."""
        try:
            files = _unzipped(self._files["golden.npz"])
            golden = [np.load(io.BytesIO(files[key + ".npy"])) for key in ("inputs", "outputs")]
            golden.append(np.array(self.card["golden"]["tensors"]))
        except _DAMAGED:
            golden = [np.empty(0)]
        count = len(golden[-1])
        wanted = [(count, *self.shape), (count, len(self.labels)), (count,)]
        if not count or [array.shape for array in golden] != wanted:
            raise ModelError("the model has no golden vectors; build it again with tfedge")
        # The kernels of other runtimes round otherwise now and then.
        limit, findings = int(not self.runtime.startswith(RUNTIMES[0])), []
        for number, (x, output, sha256) in enumerate(zip(*golden)):
            tensor = self.quantise(x)
            off = np.abs(self.invoke(tensor).astype(np.float64) - output).max()
            if hashlib.sha256(tensor.tobytes()).hexdigest() != sha256:
                problem = "preprocessing is wrong; copy infer.py again or take another numpy"
            elif off > limit:
                problem = f"the runtime is wrong by {off:g}; take another than {self.runtime}"
            else:
                continue
            findings.append(f"golden vector {number}: {problem}")
        return findings

    def bench(self, runs, x):
        """Time `runs` calls on `x`, after a tenth as many for warming up; in milliseconds."""

        def ms(work, given):
            start = time.perf_counter()
            work(given)
            return 1e3 * (time.perf_counter() - start)

        figures = {"load_ms": self.load_ms, "first_ms": ms(self.classify, x)}
        parts = {"preprocess": (self.quantise, x), "invoke": (self.invoke, self.quantise(x))}
        parts["total"] = (self.classify, x)
        times = [[ms(*part) for part in parts.values()] for _ in range(runs + runs // 10)][-runs:]
        for q in (50, 90, 95, 99):
            values = np.percentile(times, q, axis=0).tolist()
            figures.update(zip((f"{name}_p{q}_ms" for name in parts), values))
        return {key: round(value, 4) for key, value in figures.items()}

    def _dequantised(self, raw):
        scale, zero = self._output["quantization"]
        # In float: int8 minus a zero point overflows int8.  A scale of 0 is a float output's.
        return (raw.astype(np.float32) - np.float32(zero)) * np.float32(scale or 1)

    def _normalise(self, x):
        """Normalise and quantise float32 [..., channels] in two passes."""
        values = (x - self._mean) / self._std
        if np.isnan(values).any():
            raise ModelError("the input holds NaN; fill the gaps first")
        dtype, (scale, zero) = np.dtype(self._input["dtype"]), self._input["quantization"]
        if dtype.kind == "f":
            return values
        steps = np.round(values / np.float32(scale)) + np.float32(zero)
        return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)

    def _look_up(self):
        # A byte has 256 outcomes a channel: two float passes become one look-up, or one XOR.
        table = self._normalise(np.arange(256, dtype=np.float32)[:, None])
        first = np.ascontiguousarray(table[:, 0])
        if (table != first[:, None]).any():
            flat, offsets = table.T.ravel(), np.arange(self.shape[-1]) * 256
            return lambda x: flat.take(x + offsets)
        if first.dtype == np.int8 and (first == np.arange(-128, 128)).all():
            return lambda x: (x ^ 0x80).view(np.int8)
        return first.take


def read_image(source, shape, resize="bilinear", fit="stretch"):
    """Read a picture, the same for training and on the device; return uint8 `shape`.

    EXIF rotation is honoured, transparency put on white, 16-bit grey reduced to its high byte,
    float grey clipped to 0 to 255, and of an animation the first frame taken.  `source` is a path
    or a binary file object, `shape` (height, width, 1 for grey or 3 for RGB), `resize` one of
    Pillow's filters, `fit` stretch, crop (to the middle) or pad (with black).
    """
    try:
        from PIL import Image, ImageOps  # only this needs Pillow; a camera's frames do not
    except ImportError:
        raise ModelError("reading pictures needs Pillow; install it: pip install pillow") from None
    try:
        with Image.open(source, formats=_FORMATS) as image:
            (height, width, channels), method = shape, getattr(Image, resize.upper())
            if resize != "nearest":
                # A large JPEG is decoded at 1/2, 1/4 or 1/8 if that leaves twice what is needed.
                image.draft(None, (2 * max(height, width),) * 2)
            image = _flat(image, "L" if channels == 1 else "RGB")
            fitted = {"stretch": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[fit]
            image = fitted(image, (width, height), method)
            return np.array(image, np.uint8).reshape(shape)
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "it")
        raise ImageError(f"{name}: cannot be read as a picture: {_line(error)}") from error


def split_model(blob, name="MODEL"):
    """Take apart what tfedge wrote: (flatbuffer, {file: bytes in the zip behind it}), unchanged."""
    if blob[4:8] != b"TFL3":
        raise ModelError(f"{name}: is not a .tflite file, or was damaged; copy it again")
    try:
        files = _unzipped(blob)
        card = json.loads(files["card.json"].decode("utf-8"))
        flatbuffer = blob[: card["flatbuffer"]["bytes"]]
        same = hashlib.sha256(flatbuffer).hexdigest() == card["flatbuffer"]["sha256"]
        known = card["format"] == 1 and card["output"]["kind"] == "logits"
    except _DAMAGED:
        said = f"{name}: has no card or was cut off; copy it again, or put a card in with"
        raise ModelError(f"{said}: {_ATTACH.format(name)}") from None
    if not same:
        raise ModelError(f"{name}: was changed since its card was written; copy it again")
    if not known:
        raise ModelError(f"{name}: its card is newer than infer.py; take its tfedge's infer.py")
    return flatbuffer, files


def load_runtime():
    """Import $TFEDGE_RUNTIME or the first that works; return (name and version, Interpreter)."""
    names = [os.environ["TFEDGE_RUNTIME"]] if os.environ.get("TFEDGE_RUNTIME") else RUNTIMES
    if names[0] not in RUNTIMES:
        raise ModelError(f"TFEDGE_RUNTIME: must be one of {', '.join(RUNTIMES)}, got {names[0]}")
    problem = f"no TFLite runtime found; install one: pip install {names[0]}"
    for name in names:
        module = name.replace("-", "_")
        present = importlib.util.find_spec(module)
        if present and name == "tflite-runtime" and int(np.__version__.split(".")[0]) > 1:
            problem = f'{name} cannot work with numpy {np.__version__}: pip install "numpy<2"'
        elif present:
            try:
                version = getattr(importlib.import_module(module), "__version__", "")
                inner = ".lite.python.interpreter" if name == "tensorflow" else ".interpreter"
                interpreter = importlib.import_module(module + inner).Interpreter
                return f"{name} {version}".strip(), interpreter
            except ImportError as error:
                problem = f"{name} does not load; install it again ({_line(error)})"
    raise ModelError(problem)


def main(argv=None):
    """Answer the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="infer.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", help=".tflite file")
    add("inputs", nargs="*", metavar="INPUT", help="picture, folder, .npy; - for paths on stdin")
    add("--top-k", type=int, default=1, metavar="N", help="classes to name")
    add("--format", help="of the answers", choices=("text", "json", "csv"), default="text")
    add("--threads", type=int, default=0, metavar="N", help="at most the usable cores")
    add("--selftest", action="store_true", help="run the golden vectors instead")
    add("--bench", type=int, default=0, metavar="N", help="time N runs instead")
    args = parser.parse_intermixed_args(argv)
    if args.top_k < 1 or args.threads < 0 or args.bench < 0:
        parser.error("N must be 1 or more")
    if not (args.inputs or args.selftest or args.bench):
        parser.error("give a picture, folder or .npy, - for paths on stdin, --selftest or --bench")
    try:
        return _run(args)
    except (ModelError, ImageError) as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of stdin or stdout; whatever else reads files has its own
        # Python flushes stdout once more on its way out; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 141
        print(f"infer.py: {_line(error)}", file=sys.stderr)
        return 2


def _run(args):
    model, paths, status = Classifier(args.model, args.threads), _paths(args.inputs), 0
    about = {"runtime": model.runtime, "threads": model.threads}
    if args.selftest:
        findings = model.selftest()
        about.update(selftest="failed" if findings else "passed", findings=findings)
        _show(args.format, about, [[text] for text in findings or [f"passed, {model.runtime}"]])
        return 1 if findings else 0
    if args.bench:
        path = next(paths, None)
        x = next(iter(_items(model, path)))[1] if path else np.full(model.shape, 128, model.dtype)
        about.update(runs=args.bench, **model.bench(args.bench, x))
        _show(args.format, about, about.items())
        return 0
    if args.format == "csv":
        _show("csv", {}, [["input", "label", "share"]])
    for path in paths:
        try:
            for name, x in _items(model, path):
                best = model.classify(x, args.top_k)
                classes = [{"label": label, "share": round(share, 6)} for label, share in best]
                rows = [[name, *each.values()] for each in classes]
                _show(args.format, {"input": name, "classes": classes}, rows)
        except ImageError as error:  # noqa: PERF203 one bad picture must not stop the others
            print(f"infer.py: {error}", file=sys.stderr)
            status = 2
    return status


def _show(form, record, rows):
    """Print `record` as a line of JSON, or the `rows` that say the same as text or CSV."""
    if form == "json":
        print(json.dumps(record))
    else:
        between = {"csv": ","}.get(form, "\t")
        csv.writer(sys.stdout, delimiter=between, lineterminator="\n").writerows(rows)
    sys.stdout.flush()


def _paths(names):
    """Yield the files that are meant, a folder's in order."""
    for name in names:
        if name == "-":
            lines = (line.rstrip("\r\n") for line in sys.stdin or ())
            yield from _paths(line for line in lines if line not in ("", "-"))
        elif os.path.isdir(name):
            found = (os.path.join(top, file) for top, _, files in os.walk(name) for file in files)
            yield from sorted(file for file in found if file.lower().endswith(_SUFFIXES)) or [name]
        else:
            yield name


def _items(model, path):
    """Return (name, what the model takes) of a picture, or of each item of a .npy."""
    entry = model.card["input"]
    if entry["kind"] == "image" and not path.lower().endswith(".npy"):
        return [(path, read_image(path, model.shape, entry["resize"], entry["fit"]))]
    try:
        stack = np.asarray(np.load(path, mmap_mode="r"))
        if stack.dtype != model.dtype or model.shape not in (stack.shape, stack.shape[1:]):
            raise ValueError(f"got {stack.dtype} {stack.shape}")
        if np.isnan(stack).any():
            raise ValueError("it holds NaN; fill the gaps first")
    except _DAMAGED as error:
        said = f"{path}: must be a .npy of {model.dtype} {model.shape}, or a stack of them"
        raise ImageError(f"{said}: {_line(error)}") from error
    if stack.shape == model.shape:
        return [(path, stack)]
    return ((f"{path}[{number}]", x) for number, x in enumerate(stack))


def _unzipped(blob):
    """Return {name: bytes} of the zip in, or at the end of, `blob`."""
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of these, read(n) unpacks n bytes at most
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        entries = [entry for entry in archive.infolist() if entry.compress_type in kinds]
        if sum(entry.file_size for entry in entries) > _ZIP_LIMIT_BYTES:
            raise ValueError("too large a zip")
        return {entry.filename: archive.open(entry).read(entry.file_size + 1) for entry in entries}


def _flat(image, mode):
    """Return `image` upright, opaque, of 8 bits, and in `mode`: L or RGB."""
    from PIL import Image, ImageOps

    with contextlib.suppress(*_DAMAGED):  # a broken note of how the camera was held is none
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        grey = np.asarray(image)
        grey = np.nan_to_num(grey).clip(0, 255) if image.mode == "F" else grey.clip(0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _line(error):
    """Return an error's text in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    for stream in filter(None, (sys.stdin, sys.stdout)):
        stream.reconfigure(errors="backslashreplace")  # no name and no label may stop the work
    sys.stdout = sys.stdout or io.StringIO()
    sys.exit(main())
