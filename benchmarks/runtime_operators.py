"""Measure which operators, in which versions, each TFLite runtime has a kernel for.

    python benchmarks/runtime_operators.py FOLDER [--write]

FOLDER keeps the runtimes that it fetches, see every_runtime.py.  A runtime refuses a model whose
list of operators names one that it has no kernel for, used or not, as it is opened; so a model of
one ReLU with one more entry in that list tells, for each operator and version.  Prints what differs
from tfedge/boards/operators.csv and a JSON object; `--write` writes that file anew.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
VERSIONS = range(1, 21)


def main():
    sys.path[:0] = [str(REPO), str(REPO / "tests")]
    from every_runtime import ready

    from tfedge.boards import runtimes

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model, names = args.folder / "probe.tflite", builtin_names()
    content, places = template()
    model.write_bytes(content)
    task = json.dumps({"places": places, "numbers": sorted(names)})
    measured = {}
    for runtime in ready(args.folder):
        done = runtime.run(Path(__file__), "--probe", str(model), task, check=False)
        if done.returncode:
            sys.exit(f"{runtime.name}: {done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        short = ".".join(runtime.name.split(".")[:2])
        measured[short] = {names[int(n)]: tuple(ends) for n, ends in found.items()}
        print(f"{runtime.name}: {len(found)} operators", file=sys.stderr)
    text = runtimes.written(measured)
    same = runtimes.FILE.is_file() and runtimes.FILE.read_text("utf-8") == text
    if args.write:
        runtimes.FILE.write_text(text, "utf-8")
    print("the same as in tfedge" if same else f"another than in {runtimes.FILE}")
    print(json.dumps({"same": same, "operators": {n: len(of) for n, of in measured.items()}}))


NOT_KERNELS = ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES")


def builtin_names():
    from ai_edge_litert import schema_py_generated as schema

    known = vars(schema.BuiltinOperator).items()
    return {n: name for name, n in known if isinstance(n, int) and name not in NOT_KERNELS}


def template():
    """Return a model, and where in it the second operator's number and version are written."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from tiny_conv import G, Op, T, model_of

    tensors = tuple(T(name, "float32", (1, 4)) for name in "ab")
    content = model_of(G("main", tensors, (Op("RELU", (0,), (1,)),), (0,), (1,)))
    model = schema.ModelT.InitFromPackedBuf(content)
    model.operatorCodes.append(
        schema.OperatorCodeT(builtinCode=150, deprecatedBuiltinCode=127, version=99)
    )
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    table = schema.Model.GetRootAs(content, 0).OperatorCodes(1)._tab
    # The slots of schema.fbs's OperatorCode: the older number, the version, the number.
    return content, [int(table.Pos + table.Offset(slot)) for slot in (4, 8, 10)]


def probe(model, task):
    """In the runtime's own Python (3.9): try every operator and print which it takes."""
    content = bytearray(Path(model).read_bytes())
    found = {}
    for number in task["numbers"]:
        taken = [v for v in VERSIONS if takes(content, task["places"], number, v)]
        if taken and (len(taken) <= taken[-1] - taken[0] or taken[-1] == VERSIONS[-1]):
            raise SystemExit(f"operator {number} has gaps, or more versions: {taken}")
        if taken:
            found[number] = (taken[0], taken[-1])
    print(json.dumps(found))


def takes(content, places, number, version):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    struct.pack_into("<b", content, places[0], min(number, 127))
    struct.pack_into("<i", content, places[1], version)
    struct.pack_into("<i", content, places[2], number)
    try:
        Interpreter(model_content=bytes(content))
    except ValueError as error:
        if "op for builtin" not in str(error) and "out of range" not in str(error):
            raise
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        probe(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
