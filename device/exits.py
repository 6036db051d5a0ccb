"""Leave a network with exits as soon as it is sure, and say how sure it is.

infer.py alone runs the whole of such a network; console.py hands over to this file for its stages.
tfedge imports it, too, so that the thresholds it chooses are of these very numbers.
"""

from __future__ import annotations

import contextlib
import io
import time

import infer
import numpy as np

MEASURES = ("confidence", "margin", "entropy")
NEVER, ALWAYS = 2.0, -1000.0  # thresholds that no measure reaches, and that every one does

_DOT = b"P5 1 1 255\n\0"  # the smallest picture
_UNIT = 2.0**28  # shares are multiples of its inverse
_LN2 = 0.6931471805599453


class Measure:
    """How sure an exit is of its answer, the same to the last bit on every processor.

    The quantised logits' softmax at a temperature, p, gives one of

    - confidence: the largest p,
    - margin: the largest p less the second largest,
    - entropy: sum(p ln p), which is that of Shannon below 0, so that more is surer here as well.

    numpy's exp, its log and the order of its sums differ between processors by a last bit, which
    is enough to take another exit.  So p follows from integers: a logit that lies d steps below
    the largest has the weight exp(-scale / temperature) ** d, rounded to a multiple of 2**-28,
    and those (of up to 65,536 classes) have one sum in whatever order.  All else are single
    float64 operations, which IEEE 754 defines to the bit; the last step rounds to float32.

    Args:
      name: One of `MEASURES`.
      scale: The logits' quantisation step; the zero point makes no difference.
      temperature: Above 0; divides the logits (Guo et al. 2017, section 4.2).
    """

    def __init__(self, name, scale, temperature):
        if name not in MEASURES:
            raise ValueError(f"must be one of {', '.join(MEASURES)}, got {name}")
        self._name, self._steepness = name, float(scale) / float(temperature)
        factors = np.full(256, _exp(-self._steepness))
        factors[0] = 1
        self._weights = np.rint(np.multiply.accumulate(factors) * _UNIT) / _UNIT

    def __call__(self, raw):
        """Return the measure of logits, int8 [..., classes], as float32 [...]."""
        # The difference of two int8 is from 0 to 255 here, which is what wraps around in uint8.
        steps = (np.maximum.reduce(raw, axis=-1, keepdims=True) - raw).view(np.uint8)
        weights = self._weights.take(steps)
        total = np.add.reduce(weights, axis=-1)
        if self._name == "confidence":
            return np.float32(1 / total)
        if self._name == "margin":
            second = np.partition(steps, 1, axis=-1)[..., 1]
            return np.float32((1 - self._weights.take(second)) / total)
        mean = (weights * steps).sum(axis=-1) / total
        return np.float32(-(_ln(total) + self._steepness * mean))


def sure(measure, threshold):
    """Whether an exit whose `Measure` is this, float32 [...], is one to leave by."""
    return measure >= np.float32(threshold)


def leaving(measures, thresholds):
    """Return which exit answers, int64 [count]: the first that is sure, or else the last.

    Args:
      measures: Float32 [count] of each exit but the last.
      thresholds: A number for each of those.
    """
    leaves = [sure(*each) for each in zip(measures, thresholds)]
    return np.argmax([*leaves, np.ones_like(leaves[0])], axis=0)


def staged(model, args):
    """Return `model` as the command line wants it gone through: a `Staged`.

    Args:
      model: A `Classifier`, not to be used any more.
      args: What console.py read: its effort, exit, deadline_ms and adaptive.
    """
    if "exits" not in model.card:
        asked = ("effort", "exit", "deadline_ms")
        option = next(name for name in asked if getattr(args, name) is not None)
        said = f"has no exits; leave out --{option.replace('_', '-')}, or build it with exits"
        raise infer.ModelError(f"{args.model}: {said}")
    parts = ()
    if "stage" in model.card["exits"]:
        chain = infer._beside("chain", "a model of one file a stage")
        parts = chain.parts(model, args.model, args.threads, args.delegate)
    held_open = args.deadline_ms is not None
    found = Staged(model, args.effort, args.exit, held_open=held_open, parts=parts)
    if args.deadline_ms is not None:
        pace = infer._beside("pace", "--deadline-ms")
        found.pace = pace.Pace(found, args.deadline_ms, adaptive=args.adaptive)
        with contextlib.suppress(infer.ModelError, infer.ImageError):  # a camera needs no Pillow
            # The first picture would be late for Pillow's own start.
            infer.read_image(io.BytesIO(_DOT), found.shape)
    return found


