"""Measure the networks of models/ and write docs/models.md and docs/models.json.

    python benchmarks/model_table.py [--only NAME] [--fresh]

The networks are untrained and their ranges come from random inputs: what is measured here does not
depend on either.  Counting Arm instructions takes up to a minute a network; a count is kept in
docs/models.json and taken again when the converted file has changed, or with `--fresh`.
"""

import argparse
import ast
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfedge.boards.cost import costs
from tfedge.boards.edgetpu import MAPPED, mapping
from tfedge.networks.backend import build, keras, seed_everything
from tfedge.plan.refs import Ref
from tfedge.progress import Silent, quietly
from tfedge.tflite.arena import planned
from tfedge.tflite.conversion import to_int8
from tfedge.tflite.facts import facts

REPO = Path(__file__).parent.parent
BOARDS = ("pi4", "pi5")
LIMITS = (0.0, 1.0)


@dataclass(frozen=True)
class Row:
    """A builder in models/, what it is given, and the classes it tells apart."""

    ref: str
    shape: tuple
    options: dict = field(default_factory=dict)
    classes: int = 10

    @property
    def name(self):
        options = (f"{name}={value}" for name, value in self.options.items())
        return " ".join([self.ref.rpartition(":")[2], *options])

    @property
    def key(self):
        return f"{self.name} {'x'.join(map(str, self.shape))}"


def _rows(file, shape, *networks, classes=10):
    return [Row(f"models/{file}.py:{name}", shape, given, classes) for name, given in networks]


SMALL, LARGE, SPEECH, WINDOW = (32, 32, 3), (96, 96, 3), (49, 10, 1), (128, 9)
ROWS = (
    *_rows("resnet", SMALL, ("resnet8", {}), ("resnet14", {}), ("resnet20", {})),
    *_rows(
        "mobilenet",
        SMALL,
        ("mobilenet_v1", {"width": 0.25, "stride": 1}),
        ("mobilenet_v2", {"width": 0.35, "stride": 1}),
        ("mobilenet_v3_small", {"width": 0.5, "stride": 1}),
        ("mobilenet_v3_small", {"width": 0.5, "stride": 1, "minimal": True}),
    ),
    *_rows("shufflenet_v2", SMALL, ("shufflenet_v2", {"width": 0.5, "stride": 1})),
    *_rows("mcunet", SMALL, ("mcunet_like", {"stride": 1})),
    *_rows("resnet", LARGE, ("resnet8", {"stride": 2})),
    *_rows(
        "mobilenet",
        LARGE,
        ("mobilenet_v1", {"width": 0.25}),
        ("mobilenet_v1", {}),
        ("mobilenet_v2", {"width": 0.35}),
        ("mobilenet_v2", {}),
        ("mobilenet_v3_small", {}),
        ("mobilenet_v3_small", {"minimal": True}),
        ("mobilenet_v3_large", {}),
        ("mobilenet_v3_large", {"minimal": True}),
    ),
    *_rows("efficientnet_lite", LARGE, ("efficientnet_lite0", {})),
    *_rows("shufflenet_v2", LARGE, ("shufflenet_v2", {"width": 0.5}), ("shufflenet_v2", {})),
    *_rows("mcunet", LARGE, ("mcunet_like", {})),
    *_rows("ds_cnn", SPEECH, ("ds_cnn_s", {}), ("ds_cnn_m", {}), ("ds_cnn_l", {}), classes=12),
    *_rows("sensor", WINDOW, ("sensor_residual", {}), ("sensor_separable", {}), classes=6),
)


def network(row):
    """Return the untrained network, with the same weights every time."""
    keras.backend.clear_session()
    seed_everything(0)
    return build(Ref.parse(row.ref, REPO).load(), row.shape, row.classes, row.options)


def converted(model, shape):
    """Return the int8 .tflite of an untrained network, its ranges from random inputs."""
    inputs = np.random.default_rng(0).uniform(*LIMITS, (16, *shape)).astype(np.float32)
    return to_int8(model, inputs, LIMITS)


def cheap(model, blob):
    """Return all figures that take no counting of instructions."""
    known, mapped = facts(blob, "the file"), mapping(blob, "the file")
    (subgraph,) = known.subgraphs
    return {
        "parameters": int(sum(np.prod(weight.shape) for weight in model.trainable_weights)),
        "macs": known.macs,
        "bytes": len(blob),
        "arena": planned(subgraph),
        "operators": mapped.total,
        "on_edge_tpu": mapped.mapped,
        "edge_tpu_lacks": next((op.why for op in mapped.operators if op.status != MAPPED), ""),
        "beside_xnnpack": beside_xnnpack(blob),
    }


def beside_xnnpack(blob):
    """Count the operators that XNNPACK leaves to TFLite's own kernels, by name."""
    with quietly():
        interpreter = Interpreter(model_content=blob)
        interpreter.allocate_tensors()
    nodes = interpreter._get_ops_details()  # the delegates' come last; what they replace stays
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    maker = {made: node for node in operators for made in node["outputs"]}
    inside = set()
    for delegate in delegates:
        fed, todo = set(delegate["inputs"]), list(delegate["outputs"])
        while todo:
            tensor = todo.pop()
            if tensor in maker and tensor not in fed:
                inside.add(maker[tensor]["index"])
                todo.extend(maker[tensor]["inputs"])
    return dict(Counter(node["op_name"] for node in operators if node["index"] not in inside))


