"""What one layer's rounding alone does to a float network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.tflite.flow import INPUT, Flow
from tfedge.tflite.graph import Tensor
from tfedge.tflite.running import Alone, Run, can_run_alone, rounded

LIMIT_DB = 120.0
"""What a ratio is where nothing is lost; float32 itself is no better."""

_KERNELS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2}
"""Operators with a kernel [out, .., in] as operand 1, and the place of what it multiplies."""


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), between -`LIMIT_DB` and `LIMIT_DB`."""
    if noise <= 0:
        return LIMIT_DB
    if signal <= 0:
        return -LIMIT_DB
    return float(np.clip(10 * np.log10(signal / noise), -LIMIT_DB, LIMIT_DB))


@dataclass
class Tally:
    """Sums of squares, for each channel (the last axis), over all that was added."""

    signal: Any = 0.0
    noise: Any = 0.0

    def add(self, exact: np.ndarray, other: np.ndarray) -> None:
        exact, other = (np.asarray(x, np.float64) for x in (exact, other))
        axes = tuple(range(exact.ndim - 1))
        self.signal = self.signal + np.square(exact).sum(axes)
        self.noise = self.noise + np.square(exact - other).sum(axes)

    @property
    def db(self) -> float:
        return decibels(float(np.sum(self.signal)), float(np.sum(self.noise)))

    @property
    def share(self) -> float:
        """Noise in units of the signal, within what `LIMIT_DB` allows."""
        return float(10 ** (-self.db / 10))


@dataclass
class Damage:
    """What was found of one step, see `Attribution.weigh`.

    Attributes:
      arrived: The value in the one file against that in the other.
      channels: The exact value against itself written into the quantised file's tensor.
      weights: The constants against the quantised ones; None where there are none.
      rounding: For each end of the way to where channels are mixed, the exact value there against
        the one that comes of this step's own rounding.
      actual: Of a step with a kernel, what it makes with the quantised one.
      even: What it would make if all channels that it reads were equally large.
    """

    arrived: Tally = field(default_factory=Tally)
    channels: Tally = field(default_factory=Tally)
    weights: Tally | None = None
    rounding: dict[int, Tally] = field(default_factory=dict)
    actual: Tally = field(default_factory=Tally)
    even: Tally = field(default_factory=Tally)

    @property
    def strain(self) -> float:
        """Noise, in units of the signal, that comes of the inequality of the channels read."""
        return max(0.0, self.actual.share - self.even.share)


@dataclass
class _Weights:
    """Operands of a step: as the quantised file has them, and with a kernel of even channels."""

    coarse: list[np.ndarray | None]
    even: list[np.ndarray | None]


