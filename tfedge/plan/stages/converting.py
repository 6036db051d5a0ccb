"""Stages that make a .tflite and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from tfedge.boards import targets
from tfedge.boards.pi import BOARDS
from tfedge.declarations import Converted, Network, required, setting
from tfedge.errors import CheckError, UserError, did_you_mean
from tfedge.plan.job import TFLITE, Job, file_figures
from tfedge.plan.stages import evidence, leaving
from tfedge.plan.stages.writing import IN_LADDER, written
from tfedge.tflite.wishes import Leaving, Wishes


@dataclass(frozen=True)
class Convert:
    """Turn a network into a .tflite that carries its card, full int8 unless told otherwise.

    A network with exits becomes one file of int8 stages, left at thresholds chosen on tune.
    """

    version: ClassVar[int] = 3
    makes: ClassVar[str] = "tflite"

    of: Network = required("stage whose network is converted")
    wishes: Wishes = field(default=Wishes())
    target: str = setting("", "board or runtime that it must suit; see `tfedge check --targets`")
    golden: int = setting(2, "inputs kept in the file with their answers", low=0, high=16)
    leaving: Leaving = field(default=Leaving())

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        self.wishes.check(where)
        if self.leaving.exit_cost != "macs":
            leaving.refuse_uncountable(f"{where} exit_cost")
        if not self.target:
            return
        target = targets.target(self.target, f"{where} target")
        if target.edge_tpu and self.wishes.form != "int8":
            problem = f"{target.name} has an Edge TPU, which takes int8 alone"
            fix = 'write form = "int8", or leave it out'
            raise UserError(f"{where} form", f"{problem}, got {self.wishes.form}", fix)

    def check_exits(self, count: int, where: str) -> None:
        """Refuse what a network with `count` exits cannot become."""
        if count == 1:
            leaving.refuse_without_exits(self.leaving, repr(self.of), where)
        else:
            self.wishes.check_exits(where)

    def without_exits(self) -> Convert:
        """Return it for a network that might have had exits and has none."""
        return replace(self, leaving=Leaving())

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.tflite.making import Conversion

        data, about = job.data, job.about("of")
        unfit = _unfit(self.target) if self.wishes.form == "int8" else None
        conversion = Conversion(job.load("of"), data, f"[{job.name}]", self.wishes, unfit)
        if not conversion.exits:
            leaving.refuse_without_exits(self.leaving, repr(self.of))
        made = conversion.run()
        checked = checked_for(made.flatbuffer, self.target, conversion.layers)
        content, figures = written(
            made.flatbuffer,
            job,
            golden=self.golden,
            probabilities=about.output if about else "softmax",
            exits=leaving.exits_on_tune(made.flatbuffer, self.leaving, job)
            if conversion.exits
            else None,
        )
        job.pass_on(made.network)
        lists = (made.figures, checked, figures)
        notes = [note for found in lists for note in found.get("notes", ())]
        notes += compiled_for(content, self.target, job)
        figures = figures | made.figures | checked | {"notes": notes}
        return {name: value for name, value in figures.items() if name != "notes" or notes}


def _unfit(name: str) -> Any:
    """Return what names the layers that cannot be int8 on a target; None without a target."""
    from tfedge.boards import checking

    return partial(checking.unfit, target=targets.target(name)) if name else None


def compiled_for(content: bytes, name: str, job: Job) -> Sequence[str]:
    """Compile the stage's file for the Edge TPU, if that is its target; return notes."""
    if not name or not targets.target(name).edge_tpu:
        return ()
    from tfedge.boards import compiler
    from tfedge.tflite.card import read

    file = job.out / TFLITE
    if read(content, file)[0].exits:
        return leaving.stage_files(content, job)
    said = compiler.compile_beside(file)
    made = compiler.beside(file)
    place = "for the Edge TPU: compiled, with its card, beside the .tflite (…_edgetpu.tflite)"
    return (*said, place) if made.is_file() else said


