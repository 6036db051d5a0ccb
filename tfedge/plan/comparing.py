"""Compare a quantised .tflite with its float network, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfedge.errors import UserError
from tfedge.plan import pipeline
from tfedge.plan.refs import Ref
from tfedge.progress import Progress, quietly

if TYPE_CHECKING:
    from tfedge.data.dataset import Split
    from tfedge.tflite.card import Card

KERAS = (".h5", ".keras")

_CHUNK = 256
_LOOKED_AT = 16
_COLOURS = 3
_CLOSER = 4.0


@dataclass(frozen=True)
class Files:
    """What is compared.

    Attributes:
      exact: The float one: a .tflite, or a Keras model of tfedge's or of the user's.
      quantised: The other, whose card says how both are fed.
      custom: A file, and a layer or model in it, that the Keras model needs.
      trust: Whether code that its file holds may run, such as a Lambda's.
    """

    exact: Path
    quantised: Path
    custom: Ref | None = None
    trust: bool = False

    def check(self) -> None:
        """Refuse files that are not there, and a folder where a .tflite belongs."""
        for file in (self.exact, self.quantised):
            if not file.exists():
                raise UserError(file, "No such file or directory")
        if self.quantised.is_dir():
            raise UserError(self.quantised, "is a folder", "give the .tflite file in it")


def compare(
    files: Files,
    data: Path,
    progress: Progress,
    *,
    count: int,
    changes: Sequence[str],
    build_dir: Path,
) -> dict[str, Any]:
    """Say what was lost from the float network to the quantised file, and in which layers.

    Args:
      data: As `measuring.evaluate` takes it.
      count: Inputs that the layers are compared on, of every class in turn; the accuracies are of
        all inputs.
      changes: Settings that take the place of a pipeline file's.
      build_dir: Where a pipeline's data is, or will be, decoded.

    Returns:
      ``float`` and ``quantised`` with accuracy and interval, ``agreement`` (the share of inputs to
      which both answer the same class), and ``layers``, the worst first; see
      `tflite.comparison.LayerDifference`.
    """
    import numpy as np

    from tfedge.data.sampling import stratified
    from tfedge.figures import accuracy_figures
    from tfedge.tflite import card, comparison, layerwise
    from tfedge.tflite.running import answers

    quantised = files.quantised
    files.check()
    content = quantised.read_bytes()
    known, _ = card.read(content, quantised)
    split, name = examples(data, known, quantised, changes, build_dir, progress)
    bare = card.strip(content)
    exact, layers = _float32(files, known, split, progress)
    _check_shape(exact, split.inputs.shape[1:], files.exact)
    _check_colours((exact, bare), known, split, files.exact)
    classes: dict[str, Any] = {"float": [], "quantised": []}
    for word, flatbuffer in (("float", exact), ("quantised", bare)):
        with progress.bar(word, len(split.inputs)) as advance:
            for start in range(0, len(split.inputs), _CHUNK):  # all at once may not fit in memory
                rows = normalised(split.inputs[start : start + _CHUNK], known)
                classes[word].append(answers(flatbuffer, rows).argmax(axis=-1))
                advance(start + len(rows), "")
        classes[word] = np.concatenate(classes[word])
    chosen = stratified(split.classes, count)
    with progress.bar("layers", len(chosen)) as advance:
        rows = normalised(split.inputs[chosen], known)
        found = comparison.compare(exact, bare, rows, layers, partial(advance, words=""))
    figures: dict[str, Any] = {
        word: accuracy_figures(int((said == split.classes).sum()), len(said), name)
        for word, said in classes.items()
    }
    figures["agreement"] = float(np.mean(classes["float"] == classes["quantised"]))
    told = {"left_out": found.left_out, "layers": layerwise.rows(found)}
    return figures | {"split": name, "inputs": found.count, **told}


def examples(
    data: Path,
    known: Card,
    model: Path,
    changes: Sequence[str],
    build_dir: Path,
    progress: Progress,
) -> tuple[Split, str]:
    """Return examples as a card says that they are read, and which split they are.

    Args:
      data: As `measuring.evaluate` takes it.
      model: The file that has the card, for messages.
    """
    from tfedge.data import examples as of_files

    if data.suffix != ".toml":
        feed = known.input
        return of_files.examples(
            data, known.labels, feed.shape, (feed.resize or "", feed.fit or "")
        )
    opened = pipeline.load(data, changes).source.open(build_dir, progress)
    if opened.labels != known.labels:
        problem = (
            f"knows the classes {', '.join(known.labels)}, the data has {', '.join(opened.labels)}"
        )
        raise UserError(model, problem, "compare on data with the classes that it was trained on")
    return opened.test, "test"


def normalised(inputs: Any, known: Card) -> Any:
    """Return inputs as the card says that the network takes them, float32."""
    import numpy as np

    mean, std = (np.asarray(value, np.float32) for value in (known.input.mean, known.input.std))
    return (np.asarray(inputs, np.float32) - mean) / std


def _float32(
    files: Files, known: Card, split: Split, progress: Progress
) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """Return the float .tflite of a file, and the network's layers where it tells them."""
    import numpy as np

    from tfedge.tflite import card, names

    file = files.exact
    if file.suffix not in KERAS and not file.is_dir():
        return card.strip(file.read_bytes()), ()
    with quietly():  # TensorFlow's import
        from tfedge.networks.backend import classes_in
        from tfedge.networks.importing import fed_by
        from tfedge.networks.preparation.preparing import Feed
        from tfedge.tflite.conversion import to_float

    progress.say(f"{file}: becomes a .tflite in float32")
    feed, samples = Feed(known.input.mean, known.input.std), np.asarray(split.inputs[:_LOOKED_AT])
    custom = classes_in(files.custom.module()) if files.custom else {}
    try:
        model = fed_by(file, feed, samples, len(known.labels), trust=files.trust, custom=custom)
    except UserError as error:
        where, problem, fix = error.parts
        for setting, option in (("trust = true", "--trust"), ("custom = ", "--custom ")):
            fix = fix.replace(f"write {setting}", f"give {option}").replace(setting, option)
        raise UserError(where, problem, fix) from error
    return to_float(model), names.of_network(model)


def _check_colours(files: tuple[bytes, bytes], known: Card, split: Split, file: Path) -> None:
    """Refuse a network that answers as the quantised file does with red and blue swapped only.

    One that was trained on blue, green, red is turned when it is imported, and the card says
    nothing of it.
    """
    import numpy as np

    from tfedge.tflite.running import answers

    exact, bare = files
    x = normalised(split.inputs[:_LOOKED_AT], known)
    if known.input.kind != "image" or x.shape[-1] != _COLOURS:
        return
    said = answers(bare, x)
    straight, turned = (
        float(np.mean((answers(exact, fed) - said) ** 2)) for fed in (x, x[..., ::-1])
    )
    if turned < straight / _CLOSER:
        problem = "answers as the quantised file only with red and blue swapped"
        fix = (
            'give the model.h5 of its import stage\'s folder: blue_first, or takes = "caffe",'
            " is in its weights"
        )
        raise UserError(file, problem, fix)


def _check_shape(flatbuffer: bytes, shape: tuple[int, ...], file: Path) -> None:
    from tfedge.tflite.comparison import flow_of

    graph = flow_of(flatbuffer, file).subgraph
    given = graph.tensors[graph.inputs[0]].shape[1:]
    if given != shape:
        problem = f"takes {given}, the quantised file {shape}"
        raise UserError(file, problem, "give two files that were made of one network")
