"""The command line: one function a command, and all printing to the terminal."""

from __future__ import annotations

from tfedge.cli.main import main

__all__ = ["main"]
