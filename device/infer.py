#!/usr/bin/env python3
"""Classify pictures or arrays with a .tflite that tfedge built, on the device itself.

    python3 infer.py model.tflite cat.jpg photos/      # a line a picture
    python3 infer.py model.tflite --selftest           # does it answer as on the workstation?

This file and the model are enough; the files beside it do the rest.  Wants Python 3.7, numpy, a
TFLite runtime, for pictures Pillow 8.  Exit status: 0 done, 1 self-test failed, 2 a line says why.
"""

import contextlib
import glob
import hashlib
import importlib.util
import io
import json
import os
import struct
import sys
import time
import warnings
import zlib

try:
    import numpy as np
except ImportError:
    print("infer.py: needs numpy; install it: pip install numpy", file=sys.stderr)
    sys.exit(2)

RUNTIMES = ("ai-edge-litert", "tflite-runtime", "tensorflow")  # in order of preference
_HERE = os.path.dirname(os.path.abspath(__file__))
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_ZIP_LIMIT_BYTES = 64 << 20  # of a whole zip, unpacked: a board has little memory
_MOST_PIXELS = 1 << 25  # of a picture, at up to 12 bytes each
_EDGETPU = b"edgetpu-custom-op"  # the operator that stands for what Google's compiler compiled
_KINDS = {"image": "uint8", "array": "float32"}  # what a user hands in
_ZIP_ENTRY = "<4s6xH4xIIIHHH8xI"  # in its directory; PKWARE's APPNOTE, section 4.3.12
_ATTACH = "tfedge attach {} --from ORIGINAL.tflite"
# What zlib, json, numpy and Pillow raise over bytes that are not what they claim to be.
_DAMAGED = (OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError, AttributeError)
_DAMAGED += (ArithmeticError, MemoryError, RuntimeError, struct.error, zlib.error)
_COMPLAINTS = (  # words of a runtime's errors, and what they ask for
    ("edgetpu-custom-op", "needs --delegate edgetpu for it, or the file it was compiled from"),
    ("Didn't find op", "is too old for it: pip install -U ai-edge-litert, or convert it for this"),
    ("custom op", "lacks one of its operators; convert it again with those of TFLite alone"),
    ("exception set", 'does not go with this numpy: pip install "numpy<2"'),
    ("Cannot set tensor", "takes no such tensor; give it what quantise returns"),
    ("reference to internal", "must not have its memory looked into meanwhile; copy that first"),
    ("", "cannot run it; take a newer one"),
)


class ModelError(Exception):
    """A model or a runtime that cannot be used; the message is one line that says what to do."""


class ImageError(Exception):
    """A picture or an array that cannot be used; the message is one line that names it."""


