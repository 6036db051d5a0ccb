"""Stages that make a .tflite and measure it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfedge.declarations import required, setting
from tfedge.plan.job import TFLITE, Job, file_figures
from tfedge.plan.settings import Converted, Network
from tfedge.tflite.wishes import Wishes

IN_LADDER = ("accuracy", "accuracy_low", "accuracy_high", "count", "split", "host_ms_p50")


@dataclass(frozen=True)
class Convert:
    """Turn a network into a .tflite that carries its card, full int8 unless told otherwise."""

    version: ClassVar[int] = 3
    makes: ClassVar[str] = "tflite"

    of: Network = required("stage whose network is converted")
    wishes: Wishes = field(default=Wishes())
    golden: int = setting(2, "inputs kept in the file with their answers", low=0, high=16)

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        self.wishes.check(where)

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.tflite.evaluation import evaluate
        from tfedge.tflite.making import Conversion
        from tfedge.tflite.packing import pack, with_measured

        data, about = job.data, job.about("of")
        conversion = Conversion(job.load("of"), data, f"[{job.name}]", self.wishes)
        made = conversion.run()
        file = job.out / TFLITE
        probabilities = about.output if about else "softmax"
        packed = pack(
            made.flatbuffer, data, job.made_by, golden=self.golden, probabilities=probabilities
        )
        file.write_bytes(packed)
        measured = evaluate(file, data.tune, data.labels, "tune", job.progress)
        content = with_measured(file.read_bytes(), measured, file)
        file.write_bytes(content)
        job.pass_on(made.network)
        ladder = {name: measured[name] for name in IN_LADDER}
        return file_figures(content, job.name) | ladder | made.figures


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
