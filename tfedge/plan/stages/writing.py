"""How a stage writes the .tflite that it made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfedge.plan.job import TFLITE, Job, file_figures
from tfedge.plan.stages import leaving

IN_LADDER = ("accuracy", "accuracy_low", "accuracy_high", "count", "split", "host_ms_p50")


def written(
    flatbuffer: bytes,
    job: Job,
    *,
    golden: int,
    probabilities: str = "softmax",
    exits: Mapping[str, Any] | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """Write a model with its card into the job's folder, and measure it on the tune split.

    Args:
      golden: See `packing.pack`, as `probabilities`.
      exits: What its card says of exits.

    Returns:
      The file, and figures for the report.
    """
    from tfedge.tflite.evaluation import evaluate
    from tfedge.tflite.packing import pack, with_measured

    data, file = job.data, job.out / TFLITE
    packed = pack(
        flatbuffer,
        data,
        job.made_by,
        golden=golden,
        probabilities=probabilities,
        exits=exits,
    )
    file.write_bytes(packed)
    measured = evaluate(file, data.tune, data.labels, "tune", job.progress)
    content = with_measured(file.read_bytes(), measured, file)
    file.write_bytes(content)
    ladder = {name: measured[name] for name in IN_LADDER}
    left = leaving.figures_of_leaving(content, "tune", {}, job)
    notes = {"notes": [leaving.note(left["leaving"])]} if left else {}
    if exits:
        notes["notes"] += leaving.unproven(exits, len(data.tune.classes))
    return content, file_figures(content, job.name) | ladder | left | notes
