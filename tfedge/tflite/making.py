"""The work of the convert stage: lint, quantise, repair, hold to max_drop, check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.data.dataset import Data
from tfedge.data.lint import findings
from tfedge.data.sampling import stratified
from tfedge.errors import CheckError, UserError
from tfedge.networks.backend import keras
from tfedge.tflite import comparison, conversion, gates, mixing, names, recurrent
from tfedge.tflite.kept import compressed, kept
from tfedge.tflite.leaving import check_stages
from tfedge.tflite.names import Layers
from tfedge.tflite.repair import Jury, repaired
from tfedge.tflite.running import time_ratio
from tfedge.tflite.staging import staged
from tfedge.tflite.wishes import Wishes

_JUDGED = 1000
_COMPARED = 32
_NAMED = 5


@dataclass
class Converted:
    """A .tflite without a card, and what the report says of its making.

    Attributes:
      network: The float network that it was made of, where repairs changed the one that came.
    """

    flatbuffer: bytes
    figures: dict[str, Any] = field(default_factory=dict)
    network: keras.Model | None = None


Unfit = Callable[[bytes, Layers], Mapping[str, str]]
"""Names the layers of an int8 file that are wrong in int8 where it is to run, and right in float.

Each has what is wrong, in words."""


class Conversion:
    """One network on its way to a .tflite; one with exits becomes a file of stages.

    Args:
      model: Of an earlier stage; float or quantization-aware.  One of several outputs has exits.
      data: As the model takes it.
      where: What a message calls the stage.
      unfit: Layers that become float whatever it costs; None for none.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        where: str,
        wishes: Wishes,
        unfit: Unfit | None = None,
    ) -> None:
        self.model, self.data, self.where, self.wishes = model, data, where, wishes
        self.unfit = unfit
        self.layers = names.of_network(model)
        self.exits = len(model.outputs) > 1
        self.notes: list[str] = []
        self.figures: dict[str, Any] = {}
        self.limits = data.limits()
        self.repaired: keras.Model | None = None

    def run(self) -> Converted:
        """Do all that the wishes say.

        Raises:
          UserError: The calibration inputs look wrong, or the network has no such form.
          CheckError: More accuracy is lost than `max_drop`.
        """
        self._refuse()
        chosen = np.sort(stratified(self.data.tune.classes, self.wishes.calibrate))
        self._lint(chosen)
        self.samples = self.data.normalise(self.data.tune.inputs[chosen])
        finer: tuple[str, ...] = ()
        before = compressed(self.model)
        made = self.int8 = self._made()
        unfit = self.unfit(made, self.layers) if self.unfit else {}
        self.spared = tuple(unfit)
        if self.spared:
            made = self._with_float(made, unfit)
        if self.wishes.fallback == "none":
            gates.check_runs(made, self.wishes.form, self.where, self._untried())
        if self.wishes.max_drop < 1:
            made, finer = self._held(made)
        if self.wishes.fallback != "none":
            gates.check_runs(made, self.wishes.form, self.where, self._untried())
        finer = (*self.spared, *finer)
        gates.check(made, self.wishes.form, self.limits, self.where, self.layers, finer)
        if self.exits:
            check_stages(made, self.samples[:_COMPARED], self.where)
        found, lines = kept(before, made, self.layers, self.figures.get("repairs", ()))
        self.figures |= found
        self.notes += lines
        notes = {"notes": self.notes} if self.notes else {}
        return Converted(made, {**self.figures, **notes}, self.repaired)

    def _refuse(self) -> None:
        if self.exits:
            self.wishes.check_exits(self.where)
        aware = self._aware()
        if aware and self.wishes.repair != "none":
            fix = "leave it out: what 8 bits cost was trained back"
            raise UserError("repair", "is for networks that were not trained in 8 bits", fix)
        if aware and self.wishes.fallback != "none":
            fix = "leave the layer out of training in 8 bits: leave = [...] in the qat stage"
            raise UserError("fallback", "is for networks that were not trained in 8 bits", fix)

    def _aware(self) -> bool:
        return any(type(layer).__name__.startswith("Quantize") for layer in self.model.layers)

    def _lint(self, chosen: np.ndarray) -> None:
        if self.wishes.form not in ("int8", "int16x8"):
            return
        found = findings(self.data, chosen)
        if found and self.wishes.strict:
            fix = "; ".join(one.fix for one in found) + "; or write strict = false to go on"
            raise UserError("calibration", "; ".join(one.what for one in found), fix)
        self.notes += [f"calibration: {one.what}" for one in found]
        memories = recurrent.of_one_operator(self.layers)
        if memories and len(chosen) < recurrent.ENOUGH:
            few = f"calibration: {len(chosen)} inputs for LSTM layers ({', '.join(memories)})"
            self.notes.append(f"{few}; their ranges are uncertain below {recurrent.ENOUGH}")

    def _made(self) -> bytes:
        wishes = self.wishes
        if wishes.repair == "none":
            made = conversion.convert(self.model, wishes.form, self.samples, self.limits)
            return staged(made, self.where) if self.exits else made
        done = repaired(self.model, self.samples, self.limits, self._jury(), wishes.repair)
        self.model, self.layers = done.model, names.of_network(done.model)
        self.repaired = done.unclipped
        self.figures["repairs"] = list(done.repairs)
        self.figures["trials"] = {name: score.accuracy for name, score in done.trials.items()}
        return done.flatbuffer

    def _with_float(self, made: bytes, unfit: Mapping[str, str]) -> bytes:
        """Return an int8 file with the layers in float that are wrong otherwise."""
        why = "; ".join(f"{names.described(one, self.layers)}: {unfit[one]}" for one in unfit)
        if self.exits:
            fix = "choose another target, or build the network without exits"
            raise UserError("target", f"{why}, and stages hand on int8 alone", fix)
        if self._aware():
            fix = "convert the stage before qat, whose layers can stay float"
            raise UserError("target", why, f"choose another target, or {fix}")
        twins = mixing.Twins(made, conversion.to_float(self.model), self.layers, self.spared)
        try:
            mixed = mixing.mixed(twins, ())
        except UserError as error:
            fix = 'choose another target, or write form = "dynamic" or "float16"'
            problem = f"{why}, and it cannot stay float beside int8: {error.parts[1]}"
            raise UserError("target", problem, fix) from None
        self.figures["in_float"] = list(self.spared)
        extra = len(mixed) - len(made)
        self.notes.append(f"float instead of int8: {why}; {extra:+,} bytes")
        return mixed

    def _jury(self) -> Jury:
        tune = self.data.tune
        chosen = np.sort(stratified(tune.classes, _JUDGED))
        inputs = self.data.normalise(tune.inputs[chosen])
        parts = [self._answer(inputs[start : start + 64]) for start in range(0, len(inputs), 64)]
        return Jury(inputs, tune.classes[chosen], np.concatenate(parts))

    def _answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the network's own logits, those of its last exit, float32 [count, classes]."""
        found = self.model(inputs, training=False)
        return np.asarray(found[-1] if self.exits else found)

    def _held(self, made: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Hold a file to `max_drop`, by a fallback if there is one; name the layers it took."""
        jury = self._jury()
        before = float(np.mean(jury.logits.argmax(axis=-1) == jury.classes))
        wanted = before - self.wishes.max_drop
        after = jury.score(made).accuracy
        self.figures["drop"] = before - after
        if after >= wanted:
            return made, ()
        if self.wishes.form != "int8" or self.exits:
            raise self._failed(before, after, [])
        reference = conversion.to_float(self.model)
        found = comparison.compare(reference, self.int8, self.samples[:_COMPARED], self.layers)
        worst = [layer.layer for layer in found.layers if layer.layer not in self.spared]
        if self.wishes.fallback == "none":
            raise self._failed(before, after, worst)
        return self._mixed(reference, worst, jury, before)

    def _mixed(
        self, reference: bytes, worst: list[str], jury: Jury, before: float
    ) -> tuple[bytes, tuple[str, ...]]:
        made, finer = self.int8, reference
        if self.wishes.fallback == "int16x8":
            finer = conversion.convert(self.model, "int16x8", self.samples, self.limits)
        kept = mixing.fewest(
            mixing.Twins(made, finer, self.layers, self.spared),
            worst,
            lambda flatbuffer: jury.score(flatbuffer).accuracy,
            before - self.wishes.max_drop,
        )
        if kept.accuracy < before - self.wishes.max_drop:
            raise self._failed(before, kept.accuracy, worst)
        self.figures |= {
            "drop": before - kept.accuracy,
            "kept_out": list(kept.layers),
            "extra_bytes": kept.extra_bytes,
        }
        note = f"{self.wishes.fallback} instead of int8: {', '.join(kept.layers)}"
        if gates.why_not(made):
            note += f"; {kept.extra_bytes:+,} bytes, and without it the runtime does not run it"
        else:
            times = time_ratio(kept.flatbuffer, made, self.samples[0])
            self.figures["host_time_ratio"] = times
            note += f"; {kept.extra_bytes:+,} bytes, and {times:.2f} times as long on this machine"
        self.notes.append(note)
        return kept.flatbuffer, kept.layers

    def _failed(self, before: float, after: float, worst: list[str]) -> CheckError:
        problem = (
            f"{before:.1%} right on tune became {after:.1%} in {self.wishes.form},"
            f" and max_drop is {self.wishes.max_drop:.1%}"
        )
        if worst:
            problem += f"; the layers that lose most: {', '.join(worst[:_NAMED])}"
        untried = self._untried()
        fix = f"write {' or '.join(untried)}; " if untried else ""
        return CheckError("max_drop", problem, f"{fix}or train with a qat stage before it")

    def _untried(self) -> list[str]:
        """Return the settings that could help a network in int8 and are not written."""
        wishes = self.wishes
        if wishes.form != "int8" or self._aware() or self.exits:
            return []
        held = "" if wishes.max_drop < 1 else "max_drop = 0.01 with "
        return [
            text
            for text, tried in (
                ('repair = "auto"', wishes.repair == "auto"),
                (f'{held}fallback = "int16x8"', wishes.fallback != "none"),
                (f'{held}fallback = "float"', wishes.fallback == "float"),
            )
            if not tried
        ]
