"""Compare a quantised .tflite with its float network, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfedge.errors import UserError
from tfedge.plan import pipeline
from tfedge.progress import Progress, quietly

if TYPE_CHECKING:
    from tfedge.data.dataset import Split
    from tfedge.tflite.card import Card

KERAS = (".h5", ".keras")

_CHUNK = 256


def compare(
    files: tuple[Path, Path],
    data: Path,
    progress: Progress,
    *,
    count: int,
    changes: Sequence[str],
    build_dir: Path,
) -> dict[str, Any]:
    """Say what was lost from the float network to the quantised file, and in which layers.

    Args:
      files: The float one, a .tflite or a Keras model of tfedge's; and the quantised one, whose
        card says how both are fed.
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
    from tfedge.tflite import card, comparison
    from tfedge.tflite.running import answers

    float_file, quantised = files
    for file in files:
        if not file.exists():
            raise UserError(file, "No such file or directory")
    content = quantised.read_bytes()
    known, _ = card.read(content, quantised)
    split, name = _examples(data, known, quantised, changes, build_dir, progress)
    exact, layers = _float32(float_file, known, split, progress)
    _check_shape(exact, split.inputs.shape[1:], float_file)
    bare = card.strip(content)
    classes: dict[str, Any] = {"float": [], "quantised": []}
    for word, flatbuffer in (("float", exact), ("quantised", bare)):
        with progress.bar(word, len(split.inputs)) as advance:
            for start in range(0, len(split.inputs), _CHUNK):  # all at once may not fit in memory
                rows = _normalised(split.inputs[start : start + _CHUNK], known)
                classes[word].append(answers(flatbuffer, rows).argmax(axis=-1))
                advance(start + len(rows), "")
        classes[word] = np.concatenate(classes[word])
    chosen = stratified(split.classes, count)
    with progress.bar("layers", len(chosen)) as advance:
        rows = _normalised(split.inputs[chosen], known)
        found = comparison.compare(exact, bare, rows, layers, partial(advance, words=""))
    figures: dict[str, Any] = {
        word: accuracy_figures(int((said == split.classes).sum()), len(said), name)
        for word, said in classes.items()
    }
    figures["agreement"] = float(np.mean(classes["float"] == classes["quantised"]))
    return figures | {"split": name, "inputs": found.count, **as_values(found)}


def as_values(found: Any) -> dict[str, Any]:
    """Return a `tflite.comparison.Comparison` as JSON values; what a layer has not is absent."""
    rows = [vars(layer) | {"fused": list(layer.fused)} for layer in found.layers]
    return {
        "left_out": found.left_out,
        "layers": [{k: value for k, value in row.items() if value is not None} for row in rows],
    }


def _examples(
    data: Path,
    known: Card,
    model: Path,
    changes: Sequence[str],
    build_dir: Path,
    progress: Progress,
) -> tuple[Split, str]:
    from tfedge.data.examples import examples

    if data.suffix != ".toml":
        feed = known.input
        return examples(data, known.labels, feed.shape, (feed.resize or "", feed.fit or ""))
    opened = pipeline.load(data, changes).source.open(build_dir, progress)
    if opened.labels != known.labels:
        problem = (
            f"knows the classes {', '.join(known.labels)}, the data has {', '.join(opened.labels)}"
        )
        raise UserError(model, problem, "compare on data with the classes that it was trained on")
    return opened.test, "test"


def _normalised(inputs: Any, known: Card) -> Any:
    """Return inputs as the card says that the network takes them, float32."""
    import numpy as np

    mean, std = (np.asarray(value, np.float32) for value in (known.input.mean, known.input.std))
    return (np.asarray(inputs, np.float32) - mean) / std


def _float32(
    file: Path, known: Card, split: Split, progress: Progress
) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """Return the float .tflite of a file, and the network's layers where it tells them."""
    import numpy as np

    from tfedge.tflite import card, names

    if file.suffix not in KERAS:
        return card.strip(file.read_bytes()), ()
    with quietly():  # TensorFlow's import
        from tfedge.networks.importing import fed_by
        from tfedge.networks.preparation.preparing import Feed
        from tfedge.tflite.conversion import to_float

    progress.say(f"{file}: becomes a .tflite in float32")
    feed = Feed(known.input.mean, known.input.std)
    model = fed_by(file, feed, np.asarray(split.inputs[:16]), len(known.labels))
    return to_float(model), names.of_network(model)


def _check_shape(flatbuffer: bytes, shape: tuple[int, ...], file: Path) -> None:
    from tfedge.tflite.comparison import flow_of

    graph = flow_of(flatbuffer, file).subgraph
    given = graph.tensors[graph.inputs[0]].shape[1:]
    if given != shape:
        problem = f"takes {given}, the quantised file {shape}"
        raise UserError(file, problem, "give two files that were made of one network")
