"""Keep a deadline with a network that has exits: start no stage that might overrun it.

`infer.py MODEL --deadline-ms D` asks a `Pace` before every stage but the first, which always runs.
"""

from __future__ import annotations

import bisect
import collections
import os
import time

import numpy as np

WINDOW_S = 1.5  # what is older says nothing of the load now
ENOUGH = 20  # times of a stage that speak for themselves
_AS_USUAL, _SOME = 1.3, 30  # slower by so much is no load; runs that tell what is usual
_WARM_UP_S, _WARM_UP_RUNS = 0.3, (10, 60)  # what a stage takes by itself: at least, at most so many
_SLICE_S = 1.4e-3  # the shortest time slice of Linux; what ends in it is not stopped
_AWAY_S, _YIELDS = 3e-4, 4  # another process ran meanwhile; asked so often, none wants to
_LATE, _P90, _P50 = 0.01, 0.9, 0.5  # answers that may be late, all stages together


class Pace:
    """How long stages take at the moment, and what of a deadline is left.

    A stage's time is the 99th percentile of its own of the last 1.5 s, or a higher one, so that
    the stages of an answer together are late in 1 % at most.  A stage that was not run often enough
    in that time is taken for as slow, against its time at the start, as nine of ten of all stages
    lately were: so a later stage is tried again as soon as the first ones are quick.
    The first stage always runs; where that alone takes too long, answers are late.

    Args:
      model: A `Staged`, which is run some times to learn what its stages take.
      deadline_ms: What an answer may take, from when its input is read.
      adaptive: Whether to take a cheaper operating point while stages take over 1.3 times as long
        as when they were quickest: the one of most effort whose answers take no longer than that
        on average.
    """

    def __init__(self, model, deadline_ms, *, adaptive=False):
        self._deadline_s, self._adaptive = deadline_ms / 1e3, adaptive
        self._costs = [point["mean_cost"] for point in model.card["exits"]["points"]]
        runs = _warm_up(model)
        self._usual = [_quantile(sorted(times), _P50) for times in runs]
        # One slow run while it warmed up must not keep a stage from ever being tried.
        self._usual_p90 = [_quantile(sorted(times), _P90) for times in runs]
        self._times, self._rests = [Window() for _ in runs], Window()
        self._stretches, self._quickest = Window(), float("inf")
        self._slice_began = float("-inf")

    def ready(self):
        """Let other processes that want this core have it now, rather than amid the next answer.

        What Linux takes up again has a time slice of its own to run without a stop: most answers
        are over by then, where those that begin anywhere in one would be late.
        """
        last = time.perf_counter()
        if last + sum(self._usual) < self._slice_began + _SLICE_S:
            return
        for _ in range(_YIELDS):
            _give_way()
            now = time.perf_counter()
            if now > last + _AWAY_S:
                self._slice_began = now
                return
            last = now

    def took(self, number, seconds):
        """Note what a stage took."""
        now = time.perf_counter()
        self._times[number].add(now, seconds)
        self._stretches.add(now, seconds / self._usual[number])

    def ended(self, began, answered):
        """Note that the answer that `began` and had its logits then is done; say if it is late."""
        now = time.perf_counter()
        self._rests.add(now, now - answered)
        return now > began + self._deadline_s

    def fits(self, number, began):
        """Whether a stage, were it started now, is done by the deadline of what began then."""
        now = time.perf_counter()
        rest = self._rests.since(now - WINDOW_S)  # what is to be done with the logits
        rest_s = _quantile(rest, _P90) if rest else 0.0
        return now + self.most_s(number, now) + rest_s <= began + self._deadline_s

    def most_s(self, number, now):
        """Return what a stage takes in all cases but its share of the 1 % that may be late."""
        own = self._times[number].since(now - WINDOW_S)
        if len(own) >= ENOUGH:
            return _quantile(own, 1 - _LATE / len(self._times))
        return self._usual_p90[number] * self.stretch(now, _P90)

    def stretch(self, now, share=_P50):
        """Return how many times as long as at the start stages take, or a `share` of them."""
        lately = self._stretches.since(now - WINDOW_S)
        return _quantile(lately, share) if lately else 1.0

    def point(self, asked):
        """Return the number of the operating point for the next answer, `asked` or a cheaper."""
        most = self._costs[asked]
        if self._adaptive:
            most *= min(1.0, _AS_USUAL / self._slowed(time.perf_counter()))
        within = [number for number in range(asked + 1) if self._costs[number] <= most]
        return within[-1] if within else 0

    def _slowed(self, now):
        """Return how many times as long stages take as when they were quickest at work.

        That is not the warm-up, in which nothing else came between to use the caches.
        """
        stretch = self.stretch(now)
        if len(self._stretches.since(now - WINDOW_S)) >= _SOME:
            self._quickest = min(self._quickest, stretch)
        return max(1.0, stretch / self._quickest)


class Window:
    """Numbers of the last moments, in order of size."""

    def __init__(self):
        self._arrived, self._sorted = collections.deque(maxlen=1000), []

    def add(self, now, value):
        """Take in a number."""
        if len(self._arrived) == self._arrived.maxlen:
            self._forget()
        self._arrived.append((now, value))
        bisect.insort(self._sorted, value)

    def since(self, then):
        """Return the numbers that came after `then`, in ascending order; forget all others."""
        while self._arrived and self._arrived[0][0] < then:
            self._forget()
        return self._sorted

    def _forget(self):
        _, value = self._arrived.popleft()
        del self._sorted[bisect.bisect_left(self._sorted, value)]


_give_way = getattr(os, "sched_yield", lambda: time.sleep(0))


def _warm_up(model):
    """Return the seconds of each stage over some runs."""
    x, (least, most) = np.zeros(model.shape, model.dtype), _WARM_UP_RUNS
    model.stages_s(x)  # the first run also sets up
    rows, end = [], time.perf_counter() + _WARM_UP_S
    while len(rows) < least or (time.perf_counter() < end and len(rows) < most):
        rows.append(model.stages_s(x))
    return list(zip(*rows))


def _quantile(ordered, share):
    """Return the number of those which so many are at most."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
