"""Run `infer.py ... --serve`, with a small feed where infer.py itself has no --serve yet."""

import argparse
import json
import sys
from pathlib import Path

from beside import beside

serve = beside("serve")
infer = serve.infer


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--watch", type=Path)
    return parser.parse_args()


def feed(folder, takes, wait):
    seen = set()
    while True:
        for path in sorted(set(folder.glob("[!.]*")) - seen):
            seen.add(path)
            yield str(path), lambda path=path: infer.read_image(path, takes.shape)
        wait(0.02)


def answer(output, model, name, read):
    try:
        best = model.classify(read())
    except infer.ImageError as error:
        sys.stderr.write(f"infer.py: {error}\n")
    else:
        record = {"input": name, "classes": [{"label": label} for label, _ in best]}
        with output.open("a") as out:
            out.write(json.dumps(record) + "\n")


def main(args):
    try:
        return serve.loop(
            lambda: infer.Classifier(args.model),
            lambda takes, wait: feed(args.watch, takes, wait),
            lambda *given: answer(args.output, *given),
        )
    except infer.ModelError as error:
        sys.stderr.write(f"infer.py: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(infer.main() if hasattr(infer, "_beside") else main(arguments()))
