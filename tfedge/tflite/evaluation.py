"""Accuracy and latency of a .tflite, measured by the board's own script."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tfedge import paths
from tfedge.data.dataset import Split
from tfedge.errors import UserError
from tfedge.figures import accuracy_figures
from tfedge.progress import Progress, quietly


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
      reference: Classes that the float network answers, int [count]; gives ``agreement``.

    Returns:
      ``accuracy`` with its interval, ``per_class`` accuracy by label, ``confusion`` as counts with
      a row for each true class, ``host_ms_p50`` and ``host_ms_p90`` of one input on this machine,
      and the ``runtime`` that ran.
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
    answers, times_ms = _run(model, split, name, progress)
    right = answers == split.classes
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (split.classes, answers), 1)
    counts = np.bincount(split.classes, minlength=len(labels))
    hits = confusion.diagonal()
    figures = accuracy_figures(int(right.sum()), len(right), name)
    figures["labels"] = list(labels)
    figures["per_class"] = {
        label: hit / count
        for label, hit, count in zip(labels, hits.tolist(), counts.tolist(), strict=True)
        if count
    }
    figures["confusion"] = confusion.tolist()
    if reference is not None:
        figures["agreement"] = float(np.mean(answers == reference))
    p50, p90 = np.percentile(times_ms, [50, 90])
    figures |= {"host_ms_p50": round(float(p50), 4), "host_ms_p90": round(float(p90), 4)}
    return figures | {"runtime": model.runtime}


def _run(model: Any, split: Split, name: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return the class answered to each input and the milliseconds it took."""
    count = len(split.classes)
    answers, times = np.empty(count, np.int64), np.empty(count)
    clock, raw, inputs = time.perf_counter, model.raw, split.inputs
    with progress.bar(f"{name} split", count) as advance:
        for start in range(0, count, 1000):
            stop = min(start + 1000, count)
            for number, item in enumerate(np.asarray(inputs[start:stop]), start):
                began = clock()
                answer = raw(item)
                times[number] = clock() - began
                answers[number] = answer.argmax()
            advance(stop, "")
    return answers, 1e3 * times


def _check_labels(model: tuple[str, ...], data: tuple[str, ...], file: Path) -> None:
    if model != data:
        problem = f"knows the classes {', '.join(model)}, the data has {', '.join(data)}"
        raise UserError(file, problem, "measure it on data with the classes that it was trained on")
