"""Accuracy and latency of a .tflite, measured by the board's own script."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tfedge import paths
from tfedge.data.dataset import Split
from tfedge.data.sampling import stratified
from tfedge.errors import UserError
from tfedge.figures import accuracy_figures
from tfedge.progress import Progress, quietly
from tfedge.tflite.facts import facts
from tfedge.tflite.reliability import reliability

SHOWN = 24
"""How many inputs that were lost are named."""


def evaluate(
    file: Path,
    split: Split,
    labels: tuple[str, ...],
    name: str,
    progress: Progress,
    *,
    reference: np.ndarray | None = None,
) -> dict[str, Any]:
    """Run a .tflite over a split, one input at a time on one thread, and measure it.

    Args:
      labels: In the order of `split`'s class numbers.
      name: What the split is called in the figures.
      reference: Logits of the float network, float32 [count, classes]; gives ``agreement``, its
        own ``float_reliability``, and ``changed``, see `changes`.

    Returns:
      ``accuracy`` with its interval, ``per_class`` accuracy by label, ``confusion`` as counts with
      a row for each true class, ``reliability`` (see `reliability.reliability`), ``host_ms_p50``
      and ``host_ms_p90`` of one input on this machine, and the ``runtime`` that ran.
    """
    runner = paths.runner()
    try:
        with quietly():  # the runtime says which of its parts it chose
            model = runner.Classifier(str(file), threads=1)
    except runner.ModelError as error:
        raise UserError(file, str(error).removeprefix(f"{file}: ")) from None
    if "stage" in model.card.get("exits", ()):
        problem = f"is stage {model.card['exits']['stage']} of a network, in a file of its own"
        raise UserError(file, problem, "measure the .tflite of the whole, which answers the same")
    _check_labels(tuple(model.labels), labels, file)
    raw, times_ms = _run(model, split, name, progress)
    answers = raw.argmax(axis=-1)
    right = answers == split.classes
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (split.classes, answers), 1)
    counts, hits = confusion.sum(axis=1), confusion.diagonal()
    figures = accuracy_figures(int(right.sum()), len(right), name)
    figures["labels"] = list(labels)
    figures["per_class"] = {
        label: hit / count
        for label, hit, count in zip(labels, hits.tolist(), counts.tolist(), strict=True)
        if count
    }
    figures["confusion"] = confusion.tolist()
    kind = model.card["output"].get("probabilities", "softmax")
    figures["reliability"] = reliability(_real(file, raw), split.classes, kind)
    if reference is not None:
        exact = reference.argmax(axis=-1)
        figures["agreement"] = float(np.mean(answers == exact))
        figures["float_reliability"] = reliability(reference, split.classes, kind)
        figures["changed"] = changes(answers, exact, split.classes)
    p50, p90 = np.percentile(times_ms, [50, 90])
    figures |= {"host_ms_p50": round(float(p50), 4), "host_ms_p90": round(float(p90), 4)}
    return figures | {"runtime": model.runtime}


def changes(answers: np.ndarray, reference: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Name the inputs that only one of two networks answers rightly.

    Args:
      answers: Classes that the file answers, int [count].
      reference: Those that the float network answers.
      classes: The true ones.

    Returns:
      ``lost``, how many the float network alone has right, ``won``, how many the file alone, and
      ``shown``, up to `SHOWN` of the lost, every class in its turn: ``input``, its number in the
      split, and the classes ``true`` and ``answered``.
    """
    lost = np.flatnonzero((reference == classes) & (answers != classes))
    won = int(((reference != classes) & (answers == classes)).sum())
    shown = lost[np.sort(stratified(classes[lost], SHOWN))]
    return {
        "lost": len(lost),
        "won": won,
        "shown": [
            {"input": int(i), "true": int(classes[i]), "answered": int(answers[i])} for i in shown
        ],
    }


def _run(model: Any, split: Split, name: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return what is answered to each input, as it is, and the milliseconds it took."""
    count = len(split.classes)
    answers, times = np.empty((count, len(model.labels)), np.float32), np.empty(count)
    clock, raw, inputs = time.perf_counter, model.raw, split.inputs
    with progress.bar(f"{name} split", count) as advance:
        for start in range(0, count, 1000):
            stop = min(start + 1000, count)
            for number, item in enumerate(np.asarray(inputs[start:stop]), start):
                began = clock()
                answer = raw(item)
                times[number] = clock() - began
                answers[number] = answer
            advance(stop, "")
    return answers, 1e3 * times


def _real(file: Path, raw: np.ndarray) -> np.ndarray:
    """Return the logits that a file's outputs, float32 [count, classes], stand for."""
    subgraph = facts(file.read_bytes(), file).subgraphs[0]
    output = subgraph.tensors[subgraph.outputs[0]]
    if not output.scales:
        return raw
    return (raw - np.float32(output.zero_points[0])) * np.float32(output.scales[0])


def _check_labels(model: tuple[str, ...], data: tuple[str, ...], file: Path) -> None:
    if model != data:
        problem = f"knows the classes {', '.join(model)}, the data has {', '.join(data)}"
        raise UserError(file, problem, "measure it on data with the classes that it was trained on")