class Classifier:
    """A model, ready to answer.

    `threads` 0 takes up to 4 usable cores, on tflite-runtime 1; `delegate` is auto, cpu, edgetpu,
    edgetpu:usb, edgetpu:pci or edgetpu:N, where auto is an Edge TPU if the file is made for one.
    """

    def __init__(self, path, threads=0, delegate="auto"):
        start, path = time.perf_counter(), os.fspath(path)
        flatbuffer = self._read(path)
        self.runtime, interpreter = load_runtime()
        self.threads, self.delegate = _threads(threads, self.runtime), "cpu"
        # The very bytes whose size and SHA-256 were right: the file may be another by now.
        options = {"model_content": flatbuffer, "num_threads": self.threads}
        if delegate != "cpu" and (delegate != "auto" or _EDGETPU in flatbuffer):
            loaded = _beside("edgetpu", "--delegate edgetpu").load(delegate, flatbuffer, path)
            self.delegate, options["experimental_delegates"] = loaded
        try:
            self._interpreter = interpreter(**options)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, SystemError) as error:
            raise _meaning(error, f"{path}: {self.runtime}") from error
        ins, outs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        found = [tensor["shape"].tolist() for tensor in ins + outs]
        part = "stage" in self.card.get("exits", ()) and _beside("console", "one stage of several")
        if not part and found != [[1, *self.shape], [1, len(self.labels)]]:
            said = f"{path}: its card is another model's: this one's tensors are {found}"
            raise ModelError(f"{said}; put its own in with: {_ATTACH.format(path)}")
        self._input, self._output = ins[0], outs[0]
        scale, zero = self._output["quantization"]  # a scale of 0 is a float output's
        self._scale, self._zero = (np.array(x, np.float32) for x in (scale or 1, zero))
        self._convert = self._look_up() if self.dtype == np.uint8 else self._normalise
        self.load_ms = 1e3 * (time.perf_counter() - start)

    def quantise(self, x):
        """Return the model's tensor [1, *shape] for `x` as recorded: uint8 pixels, else float32."""
        if x.shape != self.shape or x.dtype != self.dtype:
            raise ModelError(f"expected {self.dtype} {self.shape}, got {x.dtype} {x.shape}")
        return self._convert(x)[None]

    def invoke(self, tensor):
        """Run the model on what `quantise` made; return its output [classes] as it is."""
        try:
            self._interpreter.reset_all_variables()  # an LSTM would go on from the last input
            self._interpreter.set_tensor(self._input["index"], tensor)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output["index"])[0]
        except (ValueError, RuntimeError) as error:
            raise _meaning(error, self.runtime) from error

    def raw(self, x):
        """Return the model's output for `x` as it is: int8 [classes] of an int8 model."""
        return self.invoke(self.quantise(x))

    def logits(self, x):
        """Return the model's logits for `x`, float32 [classes]."""
        return (self.raw(x) - self._zero) * self._scale

    def classify(self, x, top_k=1):
        """Return the `top_k` likeliest classes, best first: [(label, share from 0 to 1)]."""
        logits = self.logits(x)
        each = self.card["output"].get("probabilities") == "sigmoid"  # classes do not compete
        shares = np.exp(-np.logaddexp(0, -logits) if each else logits - np.logaddexp.reduce(logits))
        best = [shares.argmax()] if top_k == 1 else (-shares).argsort(kind="stable")[:top_k]
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
        limit, findings = int(not self.runtime.startswith(RUNTIMES[0])), []  # others may round
        for number, (x, output, sha256) in enumerate(zip(*golden)):
            tensor = self.quantise(x)
            off = np.abs(self.invoke(tensor).astype(np.float64) - output).max()
            if hashlib.sha256(tensor.tobytes()).hexdigest() != sha256:
                findings.append(f"golden vector {number}: preprocessing is wrong; copy infer.py")
            elif off > limit:
                problem = f"the runtime is wrong by {off:g}; take another than {self.runtime}"
                findings.append(f"golden vector {number}: {problem}")
        return findings

    def _read(self, path):
        """Take in all but the flatbuffer, which is returned."""
        try:
            with open(path, "rb") as stream:
                flatbuffer, self._files = split_model(stream.read(), path)
            self.card = json.loads(self._files["card.json"].decode("utf-8"))
            fed, self.labels = self.card["input"], self.card["labels"]
            self.shape, self.dtype = tuple(fed["shape"]), np.dtype(_KINDS[fed["kind"]])
            self._mean, self._std = np.float32([fed["mean"], fed["std"]]).reshape(2, self.shape[-1])
        except _DAMAGED as error:
            fix = "copy it again" if os.path.isfile(path) else "look at the path"
            raise ModelError(f"{path}: cannot be read: {_line(error)}; {fix}") from error
        return flatbuffer

    def _normalise(self, x):
        """Normalise and quantise float32 [..., channels] in two passes."""
        values = (x - self._mean) / self._std
        if np.isnan(values).any():
            raise ImageError("it holds NaN; fill the gaps first")
        dtype, (scale, zero) = np.dtype(self._input["dtype"]), self._input["quantization"]
        if dtype.kind == "f":
            return values
        steps = np.round(values / np.float32(scale)) + np.float32(zero)
        return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)

    def _look_up(self):
        """Return what turns pixels into a tensor: a byte has 256 outcomes a channel."""
        table = self._normalise(np.arange(256, dtype=np.float32)[:, None])
        alike, dtype, ends = (table == table[:, :1]).all(), table.dtype, (table.min(), table.max())
        if alike and dtype == np.int8 and (table[:, 0] == np.arange(-128, 128)).all():
            return lambda x: (x ^ 0x80).view(np.int8)
        if alike and dtype.itemsize == 1 and not np.prod(self.shape) % 2:  # two bytes at once
            flat = table[np.arange(1 << 16, dtype=np.uint16).view(np.uint8), 0].view(np.uint16)
            return lambda x: flat.take(x.reshape(-1).view(np.uint16)).view(dtype).reshape(x.shape)
        scale, zero = self._input["quantization"]
        steps = self._std.astype(np.float64) * (scale or 1)
        each = np.float32([1 / steps, zero - self._mean / steps, steps])
        found = np.rint(np.float32(range(256))[:, None] * each[0] + each[1])
        last = np.rint if (found == table).all() else lambda x, to: np.rint(x, to).clip(*ends, to)
        if (found.clip(*ends) != table).any():  # where halves are rounded another way
            return lambda x: table[x, range(table.shape[1])]
        factor, shift, held = np.tile(each, int(np.prod(self.shape[:-1])))  # the last is scratch

        def reckon(x):  # the same, and faster
            np.add(np.multiply(x.reshape(-1), factor, held), shift, held)
            return last(held, held).astype(dtype).reshape(x.shape)

        return reckon


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
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError("it has more than 33 million pixels; shrink it first")
            image = _flat(image, "L" if channels == 1 else "RGB")
            fitted = {"stretch": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[fit]
            return np.array(fitted(image, (width, height), method), np.uint8).reshape(shape)
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        if "argument 'formats'" in str(error):  # the same for every picture
            raise ModelError("this Pillow is too old; pip install 'pillow>=8'") from error
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
    problem = f"no TFLite runtime found: pip install {names[0]}, or what --doctor says"
    for name in names:
        module = name.replace("-", "_")
        present = importlib.util.find_spec(module)
        if present and name == "tflite-runtime" and int(np.__version__.split(".")[0]) > 1:
            problem = f'{name} cannot work with numpy {np.__version__}: pip install "numpy<2"'
        elif present:
            try:
                version = getattr(importlib.import_module(module), "__version__", "")
                inner = ".lite.python.interpreter" if name == "tensorflow" else ".interpreter"
                found = importlib.import_module(module + inner)
                return f"{name} {version}".strip(), found.Interpreter
            except ImportError as error:
                problem = f"{name} does not load; install it again ({_line(error)})"
    raise ModelError(problem)


def main(argv):
    """Answer the command line; return the exit status."""
    try:
        alone = not os.path.exists(os.path.join(_HERE, "console.py"))
        return _alone(argv) if alone else _beside("console").run(argv)
    except (ModelError, ImageError) as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of stdin or what is written to; whatever else reads has its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Python's last flush goes to
        if isinstance(error, BrokenPipeError):
            return 141
        print(f"infer.py: {error.filename or '-'}: {_line(error)}", file=sys.stderr)
        return 2


def _alone(argv):
    """Answer the command line without console.py: classify pictures, or run the self-test."""
    names = [word for word in argv if word != "--selftest"]
    for option in (word for word in names if word.startswith("-")):
        raise ModelError(f"{option} needs console.py beside infer.py; copy it there")
    if not names or len(argv) == 1:
        raise ModelError("give a model, and a picture or folder, or --selftest")
    model, status = Classifier(names.pop(0)), 0
    if model.dtype != np.uint8 or any(path.endswith((".npy", ".npz")) for path in names):
        raise ModelError("arrays need console.py and feeds.py beside infer.py; copy them there")
    if "--selftest" in argv:
        findings = model.selftest()
        print("\n".join(findings) or f"passed, {model.runtime}")
        return 1 if findings else 0
    for path in paths(names):
        try:
            x = read_image(path, model.shape, *map(model.card["input"].get, ("resize", "fit")))
            print(path, "{}\t{:.6g}".format(*model.classify(x)[0]), sep="\t", flush=True)
        except ImageError as error:  # noqa: PERF203 one bad picture must not stop the others
            print(f"infer.py: {error}", file=sys.stderr)
            status = 2
    return status


def paths(names, suffixes=_SUFFIXES):
    """Yield the files that are meant, those of a folder (of these kinds) or pattern in order."""
    for name in names:
        found = [] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if "**" in name:  # it found what is in the folders, too
            found = [path for path in found if not os.path.isdir(path)]
        for path in found or [name]:
            inside = [os.path.join(top, file) for top, _, files in os.walk(path) for file in files]
            yield from sorted(file for file in inside if file.lower().endswith(suffixes)) or [path]


def _beside(name, wanted=""):
    """Import `name`.py from this file's folder; there, `import infer` is this module."""
    path = os.path.join(_HERE, name + ".py")
    if not os.path.exists(path):
        raise ModelError(f"{wanted or '--' + name} needs {name}.py beside infer.py; copy it there")
    sys.modules["infer"], found = sys.modules[__name__], sys.modules.get(name)
    if getattr(found, "__file__", "") != path:
        spec = importlib.util.spec_from_file_location(name, path)
        found = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    return found


def _threads(wanted, runtime):
    """Return how many threads to take: one too many stalls all that tflite-runtime has."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return max(1, min(wanted or (1 if runtime.startswith("tflite-runtime") else 4), len(usable)))


def _unzipped(blob):
    """Return {name: bytes} of the zip in, or behind, `blob`: zipfile takes 7 ms to be imported."""
    end = blob.rfind(b"PK\5\6", max(0, len(blob) - 22 - (1 << 16)))  # a comment may follow
    count, size, start = struct.unpack_from("<HII", blob, end + 10)
    at, ahead, files, room = end - size, end - size - start, {}, _ZIP_LIMIT_BYTES
    for _ in range(count):
        head, method, crc, packed, full, *parts, place = struct.unpack_from(_ZIP_ENTRY, blob, at)
        name = blob[at + 46 : at + 46 + parts[0]].decode("utf-8")
        at, place, deflated = at + 46 + sum(parts), ahead + place + 30, method == 8  # noqa: PLR2004
        place += sum(struct.unpack_from("<HH", blob, place - 4))
        data = blob[place : place + (packed if deflated else full)]
        if deflated or not method:  # the only ones that are unpacked no further than is asked
            room -= full
            if deflated:
                data = room >= 0 and zlib.decompressobj(-15).decompress(data, full + 1)
            if head != b"PK\1\2" or room < 0 or zlib.crc32(data) != crc:
                raise ValueError("a damaged zip, or too large a one")
            files[name] = data
    return files


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
        image = image if image.mode == "RGBA" else image.convert("RGBA")  # of a large one no copy
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _meaning(error, who):
    """Return a runtime's complaint as a ModelError: `who`, what to do, what it said."""
    meaning = next(meaning for words, meaning in _COMPLAINTS if words in str(error))
    return ModelError(f"{who} {meaning} ({_line(error)})")


def _line(error):
    """Return an error's text in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of Pillow's about odd pictures, which are lines, too
    for stream in filter(None, (sys.stdin, sys.stdout)):
        stream.reconfigure(errors="backslashreplace")  # no name and no label may stop the work
    sys.stdout = sys.stdout or io.StringIO()
    sys.exit(main(sys.argv[1:]))
