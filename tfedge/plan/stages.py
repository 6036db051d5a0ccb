"""Every stage that a pipeline can use, with its settings: this file is the reference manual.

A stage is a frozen dataclass.  Its fields are the settings of its table in the pipeline file, so
all tables are checked before the first stage runs; `run` hands them to the function that does the
work.  That function's module is imported inside `run`, because reading a pipeline must not cost the
seconds that TensorFlow takes to import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tfedge.declarations import required, setting
from tfedge.errors import UserError
from tfedge.plan.about import About
from tfedge.plan.job import TFLITE, Job, file_figures
from tfedge.plan.refs import Ref
from tfedge.plan.settings import Converted, File, Network, Options, Plain
from tfedge.training.course import Course

PRECISION = setting(
    "float32",
    "of the arithmetic; bfloat16 is faster where the processor has AMX",
    choices=("float32", "bfloat16"),
)

IN_LADDER = ("accuracy", "accuracy_low", "accuracy_high", "count", "split", "host_ms_p50")

RAMP = (0.0, 0.6, "polynomial")
"""Where pruning begins and ends unless told otherwise, in shares of the epochs, and its shape."""


@dataclass(frozen=True)
class Train:
    """Train a network on the labels."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network"

    model: Ref = required("function (input shape, classes) that builds the network", given=2)
    options: Options = field(default_factory=lambda: Options({}))
    course: Course = field(default=Course())
    precision: str = PRECISION

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.precision import in_precision
        from tfedge.training.fitting import fit, tune_figures

        network = job.construct(self.model, self.options)
        twin = in_precision(network, self.precision) if self.precision != "float32" else network
        history = fit(twin, self.course, job.session())
        network.set_weights(twin.get_weights())
        job.save(network)
        figures = tune_figures(network, job.data) | job.network_figures(network)
        return figures | {"epochs": len(history), "history": history}


@dataclass(frozen=True)
class Import:
    """Take in a network that was trained elsewhere, of Keras 2 or Keras 3.

    It is rebuilt flat in tf_keras, as tfmot and the converter take it, and proved to answer the
    same.  Normalisation at its start goes to the card, a softmax or sigmoid at its end off.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network"

    file: File | None = setting(None, "the .keras or .h5 file, or the SavedModel folder")
    model: Ref | None = setting(None, "or a function without arguments that returns the network")
    custom: Ref | None = setting(None, "a file, and a layer or model in it, that the network needs")
    trust: bool = setting(default=False, help="run code that the file holds, such as a Lambda's")
    takes: str = setting(
        "data",
        "what the network was trained on: as [data] normalises (or pixels, if the network begins"
        " with layers for them), 0 to 1, -1 to 1, 0 to 255, or as Keras's preprocess_input does",
        choices=("data", "unit", "symmetric", "pixels", "imagenet", "caffe"),
    )
    batchnorm: str = setting(
        "fold",
        "fold it into the layers before it, or keep it for training to come",
        choices=("fold", "keep"),
    )
    strict: bool = setting(
        default=True, help="stop if it is right much more often when fed otherwise"
    )

    def check(self, where: str) -> None:
        """Refuse two networks, and none."""
        if (self.file is None) == (self.model is None):
            fix = 'write file = "my_model.keras", or model = "my_code.py:network"'
            raise UserError(where, "wants one of file and model", fix)

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.backend import classes_in
        from tfedge.networks.files import made_by, opened
        from tfedge.networks.importing import doubt, taken_in
        from tfedge.training.fitting import tune_figures

        custom = classes_in(self.custom.module()) if self.custom is not None else {}
        if self.model is not None:
            graph, answers = made_by(self.model.guarded()(), job.data.shape)
        else:
            graph, answers = opened(self.file or Path(), trust=self.trust, custom=custom)
        fold = self.batchnorm == "fold"
        prepared = taken_in(graph, answers, job.data, self.takes, fold=fold)
        about = About(prepared.feed.mean, prepared.feed.std, prepared.output)
        notes = [*prepared.notes]
        if found := doubt(prepared.model, prepared.feed, job.data):
            problem = (
                f"answers {found.now:.1%} of tune inputs right as it is fed,"
                f" and {found.accuracy:.1%} with {found.takes}"
            )
            if self.strict:
                fix = f"write takes = {found.takes!r}, or strict = false to go on"
                raise UserError("takes", problem, fix)
            notes.append(problem)
        job.save(prepared.model, about)
        return (
            tune_figures(prepared.model, about.view(job.data))
            | job.network_figures(prepared.model)
            | {"largest_difference": max(prepared.steps.values()), "rewrites": prepared.steps}
            | {"notes": notes}
        )


@dataclass(frozen=True)
class Distill:
    """Train a small network to answer as a trained one does."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network"

    teacher: Network = required("stage whose network teaches")
    model: Ref = required("function (input shape, classes) that builds the student", given=2)
    options: Options = field(default_factory=lambda: Options({}))
    temperature: float = setting(
        4.0, "softens both answers; 1 leaves them as they are", low=0.1, high=100
    )
    alpha: float = setting(
        0.1, "share of the labels' loss; the teacher's is the rest", low=0, high=1
    )
    hints: dict[str, str] = setting(
        {}, "the student's layers that follow one of the teacher's: { student = teacher }"
    )
    hint_weight: float = setting(1.0, "of the hints' loss beside the others", low=0, high=1e6)
    course: Course = field(default=Course())
    precision: str = PRECISION

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.precision import in_precision
        from tfedge.training.distillation import Distiller, match_features, teacher_of
        from tfedge.training.fitting import fit, tune_figures

        teacher, student = job.load("teacher"), job.construct(self.model, self.options)
        channels = match_features(student, teacher, self.hints, f"[{job.name}] hints")
        twin = student
        if self.precision != "float32":
            twin, teacher = (in_precision(model, self.precision) for model in (student, teacher))
        distiller = Distiller(
            twin,
            teacher_of(teacher, list(self.hints.values())),
            temperature=self.temperature,
            alpha=self.alpha,
            hints=channels,
            hint_weight=self.hint_weight,
        )
        history = fit(distiller, self.course, job.session())
        student.set_weights(twin.get_weights())
        job.save(student)
        figures = tune_figures(student, job.data) | job.network_figures(student)
        return figures | {"epochs": len(history), "history": history}


