"""Builds by several processes of this machine, each with a TF_CONFIG of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from conftest import REPO

PIPELINE = """
[data]
use = "stripes.py:stripes"
count = 159
augment = ["flip", "mixup"]

[settings]
seed = 3

[teacher]
use = "train"
model = "models/small.py:stack"
widths = [4, 8]
epochs = 50
batch = {batch}
rate = 1e-2
keep = "last"
strategy = "multi_worker"

[plain]
use = "convert"
of = "teacher"
form = "float32"
"""


def ports(count):
    """Return ports of 127.0.0.1 that are free now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment(index=None, addresses=()):
    """Return a process's environment; without an index it is alone."""
    own = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    if index is not None:
        task = {"type": "worker", "index": index}
        own["TF_CONFIG"] = json.dumps({"cluster": {"worker": list(addresses)}, "task": task})
    return own


class Processes:
    """The same `tfedge build` in two processes, the chief first.

    Args:
      logs: Folder for what each writes to stderr.
    """

    def __init__(self, file, place, logs, *more):
        logs.mkdir(parents=True, exist_ok=True)
        addresses = [f"127.0.0.1:{port}" for port in ports(2)]
        self.logs = [logs / f"{index}.txt" for index in range(2)]
        self.processes = []
        for index, log in enumerate(self.logs):
            scratch = logs / f"scratch{index}"
            scratch.mkdir()
            with log.open("wb") as stream:
                self.processes.append(
                    subprocess.Popen(
                        [*command(file, place), *more],
                        env=environment(index, addresses) | {"TMPDIR": str(scratch)},
                        stdout=subprocess.DEVNULL,
                        stderr=stream,
                        cwd=REPO,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, index):
        return self.logs[index].read_text("utf-8", "replace")

    def ended(self, seconds):
        """Return the exit codes once both have ended."""
        return [process.wait(seconds) for process in self.processes]

    def wait_for(self, index, text, seconds):
        """Return when a process has said something."""
        end = time.monotonic() + seconds
        while text not in self.said(index):
            assert time.monotonic() < end, self.said(index)[-3000:]
            assert self.processes[index].poll() is None, self.said(index)[-3000:]
            time.sleep(0.2)


def command(file, place):
    return [sys.executable, "-m", "tfedge", "build", str(file), "--build-dir", str(place)]
