"""What an evaluation keeps beside its figures, for those who want to see why they are so."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.plan.job import LOST, Job


def keep_pictures(changed: Mapping[str, Any], job: Job) -> None:
    """Keep the test split's pictures that only the float network has right.

    Args:
      changed: See `tflite.evaluation.changes`.
    """
    numbers = [one["input"] for one in changed["shown"]]
    if numbers and job.data.kind == "image":
        np.savez_compressed(job.out / LOST, pictures=job.data.test.inputs[numbers])


def of_layers(content: bytes, network: Any, count: int, job: Job) -> dict[str, Any]:
    """Compare a .tflite's layers with its network's, on inputs of tune.

    Args:
      content: The file, with its card.
      network: The Keras network that it was made of.
      count: Inputs to compare on; 0 for none.

    Returns:
      ``layers``, see `tflite.layerwise.evidence`, with the share of ``zeros`` of each layer's
      kernel, which is all there is of a float file; or a note that says why the layers were not
      compared.
    """
    from tfedge.data.sampling import calibration
    from tfedge.tflite import layerwise, names
    from tfedge.tflite.conversion import to_float

    if not count:
        return {}
    layers = names.of_network(network)
    found: dict[str, Any] = {"zeros": layerwise.zeros(content, layers)}
    if not layerwise.is_quantised(content):
        return {"layers": found}
    if len(network.outputs) > 1:
        return {"layers": found, "notes": ["its layers were not compared: it has several outputs"]}
    inputs = calibration(job.data, count)
    try:
        with job.progress.bar("layers", len(inputs)) as advance:
            tell = partial(advance, words="")
            found |= layerwise.evidence(to_float(network), content, inputs, layers, tell)
    except UserError as error:
        where, problem, _ = error.parts
        return {"layers": found, "notes": [f"its layers were not compared: {where}: {problem}"]}
    return {"layers": found}