@dataclass(frozen=True)
class Prune:
    """Turn the smallest weights into zeros while training goes on.

    Makes the zipped file smaller.  It makes nothing faster in int8, because no TFLite kernel for
    int8 skips zeros.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network"

    of: Plain = required("stage whose network is pruned")
    sparsity: float = setting(
        0.5, "fraction of a layer's weights to end as zeros", low=0, high=0.99
    )
    ramp: str = setting(
        RAMP[2],
        "how the zeros come: along a cubic, or all at once",
        choices=("polynomial", "constant"),
    )
    begin: float = setting(
        RAMP[0], "when pruning begins, as a share of the epochs", low=0, high=0.99
    )
    end: float = setting(
        RAMP[1], "when the last weight falls, as a share of the epochs", low=0, high=1
    )
    every: int = setting(0, "steps between two prunings; 0 for 20 in all", low=0, high=100_000)
    pattern: str = setting(
        "free",
        "weights that fall together: any, two of each four, or whole blocks",
        choices=("free", "2:4", "block"),
    )
    block: tuple[int, int] = setting((1, 4), "a block's inputs and outputs", low=1, high=64)
    layers: dict[str, float] = setting(
        {},
        'other fractions by layer name, such as { "conv_1" = 0, "block_*" = 0.8 }',
        low=0,
        high=0.99,
    )
    course: Course = field(default=Course(epochs=10, rate=3e-4))

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        half = 0.5
        if self.pattern == "2:4" and self.sparsity != half:
            raise UserError(f"{where} sparsity", f"2:4 is 0.5 by its nature, got {self.sparsity}")
        if self.pattern == "2:4" and set(self.layers.values()) - {0.0, half}:
            raise UserError(f"{where} layers", f"2:4 is 0.5 or 0, got {self.layers}")
        if self.pattern == "2:4" and (self.begin, self.end, self.ramp) != RAMP:
            fix = "leave begin, end and ramp out: tfmot prunes 2:4 at once, at the first step"
            raise UserError(f"{where} pattern", "2:4 has no ramp", fix)
        if self.pattern != "block" and self.block != (1, 4):
            fix = 'write pattern = "block", or leave it out'
            raise UserError(f"{where} block", f"is for blocks, not for {self.pattern!r}", fix)
        if self.begin > self.end:
            raise UserError(f"{where} begin", f"must be at most end, {self.end}, got {self.begin}")

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.training import pruning
        from tfedge.training.fitting import fit, tune_figures

        network = job.load("of")
        schedule = pruning.Schedule.over(
            self.course, job.data, (self.begin, self.end), kind=self.ramp, every=self.every
        )
        pattern = pruning.Pattern(self.pattern, self.block)
        session = job.session()
        wrapped = pruning.with_pruning(network, self.sparsity, schedule, pattern, self.layers)
        history = fit(
            wrapped,
            self.course,
            session,
            callbacks=[pruning.pruning_step()],
            best_from=schedule.first_epoch,
        )
        pruned = pruning.without_pruning(wrapped)
        job.save(pruned)
        notes = ["zeros shorten the zipped file; int8 inference is no faster for them"]
        if self.pattern == "block" and (free := pruning.without_blocks(network, self.block)):
            notes.append(f"tfmot forms no blocks in {', '.join(free)}: single weights fell there")
        return (
            tune_figures(pruned, job.data)
            | job.network_figures(pruned)
            | {"sparsity": pruning.sparsity_of(pruned), "zeros": pruning.zeros(pruned)}
            | {"epochs": len(history), "history": history, "notes": notes}
        )


@dataclass(frozen=True)
class Qat:
    """Train on with 8-bit weights and activations, so that int8 costs little accuracy."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "8-bit network"

    of: Plain = required("stage whose network is trained on; its zeros are kept")
    leave: tuple[str, ...] = setting((), "layers, by name, that are not trained in 8 bits")
    calibrate: int = setting(200, "tune inputs that set the first ranges", low=1, high=100_000)
    course: Course = field(default=Course(epochs=5, rate=1e-4))

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.data.sampling import calibration
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.pruning import sparsity_of
        from tfedge.training.quantization import float_twin, left_alone, quantization_aware

        network = job.load("of")
        session = job.session()
        samples = calibration(job.data, self.calibrate)
        aware = quantization_aware(network, samples, job.data.limits(), self.leave)
        history = fit(aware, self.course, session)
        job.save(aware)
        learned = float_twin(aware, network)
        left = left_alone(network, self.leave)
        return (
            tune_figures(aware, job.data)
            | job.network_figures(learned)
            | {"sparsity": sparsity_of(learned), "left_in_float": left}
            | {"epochs": len(history), "history": history}
            | {"notes": [f"{name} trained in float: {why}" for name, why in left.items()]}
        )


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


STAGES: dict[str, type] = {
    "train": Train,
    "import": Import,
    "distill": Distill,
    "prune": Prune,
    "qat": Qat,
    "convert": Convert,
    "evaluate": Evaluate,
}
"""What `use` may say in a pipeline file, besides a ``path.py:Class`` of the user's own."""
