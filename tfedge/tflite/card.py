"""The card: what a .tflite says about itself, so that a board needs no other file.

A card is JSON in a zip archive appended to the flatbuffer, the place where TFLite's own metadata
tools put label files.  Interpreters stop reading where the flatbuffer ends; ``unzip -p model.tflite
card.json`` shows the card anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.tflite import container, metadata
from tfedge.tflite.facts import facts
from tfedge.tflite.graph import Tensor

CARD, LABELS, GOLDEN = "card.json", "labels.txt", "golden.npz"

_FORMAT = 1
_IMAGE_AXES, _CHANNELS = 3, (1, 3)


@dataclass(frozen=True)
class Input:
    """What the model is fed with: x becomes (x - mean) / std, then is quantised.

    Attributes:
      kind: ``image`` (uint8 [height, width, channels]) or ``array`` (float32 of `shape`).
      shape: Without the batch.
      mean: One number for each index of the last axis; an image's are in pixel units.
      std: As `mean`.
      resize: Pillow's name of the filter for pictures of another size; images only.
      fit: What is done where the aspect differs: ``stretch``, ``crop`` or ``pad``; images only.
    """

    kind: str
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str | None = None
    fit: str | None = None


@dataclass(frozen=True)
class Maker:
    """What made the model: the version of tfedge, the pipeline's name, the stage's, and its key."""

    tfedge: str
    pipeline: str
    stage: str
    key: str


@dataclass(frozen=True)
class Fingerprint:
    """The flatbuffer that a card belongs to."""

    bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.bytes} bytes of sha256 {self.sha256[:12]}"


@dataclass(frozen=True)
class Card:
    """How to feed a model and how to read what it answers.

    Attributes:
      labels: The classes' names, in the order of the output's last axis.
      golden: For each golden input, the sha256 of the bytes of its quantised tensor.
      measured: Figures of this very model by split.
      output: What the answer is.
      probabilities: What makes probabilities of the logits: ``softmax``, or ``sigmoid`` where
        several classes can be true at once.
      flatbuffer: Filled in by `write`.
      exits: For a file of stages, when to leave; see `promising`.  Empty for a plain classifier.
    """

    labels: tuple[str, ...]
    input: Input
    made_by: Maker
    golden: tuple[str, ...] = ()
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    output: str = "logits"
    probabilities: str = "softmax"
    flatbuffer: Fingerprint | None = None
    exits: Mapping[str, Any] = field(default_factory=dict)


def write(flatbuffer: bytes, card: Card, files: Mapping[str, bytes] | None = None) -> bytes:
    """Return a file of the model, its standard metadata, its card and `files`.

    The same model, card and files make the same bytes.

    Args:
      flatbuffer: The model, without an archive behind it.
      files: What else goes into the archive by name, such as `GOLDEN` from `golden_npz`.
    """
    _check(card)
    feed = metadata.Feed(
        card.input.kind == "image", card.input.shape, card.input.mean, card.input.std
    )
    made = card.made_by
    described = metadata.embed(
        flatbuffer, metadata.build(made.pipeline, made.key[:12], feed, LABELS)
    )
    card = replace(card, flatbuffer=_fingerprint(described))
    own = {CARD: _to_json(card), LABELS: "".join(f"{label}\n" for label in card.labels).encode()}
    others = {name: content for name, content in (files or {}).items() if name not in own}
    return container.pack({**own, **others}, behind=described)


def read(blob: bytes, where: object) -> tuple[Card, dict[str, bytes]]:
    """Return a model's card and the other files behind the model by name.

    Args:
      where: What an error calls the file.

    Raises:
      UserError: There is no card, it cannot be read, or the model is not the one that the card was
        made for.
    """
    found = find(blob, where)
    if found is None:
        raise UserError(
            where, "has no card", f"put one in with: tfedge attach {where} --from ORIGINAL.tflite"
        )
    return found


def find(blob: bytes, where: object) -> tuple[Card, dict[str, bytes]] | None:
    """Do as `read` does, but return None for a file without a card."""
    flatbuffer, archive = container.split(blob)
    files = container.unpack(archive, where)
    if CARD not in files:
        return None
    card = _from_json(files.pop(CARD), where)
    got = _fingerprint(flatbuffer)
    if card.flatbuffer != got:
        raise UserError(
            where,
            "the model is not the one its card was made for: "
            f"expected {card.flatbuffer}, got {got}",
            "copy or build it again",
        )
    return card, files


def strip(blob: bytes) -> bytes:
    """Return the bare flatbuffer, the standard metadata still in it."""
    return container.split(blob)[0]


def transplant(model: bytes, original: bytes, where: object, original_where: object) -> bytes:
    """Return `model`, which lost its card to another tool, with that of `original`.

    ``edgetpu_compiler`` drops whatever is behind the flatbuffer.  The golden vectors come along
    too, so the two must be fed alike and must answer alike.

    Args:
      model: A file with or without a card.
      original: The file that `model` was made from.
      where: What an error calls `model`.
      original_where: What an error calls `original`.
    """
    card, files = read(original, original_where)
    ours, theirs = facts(model, where), facts(original, original_where)
    for end, got, expected in (
        ("input", ours.inputs, theirs.inputs),
        ("output", ours.outputs, theirs.outputs),
    ):
        if _ends(got) != _ends(expected):
            raise UserError(
                where,
                f"its {end} is {_ends(got)}, that of {original_where} is {_ends(expected)}",
                "attach the card of the file that this one was made from",
            )
    return write(strip(model), card, files)


def golden_npz(inputs: np.ndarray, outputs: np.ndarray, exits: np.ndarray | None = None) -> bytes:
    """Return golden vectors as `numpy.load` reads them; the same arrays make the same bytes.

    Args:
      inputs: What a user would hand in, before normalising: uint8 or float32 [count, *shape].
      outputs: The raw tensors that the reference runtime answered, int8 [count, classes].
      exits: Those of each exit, int8 [exits, count, classes], of a network that has some.
    """
    files = {}
    arrays = {"inputs": inputs, "outputs": outputs, **({} if exits is None else {"exits": exits})}
    for name, array in arrays.items():
        out = io.BytesIO()
        np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{name}.npy"] = out.getvalue()
    # numpy.savez would put the clock in.
    return container.pack(files, deflate=True)


def as_dict(card: Card) -> dict[str, Any]:
    """Return the card as card.json has it."""
    fed = card.input
    sizing = {"resize": fed.resize, "fit": fed.fit} if fed.kind == "image" else {}
    return {
        "format": _FORMAT,
        "labels": list(card.labels),
        "input": {
            "kind": fed.kind,
            "shape": list(fed.shape),
            "mean": [float(value) for value in fed.mean],
            "std": [float(value) for value in fed.std],
            **sizing,
        },
        "output": {"kind": card.output, "probabilities": card.probabilities},
        "golden": {"count": len(card.golden), "tensors": list(card.golden)},
        "made_by": asdict(card.made_by),
        "measured": {split: dict(figures) for split, figures in card.measured.items()},
        **({"exits": dict(card.exits)} if card.exits else {}),
        "flatbuffer": asdict(card.flatbuffer) if card.flatbuffer else None,
    }


def _to_json(card: Card) -> bytes:
    return (json.dumps(as_dict(card), indent=1, ensure_ascii=False) + "\n").encode()


def _from_json(text: bytes, where: object) -> Card:
    try:
        data = json.loads(text)
        if data["format"] != _FORMAT:
            raise UserError(
                where,
                f"its card has format {data['format']!r}, this tfedge reads {_FORMAT}",
                "install the tfedge that made it, or a newer one",
            )
        card = _card(data)
        _check(card)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"its card cannot be read ({type(error).__name__}: {error})"
        raise UserError(where, problem, "build or copy the model again") from error
    return card


def _card(data: dict[str, Any]) -> Card:
    fed, made, model = data["input"], data["made_by"], data["flatbuffer"]
    return Card(
        labels=tuple(str(label) for label in data["labels"]),
        input=Input(
            kind=fed["kind"],
            shape=tuple(int(size) for size in fed["shape"]),
            mean=tuple(float(value) for value in fed["mean"]),
            std=tuple(float(value) for value in fed["std"]),
            resize=fed.get("resize"),
            fit=fed.get("fit"),
        ),
        made_by=Maker(made["tfedge"], made["pipeline"], made["stage"], made["key"]),
        golden=tuple(data["golden"]["tensors"]),
        measured={split: dict(figures) for split, figures in data["measured"].items()},
        output=data["output"]["kind"],
        probabilities=data["output"].get("probabilities", "softmax"),
        flatbuffer=Fingerprint(int(model["bytes"]), str(model["sha256"])),
        exits=data.get("exits", {}),
    )


def _check(card: Card) -> None:
    """Refuse a card that says two things at once; what reads it relies on this."""
    fed = card.input
    if any("\n" in label or "\r" in label for label in card.labels):
        raise ValueError(f"a label with a line break: {card.labels}")
    if fed.kind not in ("image", "array"):
        raise ValueError(f"input kind: expected image or array, got {fed.kind!r}")
    if card.probabilities not in ("softmax", "sigmoid"):
        raise ValueError(f"expected softmax or sigmoid, got {card.probabilities!r}")
    if not len(fed.mean) == len(fed.std) == fed.shape[-1]:
        raise ValueError(f"expected {fed.shape[-1]} of mean and std, got {fed.mean} and {fed.std}")
    if card.exits:
        _check_exits(card.exits)
    if fed.kind == "image" and (len(fed.shape) != _IMAGE_AXES or fed.shape[-1] not in _CHANNELS):
        raise ValueError(f"expected height, width and 1 or 3 channels, got {fed.shape}")


def _check_exits(exits: Mapping[str, Any]) -> None:
    """Refuse exits that a runner could not follow."""
    count = len(exits["signatures"])
    for name in ("temperatures", "logits"):
        if len(exits[name]) != count:
            raise ValueError(f"{count} exits, but {len(exits[name])} {name}")
    for point in exits["points"]:
        if len(point["thresholds"]) != count - 1:
            raise ValueError(f"{count} exits, but {len(point['thresholds'])} thresholds")
    if not 0 <= exits["chosen"] < len(exits["points"]):
        raise ValueError(f"point {exits['chosen']} of {len(exits['points'])} is chosen")


def _fingerprint(flatbuffer: bytes) -> Fingerprint:
    return Fingerprint(len(flatbuffer), hashlib.sha256(flatbuffer).hexdigest())


def _ends(tensors: tuple[Tensor, ...]) -> str:
    """Describe inputs or outputs as far as a caller can tell them apart."""
    return ", ".join(
        f"{tensor.dtype} {list(tensor.shape)}"
        + "".join(
            f" (scale {scale:.6g}, zero point {zero})"
            for scale, zero in zip(tensor.scales, tensor.zero_points, strict=True)
        )
        for tensor in tensors
    )
