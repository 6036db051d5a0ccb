"""Stages that make a .tflite and measure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfedge.declarations import required, setting
from tfedge.plan.job import TFLITE, Job, file_figures
from tfedge.plan.settings import Converted, Network

IN_LADDER = ("accuracy", "accuracy_low", "accuracy_high", "count", "split", "host_ms_p50")


@dataclass(frozen=True)
class Convert:
    """Turn a network into a full-int8 .tflite that carries its card."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "tflite"

    of: Network = required("stage whose network is converted")
    calibrate: int = setting(
        200, "tune inputs that set the activations' ranges", low=1, high=100_000
    )
    golden: int = setting(2, "inputs kept in the file with their answers", low=0, high=16)

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.data.sampling import calibration
        from tfedge.tflite.conversion import to_int8
        from tfedge.tflite.evaluation import evaluate
        from tfedge.tflite.gates import check_int8
        from tfedge.tflite.packing import pack, with_measured

        data = job.data
        model = to_int8(job.load("of"), calibration(data, self.calibrate), data.limits())
        check_int8(model, data.limits(), f"[{job.name}]")
        file = job.out / TFLITE
        file.write_bytes(pack(model, data, job.made_by, golden=self.golden))
        measured = evaluate(file, data.tune, data.labels, "tune", job.progress)
        content = with_measured(file.read_bytes(), measured, file)
        file.write_bytes(content)
        job.pass_on()
        return file_figures(content, job.name) | {name: measured[name] for name in IN_LADDER}


@dataclass(frozen=True)
class Evaluate:
    """Measure a .tflite on the test split, by the board's own script."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "tflite"

    of: Converted = required("stage whose .tflite is measured")
    against: Network = setting("", "stage whose network is measured beside it, such as the teacher")

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.figures import accuracy_figures
        from tfedge.tflite.evaluation import evaluate
        from tfedge.tflite.packing import with_measured
        from tfedge.training.fitting import logits_of

        data = job.data
        file = job.inputs["of"] / TFLITE
        answers = logits_of(job.load("of"), data, data.test).argmax(axis=-1)
        test = evaluate(file, data.test, data.labels, "test", job.progress, reference=answers)
        if self.against:
            other = logits_of(job.load("against"), data, data.test).argmax(axis=-1)
            right = int((other == data.test.classes).sum())
            test["against"] = {"stage": self.against}
            test["against"] |= accuracy_figures(right, len(other), "test")
        content = with_measured(file.read_bytes(), test, file)
        (job.out / TFLITE).write_bytes(content)
        job.pass_on()
        own = {name: test[name] for name in (*IN_LADDER, "agreement")}
        return file_figures(content, job.name) | own | {"test": test}
