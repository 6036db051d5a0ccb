"""Stages that make a .tflite and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tfedge.boards import targets
from tfedge.boards.pi import BOARDS
from tfedge.declarations import Converted, Network, required, setting
from tfedge.errors import CheckError, UserError, did_you_mean
from tfedge.plan.job import TFLITE, Job, file_figures
from tfedge.tflite.wishes import Wishes

IN_LADDER = ("accuracy", "accuracy_low", "accuracy_high", "count", "split", "host_ms_p50")


@dataclass(frozen=True)
class Convert:
    """Turn a network into a .tflite that carries its card, full int8 unless told otherwise."""

    version: ClassVar[int] = 3
    makes: ClassVar[str] = "tflite"

    of: Network = required("stage whose network is converted")
    wishes: Wishes = field(default=Wishes())
    target: str = setting("", "board or runtime that it must suit; see `tfedge check --targets`")
    golden: int = setting(2, "inputs kept in the file with their answers", low=0, high=16)

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        self.wishes.check(where)
        if not self.target:
            return
        target = targets.target(self.target, f"{where} target")
        if target.edge_tpu and self.wishes.form != "int8":
            problem = f"{target.name} has an Edge TPU, which takes int8 alone"
            fix = 'write form = "int8", or leave it out'
            raise UserError(f"{where} form", f"{problem}, got {self.wishes.form}", fix)

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.tflite.evaluation import evaluate
        from tfedge.tflite.making import Conversion
        from tfedge.tflite.packing import pack, with_measured

        data, about = job.data, job.about("of")
        unfit = _unfit(self.target) if self.wishes.form == "int8" else None
        conversion = Conversion(job.load("of"), data, f"[{job.name}]", self.wishes, unfit)
        made = conversion.run()
        checked = _checked(made.flatbuffer, conversion.layers, self.target) if self.target else {}
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
        notes = [*made.figures.get("notes", ()), *checked.pop("notes", ())]
        notes += _compiled(file, self.target)
        figures = file_figures(content, job.name) | ladder | made.figures | checked
        return figures | {"notes": notes} if notes else figures


def _unfit(name: str) -> Any:
    """Return what names the layers that cannot be int8 on a target; None without a target."""
    from tfedge.boards import checking

    return partial(checking.unfit, target=targets.target(name)) if name else None


def _compiled(file: Path, name: str) -> tuple[str, ...]:
    """Compile a file with its card for the Edge TPU, if that is its target; return notes."""
    if not name or not targets.target(name).edge_tpu:
        return ()
    from tfedge.boards import compiler

    said = compiler.compile_beside(file)
    made = compiler.beside(file)
    place = "for the Edge TPU: compiled, with its card, beside the .tflite (…_edgetpu.tflite)"
    return (*said, place) if made.is_file() else said


def _checked(flatbuffer: bytes, layers: Any, name: str) -> dict[str, Any]:
    """Hold a file to its target; return figures for the report.

    Raises:
      CheckError: It would not load there or answer nonsense.
    """
    from tfedge.boards import checking

    target = targets.target(name)
    found = checking.check(flatbuffer, "target", target, layers)
    if not found.ok:
        problem = "; ".join(checking.sentence(one) for one in found.serious)
        fix = "; ".join(dict.fromkeys(one.remedy for one in found.serious if one.remedy))
        raise CheckError("target", f"the file is not fit for {target.name}: {problem}", fix)
    slow = [one for one in found.findings if one.severity == checking.SLOW]
    return {
        "target": target.name,
        "check": checking.as_json(found),
        "notes": [f"{target.name}: {checking.sentence(one)}" for one in slow],
    }


@dataclass(frozen=True)
class Evaluate:
    """Measure a .tflite on the test split, by the board's own script."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "tflite"

    of: Converted = required("stage whose .tflite is measured")
    against: Network = setting("", "stage whose network is measured beside it, such as the teacher")
    cost: tuple[str, ...] | None = setting(
        None,
        "boards, of pi4 and pi5, whose Arm instructions of one inference are counted; [] for none;"
        " if unset, both where nothing need be fetched for it",
    )

    def check(self, where: str) -> None:
        """Refuse boards that are none, and to count where that cannot be done, in good time."""
        for name in self.cost or ():
            if name not in BOARDS:
                problem = f"there is no board {name!r} to count for"
                raise UserError(f"{where} cost", problem, did_you_mean(name, BOARDS))
        if self.cost:
            from tfedge.boards.counting import check_tools

            try:
                check_tools()
            except UserError as error:
                raise error.within(f"{where} cost") from None

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
        counted = _counted(content, self.cost, job)
        return file_figures(content, job.name) | own | counted | {"test": test}


def _counted(content: bytes, boards: Sequence[str] | None, job: Job) -> dict[str, Any]:
    """Count Arm instructions; where nobody asked for it and it cannot be done, say so in a note."""
    from tfedge.boards import counting
    from tfedge.boards.cost import costs

    if boards:
        job.progress.say(f"{job.name:12} counts Arm instructions for {', '.join(boards)}")
    if boards is not None:
        found = costs(content, boards, f"[{job.name}]", job.progress) if boards else ()
        return {f"arm_{cost.board}": cost.instructions for cost in found}
    why = counting.missing()
    if not why:
        try:
            return _counted(content, tuple(BOARDS), job)
        except UserError as error:
            where, problem, _ = error.parts
            why = f"{where}: {problem}"
    wish = 'write cost = ["pi4", "pi5"] to have them, or cost = [] to leave them out'
    return {"notes": [f"no Arm instructions were counted: {why}; {wish}"]}
