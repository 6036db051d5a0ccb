"""The manual that `tfedge stages` prints: every stage and source, from its declarations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


def text(entries: Mapping[str, tuple[str, Iterable[Any]]]) -> str:
    """Lay out the manual.

    Args:
      entries: For each `use`, its docstring and its fields, as `tfedge.plan.settings.Field`.
    """
    lines = [
        "A table of a pipeline file is [data], [settings] (seed, name), [targets], [search] or a"
        " stage of any name."
    ]
    for use, (doc, fields) in entries.items():
        first, *rest = doc.strip().splitlines()
        head = use if use.startswith("[") else f'use = "{use}"'
        lines += ["", head, f"  {first}"]
        lines += [f"  {line.strip()}" for line in rest if line.strip()]
        for field in fields:
            lines.append(f"    {field.name:16} {_help(field)}")
    return "\n".join(lines)


def as_json(entries: Mapping[str, tuple[str, Iterable[Any]]]) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {
        use: {
            "doc": doc.strip(),
            "settings": {
                field.name: {
                    "help": field.metadata.get("help", ""),
                    "required": field.default is dataclasses.MISSING,
                    **({} if field.default is dataclasses.MISSING else {"default": field.default}),
                    **{k: field.metadata[k] for k in ("low", "high") if _given(field, k)},
                    **({"choices": field.metadata["choices"]} if _given(field, "choices") else {}),
                }
                for field in fields
            },
        }
        for use, (doc, fields) in entries.items()
    }


def _given(field: Any, name: str) -> bool:
    return field.metadata.get(name) not in (None, ())


def _help(field: Any) -> str:
    words = [field.metadata.get("help", "")]
    if _given(field, "choices"):
        words.append(f"one of {', '.join(field.metadata['choices'])}")
    if _given(field, "low") or _given(field, "high"):
        words.append(f"{field.metadata['low']} to {field.metadata['high']}")
    if field.default is dataclasses.MISSING:
        words.append("must be given")
    elif field.default not in ("", (), {}, None):
        words.append(f"default {_toml(field.default)}")
    return "; ".join(words)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