def measured(row, before, fresh):
    """Return a row's figures; `before` are those of an earlier run."""
    model = network(row)
    blob = converted(model, row.shape)
    figures = {**cheap(model, blob), "sha256": hashlib.sha256(blob).hexdigest()}
    if not fresh and before.get("sha256") == figures["sha256"] and "arm" in before:
        return {**figures, "arm": before["arm"]}
    counts = costs(blob, BOARDS, row.key, Silent())
    return {**figures, "arm": {count.board: count.instructions for count in counts}}


def page(figures):
    """Return docs/models.md for the rows that have figures."""
    lines = [line(row, figures[row.key]) for row in ROWS if row.key in figures]
    return "\n".join([INTRODUCTION, "", HEADER, *lines, "", NOTES, *builders(), ""])


def builders():
    """Describe each function of models/ in a line, from its signature and docstring."""
    for file in sorted((REPO / "models").glob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        yield f"\n`models/{file.name}`: {_first_sentence(tree)}\n"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = ast.unparse(node.args).split(", ")[2:]
                settings = ", ".join(argument for argument in arguments if argument != "*")
                yield f"- `{node.name}({settings})`: {_first_sentence(node)}"


def _first_sentence(node):
    return " ".join(ast.get_docstring(node).split("\n\n")[0].split())


def line(row, of):
    """Return a row of the table."""
    size = " x ".join(map(str, row.shape))
    arm = (f"{of['arm'][board] / 1e6:.2f} M" for board in BOARDS)
    beside = ", ".join(f"{count} {name}" for name, count in of["beside_xnnpack"].items())
    cells = (
        f"`{row.name}`",
        size,
        f"{of['parameters']:,}",
        f"{of['macs'] / 1e6:.2f} M",
        f"{of['bytes']:,}",
        f"{of['arena'] / 1024:.0f}",
        *arm,
        "all but " + beside if beside else "all",
        f"{of['on_edge_tpu']} of {of['operators']}"
        + (f": {of['edge_tpu_lacks']}" if of["edge_tpu_lacks"] else ""),
    )
    return f"| {' | '.join(cells)} |"


INTRODUCTION = """\
# The networks that come with tfedge

Made by `python benchmarks/model_table.py`; the same figures are in [models.json](models.json).  A
pipeline names a network by its file and function, and the function's arguments are settings beside
it: `model = "models/mobilenet.py:mobilenet_v1"`, `width = 0.25`, `stride = 1`.

All answer with logits, train in 8 bits as they are, and become int8 files without a float tensor.
The networks of the table are untrained, with 10 classes (12 for spectrograms, 6 for windows), and
calibrated on random inputs: what is measured here does not depend on the weights.  It says nothing
of accuracy."""

HEADER = (
    "| network | input | parameters | MACs | int8 bytes | arena KiB | Arm, Pi 4 | Arm, Pi 5 |"
    " XNNPACK runs | Edge TPU runs |\n|---|---|---:|---:|---:|---:|---:|---:|---|---|"
)

NOTES = """\
*parameters* are those that are trained.  *arena* is the memory of the activations, estimated.
*Arm* are instructions of one inference on one thread, of a Cortex-A72 and a Cortex-A76, counted in
an emulated Pi (`tfedge cost`).  *XNNPACK runs*: what it leaves goes to TFLite's own kernels.  *Edge
TPU runs* is the prediction of `tfedge check --target coral`, in operators.

- MobileNetV3's hard-swish has no int8 kernel in XNNPACK and none on an Edge TPU; `minimal = true`
  does without it.  After training in 8 bits the additions in its squeeze-excite stay out as well.
- A depthwise convolution in int8 of up to 25 taps, such as 5 x 5, takes 0.6 to 1.3 instructions for
  each product, one of more, such as 7 x 7, 26 (Pi 4) and 12 (Pi 5): `benchmarks/depthwise_taps.py`.
  No network here has a larger one.
- ShuffleNet's shuffle hands quarters of the channels on.  At width 1.0 the paper's transpose takes
  1.1 (Pi 4) and 1.3 times (Pi 5) the instructions and stays off an Edge TPU, a fixed convolution of
  1 x 1 takes 1.8 and 1.7 times as many: `benchmarks/shuffle_forms.py`.

## The functions"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--fresh", action="store_true", help="count every row again")
    args = parser.parse_args()
    docs = REPO / "docs"
    docs.mkdir(exist_ok=True)
    kept = docs / "models.json"
    figures = json.loads(kept.read_text()) if kept.exists() else {}
    for row in ROWS:
        if args.only in row.key:
            figures[row.key] = measured(row, figures.get(row.key, {}), args.fresh)
            print(line(row, figures[row.key]), flush=True)
            kept.write_text(json.dumps(figures, indent=1) + "\n")  # each row: it may be stopped
    keys = [row.key for row in ROWS]
    figures = {key: figures[key] for key in keys if key in figures}
    kept.write_text(json.dumps(figures, indent=1) + "\n")
    (docs / "models.md").write_text(page(figures))


if __name__ == "__main__":
    main()
