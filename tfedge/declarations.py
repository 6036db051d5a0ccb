"""How a setting is declared: a field of a frozen dataclass, with its help and its range.

The declarations lie below all rooms, so that whoever does the work can declare what it takes; the
reading of a user's table into them is `tfedge.plan.settings`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NewType

Input = NewType("Input", str)
"""The name of an earlier stage, whose folder this stage reads."""

Network = NewType("Network", str)
"""An `Input` that must have made a Keras model, in float or with 8-bit wrappers."""

Plain = NewType("Plain", str)
"""A `Network` in float: what tfmot's 8-bit wrappers are in can be trained no further by it."""

Free = NewType("Free", str)
"""A `Plain` network whose weights share no values: the stage changes each weight for itself."""

Single = NewType("Single", str)
"""A `Free` network without early exits."""

Converted = NewType("Converted", str)
"""An `Input` that must have made a .tflite."""

INPUTS = (Input, Network, Plain, Free, Single, Converted)


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    decides: bool = True,
) -> Any:
    """Declare an optional setting: its default, one line of help, and what it may be.

    Args:
      low: The least number allowed, for numbers and for each number of a list.
      high: The largest number allowed.
      choices: The words allowed, for text.
      decides: Whether what the stage makes depends on it; if not, it is no part of its key.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "decides": decides}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, *, given: int = 0) -> Any:
    """Declare a setting that every table must give.

    Args:
      given: For a function: how many of its arguments tfedge itself hands in, which are the first.
        The others are the user's to set.
    """
    return dataclasses.field(metadata={"help": help, "given": given})
