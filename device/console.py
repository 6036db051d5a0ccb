"""The whole command line of infer.py: what it takes, how it answers, and what else it can do.

infer.py hands over to `run` where this file lies beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys

import infer

_BLANKS = {ord(blank): " " for blank in "\t\n\r"}  # what would break a line of text in two


class _Stopped(Exception):  # noqa: N818 it is none
    """SIGTERM came, and nothing was left to finish."""


def run(argv):
    """Answer the command line; return the exit status."""
    args = _arguments(argv)
    if args.serve:
        return infer._beside("serve").run(args)
    with opened(args) as answers:
        if args.doctor:
            facts, good = infer._beside("doctor").examine(args.model)
            answers.show(facts, rows(facts))
            return 0 if good else 1
        model = loaded(args)
        if not (args.selftest or args.bench):
            _tell_of_edge_tpu(args, model)
            return _answer(args, model, answers)
        facts = {"runtime": model.runtime, "threads": model.threads, "delegate": model.delegate}
        if args.bench:
            path = next(infer.paths(args.inputs, suffixes(model)), None)
            facts.update(runs=args.bench, **({"input": path} if path else {}))
            facts.update(infer._beside("bench").run(model, args.bench, path, args.inputs))
            answers.show(facts, rows(facts))
            return 0
        found = model.selftest()
        facts.update(selftest="failed" if found else "passed", findings=found)
        answers.show(facts, [[each] for each in found or [f"passed, {model.runtime}"]])
        return 1 if found else 0


def loaded(args):
    """Return the model of a command line: one with exits is gone through stage by stage."""
    model = infer.Classifier(args.model, args.threads, args.delegate)
    if "exits" in model.card or {args.effort, args.exit, args.deadline_ms} != {None}:
        return infer._beside("exits", "a model with exits").staged(model, args)
    return model


def _arguments(argv):
    # Without a width argparse imports shutil, and with it three kinds of compression.
    parser = argparse.ArgumentParser(
        prog="infer.py",
        description=infer.__doc__.splitlines()[0],
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80),
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help=".tflite file")
    add("inputs", nargs="*", metavar="INPUT", help="picture, folder, pattern, .npy; - is stdin")
    add("--watch", metavar="DIR", help="answer what arrives there")
    add("--state", metavar="FILE", help="of --watch: note what is answered, go on after it")
    add("--camera", metavar="NAME", help="answer the frames of picamera2 or opencv:N")
    add("--top-k", type=int, default=1, metavar="N", help="classes to name")
    add("--threshold", type=float, default=0, metavar="SHARE", help="leave out classes below it")
    add("--format", help="of the answers", choices=("text", "json", "csv"), default="text")
    add("--json", action="store_const", const="json", dest="format", help="as --format json")
    add("--output", metavar="FILE", help="append the answers to it")
    add("--threads", type=int, default=0, metavar="N", help="at most the usable cores")
    add("--delegate", default="auto", metavar="NAME", help="auto, cpu, edgetpu[:usb|:pci|:N]")
    add("--effort", type=float, metavar="SHARE", help="of a model with exits: 0 least, 1 all")
    add("--exit", type=int, metavar="N", help="answer at exit N always, 0 is the first")
    add("--deadline-ms", type=float, metavar="D", help="start no stage that might overrun it")
    add("--adaptive", action="store_true", help="of --deadline-ms: less effort under load")
    add("--selftest", action="store_true", help="run the golden vectors instead")
    add("--bench", type=int, metavar="N", help="time N runs instead")
    add("--doctor", action="store_true", help="say what this board has and lacks instead")
    add("--serve", action="store_true", help="go on as a service")
    args = parser.parse_intermixed_args(argv)
    least = min(args.top_k, 1 if args.bench is None else args.bench)
    if least < 1 or args.threads < 0 or not 0 <= args.threshold <= 1:
        parser.error("N must be 1 or more, SHARE from 0 to 1")
    problem = _contradiction(args) or _unfit(args)
    if problem:
        parser.error(problem)
    return args


def _contradiction(args):
    """Say what of a command line would have to be ignored, or what it lacks; "" if nothing."""
    alone = [name for name in ("selftest", "bench", "doctor", "serve") if getattr(args, name)]
    inputs = [*args.inputs, *filter(None, (args.watch, args.camera))]
    if len(alone) > 1:
        return f"--{' and --'.join(alone)} are each a run of its own"
    if (args.selftest or args.doctor) and inputs:
        return f"--{alone[0]} takes no inputs; leave out {inputs[0]}"
    if args.bench and (inputs != args.inputs[:1] or "-" in inputs):  # it reads it many times
        return f"--bench takes one picture or .npy, or none; leave out {inputs[-1]}"
    if args.state and not args.watch:
        return "--state is of --watch DIR"
    if not (args.doctor or (args.model and (inputs or alone))):
        return "give a model, and a picture, folder or .npy, - for stdin, or an option"
    return ""


def _unfit(args):
    """Say the same of the options for a model with exits."""
    if args.exit is not None and (args.effort, args.deadline_ms) != (None, None):
        return "--exit N answers there always; leave out --effort and --deadline-ms"
    if args.adaptive and args.deadline_ms is None:
        return "--adaptive is of --deadline-ms D"
    if not 0 <= (args.effort or 0) <= 1:
        return f"--effort must be from 0 to 1, got {args.effort:g}"
    if args.deadline_ms is not None and not args.deadline_ms > 0:
        return f"--deadline-ms must be above 0, got {args.deadline_ms:g}"
    return ""


def _tell_of_edge_tpu(args, model):
    with contextlib.suppress(infer.ModelError):  # without edgetpu.py nothing looks for one
        if (args.delegate, model.delegate) == ("auto", "cpu") and infer._beside("edgetpu").unused():
            said = "runs on the CPU: it is not compiled for the Edge TPU that is here"
            print(f"infer.py: {args.model}: {said}", file=sys.stderr)


def _answer(args, model, answers):
    """Answer all inputs; SIGTERM ends a wait for one at once, the work on one when it is done."""
    import signal  # here, as csv where it is needed: each costs a start a millisecond

    busy, asked = [], []

    def stop(*_):
        asked.append(True)
        if not busy:
            raise _Stopped

    signal.signal(signal.SIGTERM, stop)
    with contextlib.suppress(_Stopped):
        for name, read in _feed(args, model):
            busy.append(True)
            answers.answer(model, name, read)
            busy.clear()
            if asked:
                return 0
        return 2 if answers.failed else 0
    return 0


def _feed(args, model):
    """Yield (name, read) of each input: read() returns what the model takes, or is an ImageError.

    What cannot even be opened has the ImageError itself in place of a `read`.
    """
    for name in args.inputs:
        if name == "-":
            yield from infer._beside("feeds", "stdin").stdin(model)
        else:
            for path in infer.paths([name], suffixes(model)):
                yield from items(model, path)
    if args.watch or args.camera:
        feeds = infer._beside("feeds", "--watch or --camera")
        yield from feeds.live(model, args.watch, args.camera, args.state)


def suffixes(model):
    """Return the ends of the names that are inputs of `model` in a folder that is named."""
    return infer._SUFFIXES if model.card["input"]["kind"] == "image" else (".npy", ".npz")


def items(model, path):
    """Yield (name, read) of a picture, or of each array in a .npy or .npz; see `_feed`."""
    entry = model.card["input"]
    if os.path.isdir(path):
        kinds = "pictures; name arrays one by one, or *.npy"
        if entry["kind"] != "image":
            kinds = "arrays; this model takes .npy and .npz"
        yield path, infer.ImageError(f"{path}: holds no {kinds}")
    elif entry["kind"] == "image" and path[-4:].lower() not in (".npy", ".npz"):
        yield path, lambda: infer.read_image(path, model.shape, entry["resize"], entry["fit"])
    else:
        yield from infer._beside("feeds", "a file of arrays").arrays(model, path)


@contextlib.contextmanager
def opened(args):
    """Open what the answers go to, stdout or a file that they are appended to, as `Answers`."""
    if not args.output:
        yield Answers(args, sys.stdout)
        return
    try:
        out = open(args.output, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    except OSError as error:
        said = f"{args.output}: cannot be written: {infer._line(error)}; name another"
        raise infer.ModelError(said) from error
    try:
        yield Answers(args, out)
    finally:
        with contextlib.suppress(OSError):  # a full disk was told of when the line was written
            out.close()


class Answers:
    """Where answers are written, a line each, in the form that was asked for.

    `failed` says whether one was that an input is none.
    """

    def __init__(self, args, out):
        self.failed, self._args, self._out = False, args, out
        self._heading = args.format == "csv" and not (args.output and os.path.getsize(args.output))

    def answer(self, model, name, read):
        """Classify what `read` returns and say so, or what is wrong with it."""
        exits = hasattr(model, "left")
        if self._heading:
            self.show({}, [["input", "label", "share", *["exit", "because"][: 2 * exits]]])
            self._heading = False
        try:
            if isinstance(read, infer.ImageError):
                raise read
            if exits:
                model.start()
            found = model.classify(read(), self._args.top_k)
        except infer.ImageError as error:  # one bad picture must not stop the others
            problem, self.failed = str(error).replace(f"{name}: ", "", 1), True
            print(f"infer.py: {name}: {problem}", file=sys.stderr)
            self.show(
                {"input": name, "error": problem}, self._unanswered(name, *["", ""][: 2 * exits])
            )
        else:
            best = [(label, round(share, 6)) for label, share in found]
            best = [(label, share) for label, share in best if share >= self._args.threshold]
            classes = [{"label": label, "share": share} for label, share in best]
            left = model.left() if exits else {}
            rows = [(name, *each, *left.values()) for each in best]
            self.show(
                {"input": name, "classes": classes, **left},
                rows or self._unanswered(name, *left.values()),
            )

    def _unanswered(self, name, *left):
        """Return the rows of an input without a class: in a file every input has its line."""
        return [(name, "", "", *left)] if self._args.output else []

    def show(self, record, rows):
        """Write `record` as a line of JSON, or the `rows` that say the same as text or CSV."""
        try:
            self._write(record, rows)
            self._out.flush()
        except OSError as error:
            error.filename = self._args.output or "stdout"  # for the message: which disk is full
            raise

    def _write(self, record, rows):
        if self._args.format == "json":
            print(json.dumps(record), file=self._out)
        elif self._args.format == "csv":
            import csv

            csv.writer(self._out, lineterminator="\n").writerows(rows)
        else:
            for row in rows:
                print(*(str(cell).translate(_BLANKS) for cell in row), sep="\t", file=self._out)


def rows(facts, above=""):
    """Yield [name, value] of `facts`; those inside another are named other.name."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from rows(value, f"{above}{name}.")
        else:
            yield from ([above + name, x] for x in (value if isinstance(value, list) else [value]))