class Staged(infer.Classifier):
    """A network with exits, left at the first that is sure.

    Args:
      model: The `Classifier` of such a network.  It is not to be used any more: its interpreter
        belongs to the stages.
      effort: From 0 to 1, for the card's operating point; None takes the one it promises for.
      exit: Always answer there instead.
      held_open: Go stage by stage also where nothing but the last exit is wanted, which the
        network without its other exits answers quicker.
      parts: What runs the stages, where each is a file of its own; see chain.py.

    Attributes:
      point: The number of the operating point that was asked for.
      used: That of the last answer, which may be a cheaper one with `pace`.
      answered: The exit that gave the last answer, from 0.
      because: Why there: "sure"; "last", as none before was; "asked", by `exit`; "deadline", as
        the next stage might have overrun it; "late", as it was overrun all the same.
      pace: What watches a deadline, see pace.py; None where there is none.
    """

    def __init__(self, model, effort=None, exit=None, *, held_open=False, parts=()):
        vars(self).update(vars(model))
        self._read_exits(effort)
        last = len(self.names) - 1
        if exit is not None and not 0 <= exit <= last:
            raise infer.ModelError(f"--exit must be from 0 to {last}, got {exit}")
        self.pace = self.used = self.answered = self.because = self._began = None
        self._runners, self._exit, self._parts = [], exit, list(parts)
        whole = exit == last or (exit is None and self._never())
        self._whole = whole and not held_open and not parts
        if not self._whole:
            self._set_up()

    def start(self):
        """Let the time of the next answer begin here, before its input is read."""
        if self.pace is not None:
            self.pace.ready()
        self._began = time.perf_counter()

    def left(self):
        """Return where the last answer came from, as it is printed."""
        return {"exit": self.answered, "because": self.because}

    @contextlib.contextmanager
    def only(self, exit):
        """Always answer at `exit` meanwhile, whatever the deadline."""
        kept = self.pace, self._exit, self._whole
        self.pace, self._exit, self._whole = None, exit, False
        try:
            yield
        finally:
            self.pace, self._exit, self._whole = kept

    def classify(self, x, top_k=1):
        found = super().classify(x, top_k)
        if self.pace is not None and self.pace.ended(*self._ends):
            self.because = "late"
        return found

    def raw(self, x):
        if self._began is None:
            self.start()
        return super().raw(x)

    def invoke(self, tensor):
        """Go from exit to exit with what `quantise` made; return the logits, int8 [classes]."""
        if self._whole:
            self.answered, self._began = len(self.names) - 1, None
            self.because = "last" if self._exit is None else "asked"
            self._runners = []  # which hold memory that the whole may not run beside
            self._scale, self._zero = self._units[-1]
            return super().invoke(tensor)
        if not self._runners:
            self._set_up()
        raw = self._gone_through(tensor)
        self._scale, self._zero = self._units[self.answered]
        return raw

    def selftest(self):
        """Run the golden vectors through the whole network, then stage by stage, each exit."""
        if self._parts:  # there is no file of the whole
            with self.only(len(self.names) - 1):
                return super().selftest() + self._stage_findings()
        kept, self._whole = self._whole, True
        findings = super().selftest()
        self._whole = kept
        if self._whole and not hasattr(self._interpreter, "get_signature_list"):
            return findings  # the stages cannot be run here, and are not to be
        return findings + self._stage_findings()

    def stages_s(self, x):
        """Return the seconds of each stage for `x`, none left out."""
        found, stages = [], self._one_by_one(self.quantise(x))
        for _ in self.names:
            start = time.perf_counter()
            next(stages)
            found.append(time.perf_counter() - start)
        return found

    def _stage_findings(self):
        """Return where an exit answers otherwise than was recorded; in older files, the last."""
        try:
            files = infer._unzipped(self._files["golden.npz"])
            names = [name for name in ("inputs.npy", "outputs.npy", "exits.npy") if name in files]
            inputs, last, *each = (np.load(io.BytesIO(files[name])) for name in names)
        except infer._DAMAGED as error:
            said = "the golden vectors of its exits cannot be read; copy the model again"
            raise infer.ModelError(f"{said} ({infer._line(error)})") from error
        recorded = each[0] if each else last[None]
        first = len(self.names) - len(recorded)
        if each and recorded.shape != (len(self.names), *last.shape):
            raise infer.ModelError("the golden vectors are of other exits; build the model again")
        limit, findings = int(not self.runtime.startswith(infer.RUNTIMES[0])), []
        for number, x in enumerate(inputs):
            made = [one["logits"][0] for one in self._one_by_one(self.quantise(x))]
            for name, ours, theirs in zip(self.names[first:], made[first:], recorded):
                off = np.abs(ours.astype(np.float64) - theirs[number]).max()
                if off > limit:
                    problem = f"{name} is wrong by {off:g}; take another than {self.runtime}"
                    findings.append(f"stage by stage, golden vector {number}: {problem}")
        return findings

    def _one_by_one(self, tensor):
        """Yield what each stage makes of what `quantise` made, by name, none left out."""
        if not self._runners:
            self._set_up()
        held = {"inputs": tensor}
        for number in range(len(self.names)):
            made = self._stage(number, held)
            yield made
            held = dict(made, inputs=tensor)

    def _gone_through(self, tensor):
        """Return the logits of the exit that answers, and note which and why."""
        pace, began, held = self.pace, self._began or time.perf_counter(), {"inputs": tensor}
        self._began, number, goal = None, 0, len(self.names) - 1
        thresholds, because = (), "last"
        if self._exit is not None:
            goal, because = self._exit, "asked"
            number = self._start_for(goal)
        else:
            self.used = self.point if pace is None else pace.point(self.point)
            thresholds = self._points[self.used]["thresholds"]
        while True:
            start = time.perf_counter()
            made = self._stage(number, held)
            if pace is not None:
                pace.took(number, time.perf_counter() - start)
            raw = made.pop("logits")[0]
            if number == goal:
                break
            if thresholds and sure(self._measures[number](raw), thresholds[number]):
                because = "sure"
                break
            if pace is not None and not pace.fits(number + 1, began):
                because = "deadline"
                break
            held, number = dict(made, inputs=tensor), number + 1
        self.answered, self.because = number, because
        if pace is not None:
            self._ends = began, time.perf_counter()
        return raw

    def _stage(self, number, held):
        """Run a stage on those of `held` that it takes; return what it makes by name."""
        try:
            return self._runners[number](**{name: held[name] for name in self._takes[number]})
        except (ValueError, RuntimeError) as error:
            raise infer._meaning(error, self.runtime) from error

    def _set_up(self):
        """Make what runs the stages one by one."""
        if self._parts:
            self._takes = [sorted(part.inputs) for part in self._parts]
            self._runners = self._parts
            return
        try:
            found = self._interpreter.get_signature_list()
            self._takes = [sorted(found[name]["inputs"]) for name in self.names]
            self._runners = [self._interpreter.get_signature_runner(each) for each in self.names]
        except AttributeError as error:
            said = (
                f"{self.runtime} is too old to go stage by stage; take a newer one, or --effort 1"
            )
            raise infer.ModelError(said) from error
        except infer._DAMAGED as error:
            raise _unreadable(error) from error

    def _start_for(self, exit):
        """Return the first stage that `exit` needs: in a cascade, its own."""
        return max(n for n in range(exit + 1) if n == 0 or self._takes[n] == ["inputs"])

    def _never(self):
        """Whether no input may leave early."""
        return min(self._points[self.point]["thresholds"]) >= NEVER

    def _read_exits(self, effort):
        """Take in what the card says of the exits."""
        try:
            card = self.card["exits"]
            self.names, self._points = card["signatures"], card["points"]
            early = zip(card["logits"], card["temperatures"])
            self._measures = [Measure(card["measure"], at["scale"], t) for at, t in early]
            self._units = [np.float32([at["scale"], at["zero"]]) for at in card["logits"]]
            self.point = card["chosen"] if effort is None else point_of(self._points, effort)
            lengths = {len(point["thresholds"]) + 1 for point in self._points}
            lengths |= {len(self._units), len(self._measures)}
            if lengths != {len(self.names)} or not self._points[self.point]:
                raise ValueError("as many numbers as exits are missing")
        except infer._DAMAGED as error:
            raise _unreadable(error) from error


def point_of(points, effort):
    """Return the number of the last operating point that takes `effort`, 0 to 1, or less."""
    within = [number for number, point in enumerate(points) if point["effort"] <= effort]
    return within[-1] if within else 0


def _unreadable(error):
    """Return what to say of a card whose exits are not what they should be."""
    said = "its exits cannot be read; copy the model and exits.py again"
    return infer.ModelError(f"{said} ({infer._line(error)})")


def _exp(x):
    """Return exp(x) of a float of at most 0, by sums and products alone (Taylor's series)."""
    halved = 0
    while x < -1:
        x, halved = x / 2, halved + 1
    total = term = 1.0
    for n in range(1, 24):
        term *= x / n
        total += term
    for _ in range(halved):
        total *= total
    return total


def _ln(x):
    """Return the logarithm of float64 x >= 1, by sums and products alone: 2 artanh of the rest."""
    rest, exponent = np.frexp(x)
    z = (rest - 1) / (rest + 1)
    total, square = 0.0, z * z
    for n in range(37, 0, -2):
        total = total * square + 1 / n
    return exponent * _LN2 + 2 * z * total