def checked_for(flatbuffer: bytes, name: str, layers: Any = ()) -> dict[str, Any]:
    """Hold a file to its target, if there is one; return figures for the report.

    Of a file of stages an Edge TPU gets one file a stage: each of them is held to it.

    Raises:
      CheckError: It would not load there or answer nonsense.
    """
    if not name:
        return {}
    from tfedge.tflite.facts import facts
    from tfedge.tflite.staging import exits, stage

    target = targets.target(name)
    count = len(exits(facts(flatbuffer, "target"))) if target.edge_tpu else 0
    if not count:
        return _held_to(target, flatbuffer, layers, "check")
    found: dict[str, Any] = {}
    for number in range(count):
        part = stage(flatbuffer, number, "target")
        one = _held_to(target, part, layers, f"check_exit_{number}")
        notes = [*found.get("notes", ()), *(f"exit_{number}: {note}" for note in one["notes"])]
        found |= one | {"notes": notes}
    return found


def _held_to(target: Any, flatbuffer: bytes, layers: Any, label: str) -> dict[str, Any]:
    """Check one file; return the target and, under `label`, what was found, and notes."""
    from tfedge.boards import checking

    found = checking.check(flatbuffer, "target", target, layers)
    if not found.ok:
        problem = "; ".join(checking.sentence(one) for one in found.serious)
        fix = "; ".join(dict.fromkeys(one.remedy for one in found.serious if one.remedy))
        raise CheckError("target", f"the file is not fit for {target.name}: {problem}", fix)
    slow = [one for one in found.findings if one.severity == checking.SLOW]
    return {
        "target": target.name,
        label: checking.as_json(found),
        "notes": [f"{target.name}: {checking.sentence(one)}" for one in slow],
    }


@dataclass(frozen=True)
class Evaluate:
    """Measure a .tflite on the test split, by the board's own script."""

    version: ClassVar[int] = 2
    makes: ClassVar[str] = "tflite"

    of: Converted = required("stage whose .tflite is measured")
    against: Network = setting("", "stage whose network is measured beside it, such as the teacher")
    cost: tuple[str, ...] | None = setting(
        None,
        "boards, of pi4 and pi5, whose Arm instructions of one inference are counted; [] for none;"
        " if unset, both where nothing need be fetched for it",
    )
    compared: int = setting(
        32, "tune inputs that its layers are compared with the network's on; 0 for none", low=0
    )

    def check(self, where: str) -> None:
        """Refuse boards that are none, and to count where that cannot be done, in good time."""
        for name in self.cost or ():
            if name not in BOARDS:
                problem = f"there is no board {name!r} to count for"
                raise UserError(f"{where} cost", problem, did_you_mean(name, BOARDS))
        if self.cost:
            leaving.refuse_uncountable(f"{where} cost")

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.figures import accuracy_figures
        from tfedge.tflite.evaluation import evaluate
        from tfedge.tflite.packing import with_measured
        from tfedge.training.fitting import logits_of

        data, network = job.data, job.load("of")
        file = job.inputs["of"] / TFLITE
        logits = logits_of(network, data, data.test)
        test = evaluate(file, data.test, data.labels, "test", job.progress, reference=logits)
        if self.against:
            other = logits_of(job.load("against"), data, data.test).argmax(axis=-1)
            right = int((other == data.test.classes).sum())
            test["against"] = {"stage": self.against}
            test["against"] |= accuracy_figures(right, len(other), "test")
        content = with_measured(file.read_bytes(), test, file)
        (job.out / TFLITE).write_bytes(content)
        job.pass_on()
        evidence.keep_pictures(test["changed"], job)
        own = {name: test[name] for name in (*IN_LADDER, "agreement")}
        counted = _counted(content, self.cost, job)
        boards = [name for name in BOARDS if f"arm_{name}" in counted]
        left = _left(content, boards, job)
        layers = evidence.of_layers(content, network, self.compared, job)
        lists = (counted, left, layers)
        notes = [note for found in lists for note in found.pop("notes", ())]
        figures = file_figures(content, job.name) | own | counted | left | layers
        figures["test"] = test | left
        return figures | {"notes": notes} if notes else figures


def _left(content: bytes, boards: Sequence[str], job: Job) -> dict[str, Any]:
    """Measure leaving early on the test split, if the file has exits, and its cost by board."""
    from tfedge.tflite.card import read

    if not read(content, f"[{job.name}]")[0].exits:
        return {}
    arm = leaving.arm_of_stages(content, boards, job) if boards else {}
    found = leaving.figures_of_leaving(content, "test", arm, job)
    return found | {"notes": [leaving.note(found["leaving"])]}


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