class Attribution:
    """Two files of one network, and what each step of the float one was found to lose.

    Args:
      flow: Of the float file.
      other: Of the quantised one.
      pairs: Steps of the one to steps of the other.
      runs: Both files, to be run.
      model: The float file's tables.
    """

    def __init__(
        self, flow: Flow, other: Flow, pairs: dict[int, int], runs: tuple[Run, Run], model: Any
    ) -> None:
        self._flow, self._other, self._runs, self._model = flow, other, runs, model
        self.pairs = {INPUT: INPUT, **pairs}
        self.found = {step: Damage() for step in self.pairs}
        self._opaque = {s for s in flow.steps if not self._is_plain(s)}
        self._ways = {step: flow.until_mixed(step, self._opaque) for step in self.pairs}
        self._spans: dict[int, np.ndarray] = {}
        self._alone: dict[int, Alone] = {}
        self._weights: dict[int, _Weights] = {}

    def see(self, x: np.ndarray) -> None:
        """Note how large the channels become that kernels are multiplied with."""
        self._runs[0].feed(x)
        for step in self.pairs:
            if (
                step != INPUT
                and (place := _KERNELS.get(self._flow.operator(step).name)) is not None
            ):
                value = self._runs[0].value(self._flow.operator(step).inputs[place])
                span = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
                self._spans[step] = np.maximum(self._spans.get(step, 0.0), span)

    def weigh(self, x: np.ndarray) -> None:
        """Add what the steps lose on one normalised input, float32 without the batch."""
        for run in self._runs:
            run.feed(x)
        exact: dict[int, np.ndarray] = {}
        for step in self.pairs:
            self._weigh(step, exact)

    def _weigh(self, step: int, exact: dict[int, np.ndarray]) -> None:
        found = self.found[step]
        values = [self._exact(i, exact) for i in self._flow.values(step)]
        added = self._added(step, exact)
        local = {}
        partners = self._other.values(self.pairs[step])
        for place, (tensor, value) in enumerate(zip(self._flow.values(step), values, strict=True)):
            target = self._other.subgraph.tensors[self._other.read_as(partners[place])]
            made = value if added is None else added[place][0]
            clean = value if added is None else added[place][1]
            numbers = value.dtype == np.float32  # not what a comparison or an index says
            local[tensor] = value + (rounded(made, target) - clean) if numbers else value
            if place == 0:
                found.channels.add(value, rounded(value, target))
                found.arrived.add(value, self._runs[1].value(partners[place]))
        self._follow(step, local, exact)

    def _is_plain(self, step: int) -> bool:
        """Whether a step is a function of float values alone, and of constants."""
        flow = self._flow
        read = [flow.operator(step).inputs[place] for place in flow.moving(step)]
        plain = all(flow.subgraph.tensors[index].dtype == "float32" for index in read)
        return plain and can_run_alone(flow.subgraph, step)

    def _added(
        self, step: int, exact: dict[int, np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Return what a step makes with coarse and with exact weights.

        A step without weights makes it of rounded operands, so that one that only hands them on, as
        pooling does, adds nothing.  Others take exact ones: what rounding has drowned before them
        can push their sums out of range, which is not theirs to answer for.
        """
        if step == INPUT or step in self._opaque:
            return None
        alone, weights = self._alone_of(step, exact), self._weights_of(step, exact)
        if step in self._spans:
            value = self._exact(self._flow.values(step)[0], exact)
            self.found[step].actual.add(value, alone(self._with(step, weights.coarse, exact))[0])
            self.found[step].even.add(value, alone(self._with(step, weights.even, exact))[0])
        weighted = any(constant is not None for constant in weights.even)
        arriving = {} if weighted else self._arriving(step, exact)
        made = alone(self._with(step, weights.even, exact, arriving))
        return list(zip(made, alone(self._with(step, None, exact, arriving)), strict=True))

    def _arriving(self, step: int, exact: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Return what a step reads as the quantised file writes it, each without older noise."""
        ours = self._flow.operator(step).inputs
        theirs = self._other.operator(self.pairs[step]).inputs
        if len(ours) != len(theirs):
            return {}
        tensors = self._other.subgraph.tensors
        return {
            self._flow.roots[ours[place]]: rounded(
                self._exact(self._flow.roots[ours[place]], exact), tensors[theirs[place]]
            )
            for place in self._flow.moving(step)
            if theirs[place] >= 0
        }

    def _follow(
        self, step: int, local: dict[int, np.ndarray], exact: dict[int, np.ndarray]
    ) -> None:
        """Carry a step's noisy values to where its channels are mixed, and measure them there."""
        way, ends = self._ways[step]
        for other in way:
            made = self._alone_of(other, exact)(self._with(other, None, exact, local))
            local |= dict(zip(self._flow.operator(other).outputs, made, strict=True))
        for end in ends:
            tally = self.found[step].rounding.setdefault(end, Tally())
            tally.add(self._exact(end, exact), local[end])

    def _exact(self, tensor: int, exact: dict[int, np.ndarray]) -> np.ndarray:
        if tensor not in exact:
            exact[tensor] = self._runs[0].raw(tensor)
        return exact[tensor]

    def _with(
        self,
        step: int,
        constants: list[np.ndarray | None] | None,
        exact: dict[int, np.ndarray],
        local: dict[int, np.ndarray] | None = None,
    ) -> list[np.ndarray | None]:
        """Return a step's operands: `constants` where given, `local` values, else exact ones."""
        operands: list[np.ndarray | None] = []
        for place, tensor in enumerate(self._flow.operator(step).inputs):
            if tensor < 0:
                operands.append(None)
            elif constants is not None and constants[place] is not None:
                operands.append(constants[place])
            elif local and self._flow.roots[tensor] in local:
                value = local[self._flow.roots[tensor]]
                for copy in self._flow.copies(tensor):
                    value = rounded(value, self._flow.subgraph.tensors[copy])
                operands.append(value)
            else:
                operands.append(self._exact(tensor, exact))
        return operands

    def _alone_of(self, step: int, exact: dict[int, np.ndarray]) -> Alone:
        if step not in self._alone:
            self._alone[step] = Alone(self._model, step, self._with(step, None, exact))
        return self._alone[step]

    def _weights_of(self, step: int, exact: dict[int, np.ndarray]) -> _Weights:
        if step not in self._weights:
            self._weights[step] = self._read_weights(step, exact)
        return self._weights[step]

    def _read_weights(self, step: int, exact: dict[int, np.ndarray]) -> _Weights:
        operator, partner = self._flow.operator(step), self._other.operator(self.pairs[step])
        coarse: list[np.ndarray | None] = [None] * len(operator.inputs)
        even = list(coarse)
        if len(partner.inputs) != len(operator.inputs):
            return _Weights(coarse, even)
        moving = self._flow.moving(step)
        for place, (ours, theirs) in enumerate(zip(operator.inputs, partner.inputs, strict=True)):
            if ours < 0 or theirs < 0 or place in moving:
                continue
            value = self._exact(ours, exact)
            written = self._runs[1].value(theirs)
            if value.dtype != np.float32 or written.shape != value.shape:
                continue
            coarse[place] = even[place] = written
            target = self._other.subgraph.tensors[theirs]
            if value.size > 1 and target.dtype not in ("int32", "int64"):  # no bounds, no biases
                tally = self.found[step].weights = self.found[step].weights or Tally()
                tally.add(value.reshape(-1, 1), written.reshape(-1, 1))
            if place == 1 and step in self._spans and target.dtype == "int8":
                even[place] = _evened(value, written, self._spans[step], target)
        return _Weights(coarse, even)


def _evened(
    kernel: np.ndarray, coarse: np.ndarray, spans: np.ndarray, target: Tensor
) -> np.ndarray:
    """Round a kernel [out, .., in] as if all channels that it reads were equally large.

    Equalising divides a channel of the layer before by its span and multiplies the kernel's share
    for it with the same (Nagel et al. 2019, section 4.1); here the kernel is multiplied, rounded
    with new scales, and divided again.  Returns `coarse` where that rounds no better.

    Args:
      coarse: The kernel as the file rounds it.
      spans: The largest value of each channel that it reads, [in].
    """
    if spans.shape != kernel.shape[-1:] or not spans.any():
        return coarse
    # What never speaks must not set a scale; its weights' errors do not count, either.
    factors = np.where(spans > 0, spans, spans[spans > 0].min())
    scaled = kernel * factors
    axes = tuple(range(1, kernel.ndim)) if len(target.scales) > 1 else None
    steps = np.abs(scaled).max(axis=axes, keepdims=True) / np.iinfo(np.int8).max
    steps = np.where(steps > 0, steps, 1.0)
    even = np.round(scaled / steps) * steps / factors
    better = np.square((even - kernel) * spans).sum() < np.square((coarse - kernel) * spans).sum()
    return even.astype(np.float32) if better else coarse
