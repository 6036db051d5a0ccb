"""Run networks of every form on every TFLite runtime, and hold `tfedge check` to what happens.

    python benchmarks/runtime_verdicts.py FOLDER

FOLDER keeps the runtimes that it fetches, see every_runtime.py.  The networks are those of
tests/board_models.py.  A file *fails* on a runtime that refuses it, is *wrong* where its answers
are further from the newest runtime's than `board_models.WRONG` says, else *right*.  Prints a table
with these errors, the disagreements of `tfedge check` with it, and a JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def main():
    sys.path[:0] = [str(REPO), str(REPO / "tests")]
    import numpy as np
    from board_models import cases
    from every_runtime import ready

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    files, known = {}, cases()
    for number, (name, case) in enumerate(known.items()):
        files[name] = str(args.folder / f"case{number}.tflite")
        Path(files[name]).write_bytes(case.content)
        np.save(f"{files[name]}.npy", case.inputs)
    runtimes = ready(args.folder)
    done = {runtime.name: ran(runtime, files) for runtime in runtimes}
    table, wrong = {}, []
    for name in files:
        for runtime in runtimes:
            found = done[runtime.name][name]
            table.setdefault(name, {})[runtime.name] = verdict(
                found, done[runtimes[-1].name][name]["answers"]
            )
            expected = predicted(files[name], runtime)
            if expected != table[name][runtime.name][0]:
                wrong.append((name, runtime.name, expected, *table[name][runtime.name]))
    print_table(table, [runtime.name for runtime in runtimes])
    for line in wrong:
        print("disagrees:", *line)
    xnnpack = {n: {f: r.get("xnnpack") for f, r in of.items()} for n, of in done.items()}
    print(json.dumps({"verdicts": table, "disagree": wrong, "xnnpack": xnnpack}))


def ran(runtime, files):
    """Run all files on a runtime, each in a process of its own if they end one together."""
    answers = {}
    for name, file in files.items():
        done = runtime.run(Path(__file__), "--run", file, check=False)
        said = done.stdout.splitlines()
        answers[name] = json.loads(said[-1]) if done.returncode == 0 else {"said": done.stderr}
    return answers


def verdict(found, right):
    """Say what a file did on a runtime, and its error or its message."""
    from board_models import WRONG, error

    if "answers" in found:
        far = error(found["answers"], right)
        return ("wrong" if far > WRONG else "right"), f"{far:.2f}"
    lines = [line for line in found["said"].splitlines() if "rror" in line]
    return "fails", (lines or [found["said"][-200:]])[0][:120]


def predicted(file, runtime):
    from tfedge.boards import checking, targets

    name = ".".join(runtime.name.replace(" ", "-").split(".")[:2])
    found = checking.check(Path(file).read_bytes(), file, targets.target(name))
    severities = {finding.severity for finding in found.findings}
    return next((w for w in ("fails", "wrong") if w in severities), "right")


def print_table(table, names):
    for name, row in table.items():
        print(name)
        for runtime in names:
            print(f"  {runtime:24} {' '.join(row[runtime])}")


def run(file):
    """In the runtime's own Python (3.9): run a file on its inputs."""
    import numpy as np

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    model = Interpreter(model_path=file, num_threads=1)
    model.allocate_tensors()
    (given,), (made,) = model.get_input_details(), model.get_output_details()
    answers = []
    for one in np.load(file + ".npy"):
        scale, zero = given["quantization"]
        if scale:
            bounds = np.iinfo(given["dtype"])
            one = np.clip(np.round(one / scale) + zero, bounds.min, bounds.max)
        model.reset_all_variables()
        model.set_tensor(given["index"], one[None].astype(given["dtype"]))
        model.invoke()
        raw = model.get_tensor(made["index"])[0].astype("float64")
        scale, zero = made["quantization"]
        answers.append(list((raw - zero) * (scale or 1)))
    kinds = [op["op_name"] for op in getattr(model, "_get_ops_details", list)()]
    xnnpack = "DELEGATE" in kinds
    print(json.dumps({"answers": answers, "xnnpack": xnnpack}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
    else:
        main()
