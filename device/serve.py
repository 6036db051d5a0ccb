"""Answer what a folder or a camera brings, for months, as a service (tfedge.service).

`infer.py MODEL --watch DIR --serve` runs this.  SIGHUP takes the model file anew, once that has
passed its self-test; SIGTERM ends it when the image in hand is answered.  systemd is told by hand,
over the socket that it names, and only by the loop itself: a loop that hangs is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import types

import infer

STATUS_S = 10  # between two words on how it goes, where no watchdog asks for more
_NAP_S = 0.5  # the longest sleep without a look at what signals came


def run(args):
    """Serve until SIGTERM; return the exit status.

    Args:
      args: The command line of infer.py, whose answers these are, too.

    Raises:
      ModelError: The model or what is to be watched cannot be used.
    """
    if bool(args.watch) == bool(args.camera) or args.inputs:
        raise infer.ModelError("--serve needs --watch DIR or --camera NAME, and nothing else")
    console = infer._beside("console", "--serve")
    with console.opened(args) as answers:
        return loop(
            load=lambda: console.loaded(args),
            feed=lambda takes, wait: _feed(args, takes, wait),
            answer=answers.answer,
        )


def loop(load, feed, answer):
    """Answer what `feed` brings until it ends or SIGTERM comes; return 0, or 1 for a bad model.

    Args:
      load: Returns the Classifier that the model file now holds, or raises ModelError.
      feed: Given what the model takes (its card, shape and dtype) and `wait`, yields (name, read)
        of each input.  `wait(seconds)` is how it sleeps when there is none.
      answer: Given the model and what `feed` yielded, reports one answer, or what was wrong.
    """
    service = Service(load)
    model = service.model
    findings = model.selftest()
    if findings:
        print(f"infer.py: {'; '.join(findings)}", file=sys.stderr)
        return 1
    # Not the model itself: that would keep the first one in memory when another has its place.
    takes = types.SimpleNamespace(card=model.card, shape=model.shape, dtype=model.dtype)
    del model
    with contextlib.suppress(Stopped), contextlib.closing(feed(takes, service.wait)) as coming:
        for name, read in coming:
            answer(service.model, name, read)
            service.answered += 1
            service.turn()
    service.systemd.tell("STOPPING=1", service.status())
    return 0


class Stopped(Exception):  # noqa: N818 nothing went wrong
    """SIGTERM came, and nothing is in hand."""


class Service:
    """The model in use, the signals that came meanwhile, and whoever started all this."""

    def __init__(self, load):
        self.systemd, self.answered = Systemd(os.environ), 0
        self._load, self._asked = load, set()
        for number in (signal.SIGTERM, signal.SIGHUP):  # before the model: loading takes a while
            signal.signal(number, lambda number, _: self._asked.add(number))
        self.model = load()

    def turn(self):
        """Do what has come up between two inputs; raise `Stopped` if that is to stop."""
        if signal.SIGTERM in self._asked:
            raise Stopped
        if signal.SIGHUP in self._asked:
            self._asked.discard(signal.SIGHUP)
            self.model = _reloaded(self.model, self._load)
        self.systemd.goes_on(self.status())

    def wait(self, seconds):
        """Sleep for so long, and do what comes up."""
        end = time.monotonic() + seconds
        self.turn()
        while time.monotonic() < end:
            time.sleep(max(0, min(_NAP_S, end - time.monotonic())))
            self.turn()

    def status(self):
        """Say how it goes, as `systemctl status` shows it."""
        return f"STATUS=answered {self.answered}"


class Systemd:
    """Whoever started this service, told by the protocol of sd_notify(3) if it listens."""

    def __init__(self, environment):
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # a name that is no file's
            self._address = "\0" + self._address[1:]
        whose = environment.get("WATCHDOG_PID") or str(os.getpid())
        watchdog = environment.get("WATCHDOG_USEC") if whose == str(os.getpid()) else None
        # It may come twice in the time that systemd waits for it.
        self._period_s = int(watchdog) / 2e6 if watchdog else STATUS_S
        self._last = None

    def goes_on(self, status):
        """Say, when half of systemd's patience is over, that the loop goes round; READY=1 first."""
        now, first = time.monotonic(), self._last is None
        if first or now - self._last >= self._period_s:
            self.tell("READY=1" if first else "WATCHDOG=1", status)
            self._last = now

    def tell(self, *lines):
        """Send `lines`, such as READY=1."""
        if self._address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            # If nobody hears it any more, the service goes on; systemd judges by what it heard.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)


def _reloaded(model, load):
    """Return what the model file holds now, if that may take the place of `model`, else `model`."""
    try:
        found = load()
        findings = found.selftest()
    except infer.ModelError as error:
        findings = [str(error)]
    else:
        if _takes(found) != _takes(model):
            findings.append("it takes other inputs; restart the service for it")
    if findings:
        print(f"infer.py: goes on with the old model: {'; '.join(findings)}", file=sys.stderr)
        return model
    print("infer.py: goes on with the new model", file=sys.stderr)
    return found


def _takes(model):
    """Return all of the card that decides what a feed reads; mean and std are the model's own."""
    return {key: x for key, x in model.card["input"].items() if key not in ("mean", "std")}


def _feed(args, takes, wait):
    feeds = infer._beside("feeds", "--serve")
    if args.camera:
        yield from feeds.frames(takes, args.camera)
    for path in feeds.arrivals(args.watch, wait, args.state):
        yield from infer._beside("console").items(takes, path)
