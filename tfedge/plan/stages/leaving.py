"""What the stages that make and measure a .tflite do with its exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfedge.errors import UserError
from tfedge.plan.job import EXAMPLES, Job
from tfedge.tflite.wishes import Leaving

if TYPE_CHECKING:
    from tfedge.data.dataset import Split
    from tfedge.tflite.leaving import Answers

_EXAMPLES = 10


def refuse_without_exits(wish: Leaving, source: str, where: str = "") -> None:
    """Refuse settings of exits for a network that has none."""
    if wish.written:
        fix = 'leave it out, or put a stage with use = "exits" before this one'
        place = f"{where} {wish.written}".strip()
        raise UserError(place, f"is for networks with exits, and {source} has none", fix)


def refuse_uncountable(where: str) -> None:
    """Refuse, before anything runs, to count Arm instructions where that cannot be done."""
    from tfedge.boards.counting import check_tools

    try:
        check_tools()
    except UserError as error:
        raise error.within(where) from None


def exits_on_tune(flatbuffer: bytes, wish: Leaving, job: Job) -> dict[str, Any]:
    """Choose when to leave a file of stages; return what its card says."""
    from tfedge.tflite import exits

    answers = answers_to(flatbuffer, job.data.tune, job)
    costs = exits.relative_macs(flatbuffer)
    if wish.exit_cost != "macs":
        ((whole, each),) = arm_of_stages(flatbuffer, (wish.exit_cost,), job).values()
        costs = exits.relative(each, whole)
    return exits.entry(flatbuffer, answers, job.data.tune.classes, costs, wish)


def answers_to(content: bytes, split: Split, job: Job) -> Answers:
    """Return what every exit answers to a split."""
    from tfedge.tflite.leaving import stage_outputs

    with job.progress.bar("exits", len(split.classes)) as advance:
        inputs = (job.data.normalise(x) for x in split.inputs)
        return stage_outputs(content, inputs, lambda done: advance(done, ""))


def arm_of_stages(
    content: bytes, boards: Sequence[str], job: Job
) -> dict[str, tuple[int, list[int]]]:
    """Count the Arm instructions of the whole network, and of each stage, for each board.

    Raises:
      UserError: What the counting needs is missing.
    """
    from tfedge.boards.cost import stage_costs

    job.progress.say(f"{job.name:12} counts Arm instructions by exit for {', '.join(boards)}")
    return stage_costs(content, boards, f"[{job.name}]", job.progress)


def figures_of_leaving(
    content: bytes, split: str, arm: Mapping[str, tuple[int, Sequence[int]]], job: Job
) -> dict[str, Any]:
    """Measure leaving early on a split: ``leaving``, or nothing of a file without exits.

    Where the inputs are pictures, some that leave at each exit are drawn into the job's folder.

    Args:
      content: A .tflite with its card.
      split: ``tune`` or ``test``.
      arm: As `arm_of_stages` returns it.
    """
    from tfedge.report.sheet import drawn
    from tfedge.tflite import card, exits

    said = card.read(content, f"[{job.name}]")[0].exits
    if not said:
        return {}
    of: Split = getattr(job.data, split)
    answers = answers_to(content, of, job)
    macs = exits.relative_macs(content)
    found = exits.figures(said, answers, of.classes, split, macs, arm)
    found["examples"] = exits.examples(said, answers, _EXAMPLES)
    if job.data.kind == "image":
        rows = [[of.inputs[number] for number in row] for row in found["examples"]]
        (job.out / EXAMPLES).write_bytes(drawn(rows))
    return {"leaving": found}


def note(leaving: Mapping[str, Any]) -> str:
    """Say in a sentence what leaving early comes to."""
    shares = ", ".join(f"{one['share']:.0%}" for one in leaving["exits"])
    return (
        f"leaving early on {leaving['split']}: {leaving['accuracy']:.2%} right instead of"
        f" {leaving['last_accuracy']:.2%} for {leaving['cost']['mean']:.0%} of the"
        f" multiply-accumulates ({shares} by exit)"
    )


def unproven(said: Mapping[str, Any], tune: int) -> list[str]:
    """Say why nothing of what is promised could be proven, and what to do; [] where it was.

    Args:
      said: What a card says of exits.
      tune: How many inputs the tune split has.
    """
    from tfedge.tflite import promises
    from tfedge.tflite.exits import always_one

    promise = said["promise"]
    exit = always_one(said)
    used = f"with {promise['inputs']:,} of the {tune:,} inputs of tune"
    if exit == 0 and "mean_cost" in promise:
        bound = f"exit_mean_cost = {promise['mean_cost']:g}"
        fix = "a larger exit_mean_cost or a larger tune split lets more go on"
        return [f"every input leaves at exit_0: no more was proven to keep {bound} {used}; {fix}"]
    if exit != len(said["signatures"]) - 1 or "max_drop" not in promise:
        return []
    bound = f"exit_max_drop = {promise['max_drop']:g}"
    need = promises.fewest(promise["max_drop"])
    if need is None or need > promise["inputs"]:
        takes = f"that takes {-(-need * tune // promise['inputs']):,} or so" if need else "none can"
        problem = f"{bound} cannot be proven {used}, even if no answer is lost: {takes}"
        fix = "take a larger exit_max_drop" + (" or a larger tune split" if need else "")
    else:
        problem = f"nothing that saves work was proven to keep {bound} {used}"
        fix = "take a larger exit_max_drop or a larger tune split, or train the exits for longer"
    return [f"no input leaves early: {problem}; {fix}; --effort leaves early without a promise"]


def stage_files(content: bytes, job: Job) -> list[str]:
    """Write a file for each stage, with a card that names the next, for an Edge TPU.

    Google's compiler takes files of one signature.  Where it is installed each stage is compiled;
    elsewhere the files are there to be compiled.

    Args:
      content: A file of stages with its card.

    Returns:
      Notes for the user.
    """
    from tfedge.boards import compiler
    from tfedge.tflite import card, staging

    whole, files = card.read(content, f"[{job.name}]")
    golden = {name: data for name, data in files.items() if name == card.GOLDEN}
    count = len(whole.exits["signatures"])
    names = [f"{job.made_by['pipeline']}_exit_{number}.tflite" for number in range(count)]
    ready = compiler.installed()
    notes: list[str] = []
    for number, name in enumerate(names):
        file = job.out / name
        following = names[number + 1] if number + 1 < count else None
        said = {**whole.exits, "stage": number, "next": following}
        bare = staging.stage(content, number, f"[{job.name}]")
        own = replace(whole, exits=said, measured={})  # the first one's self-test is of all
        with_golden = (own, golden) if number == 0 else (replace(own, golden=()),)
        file.write_bytes(card.write(bare, *with_golden))
        if ready:
            notes += [f"exit_{number}: {line}" for line in compiler.compile_beside(file)]
            made = compiler.beside(file)
            after = compiler.beside(job.out / following).name if following else None
            compiled, its_files = card.read(made.read_bytes(), made)
            named = replace(compiled, exits={**said, "next": after})
            made.write_bytes(card.write(card.strip(made.read_bytes()), named, its_files))
    place = "compiled, one file a stage" if ready else "one file a stage, to be compiled"
    return [*notes, f"for the Edge TPU: {place}, each with a card that names the next: {names[0]}"]
