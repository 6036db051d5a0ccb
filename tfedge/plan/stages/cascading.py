"""The stage that puts a small network before a large one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfedge.boards import targets
from tfedge.declarations import Converted, required, setting
from tfedge.errors import UserError
from tfedge.plan.job import TFLITE, Job
from tfedge.plan.stages import leaving
from tfedge.plan.stages.converting import checked_for, compiled_for
from tfedge.plan.stages.writing import written
from tfedge.tflite.wishes import Leaving


@dataclass(frozen=True)
class Cascade:
    """Put two int8 networks into one .tflite: the large one answers where the small is not sure.

    Both take the same input, so nothing is computed for both; see `exits` for one network that goes
    on from where it was left.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "tflite"

    of: Converted = required("stage whose int8 .tflite answers in the end, the large one")
    small: Converted = required("stage whose int8 .tflite answers first")
    leaving: Leaving = field(default=Leaving())
    target: str = setting("", "board or runtime that it must suit; see `tfedge check --targets`")
    golden: int = setting(2, "inputs kept in the file with their answers", low=0, high=16)

    def check(self, where: str) -> None:
        """Refuse one network twice, and a target that is none."""
        if self.of == self.small:
            fix = "name two stages: small is the one that is tried first"
            raise UserError(f"{where} small", f"is {self.small!r}, as is of", fix)
        if self.leaving.exit_cost != "macs":
            leaving.refuse_uncountable(f"{where} exit_cost")
        if self.target:
            targets.target(self.target, f"{where} target")

    def check_exits(self, count: int, where: str) -> None:
        """Refuse a large network that is left early itself."""
        if count > 1:
            problem = f"{self.of!r} has {count} exits of its own"
            raise UserError(f"{where} of", problem, "give one without, or leave the cascade out")

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.tflite import card
        from tfedge.tflite.staging import cascade

        files = {name: job.inputs[name] / TFLITE for name in ("small", "of")}
        contents = {name: file.read_bytes() for name, file in files.items()}
        cards = {name: card.read(contents[name], file)[0] for name, file in files.items()}
        feeds = [(one.input.mean, one.input.std) for one in cards.values()]
        if feeds[0] != feeds[1]:
            problem = f"{self.small!r} and {self.of!r} normalise their inputs in unlike ways"
            fix = "build both networks in this pipeline, or import both with the same normalisation"
            raise UserError("small", f"{problem}: {feeds[0]}, and {feeds[1]}", fix)
        flatbuffer = cascade(*map(card.strip, contents.values()))
        checked = checked_for(flatbuffer, self.target)
        content, figures = written(
            flatbuffer,
            job,
            golden=self.golden,
            probabilities=cards["of"].probabilities,
            exits=leaving.exits_on_tune(flatbuffer, self.leaving, job),
        )
        job.pass_on()
        notes = [note for found in (checked, figures) for note in found.get("notes", ())]
        notes += compiled_for(content, self.target, job)
        return figures | checked | {"notes": notes}
