"""What ``tfedge inspect`` says of a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfedge.tflite import arena, counts
from tfedge.tflite.card import GOLDEN, Card, as_dict, find
from tfedge.tflite.facts import Facts, Sizes, facts, summary
from tfedge.tflite.graph import Signature, Subgraph, Tensor

_LABELS_SHOWN = 10

Row = Sequence[object]


def describe(blob: bytes, where: object, here: Mapping[str, Any] | None = None) -> str:
    """Return the file's card and facts as text for a terminal.

    Args:
      here: What a runtime says of the file: its ``arena_measured_bytes``, or why not, ``failed``.

    Raises:
      UserError: The file cannot be read, or its card belongs to another model.
    """
    found, known = find(blob, where), facts(blob, where)
    sections = [
        ("Card", _card(*found) if found else ["none"]),
        ("Bytes", _sizes(known.sizes)),
        ("Model", _model(known, here or {})),
        ("Signatures", _signatures(known.signatures)),
        ("Operators", _operators(known)),
        ("Zeros by weight tensor", _zeros(known)),
    ]
    for number, subgraph in enumerate(known.subgraphs):
        title = f"Graph {number} {subgraph.name}".rstrip()
        sections += [
            (f"{title}: steps", _steps(subgraph)),
            (f"{title}: tensors", _tensors(subgraph)),
        ]
    return "\n\n".join("\n".join([title, *_indented(lines)]) for title, lines in sections)


def as_json(blob: bytes, where: object, here: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the same as `describe` for ``--json``; ``card`` is absent where there is none."""
    found, known = find(blob, where), facts(blob, where)
    room = {"arena_bytes": arena.peak(known.subgraphs)}
    room |= {name: here[name] for name in ("arena_measured_bytes",) if here and name in here}
    return {**({"card": as_dict(found[0])} if found else {}), **summary(known), **room}


def _card(card: Card, files: dict[str, bytes]) -> list[str]:
    fed, made = card.input, card.made_by
    more = len(card.labels) - _LABELS_SHOWN
    labels = ", ".join(card.labels[:_LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    resized = [("resize", f"{fed.resize}, {fed.fit}")] if fed.kind == "image" else []
    golden = f"{len(card.golden)} vectors" if GOLDEN in files else "none"
    return _table(
        [
            ("labels", f"{len(card.labels)}: {labels}"),
            ("input", f"{fed.kind} {_axes(fed.shape)}"),
            ("mean", _numbers(fed.mean)),
            ("std", _numbers(fed.std)),
            *resized,
            ("output", card.output),
            *_exits(card.exits),
            ("golden", golden),
            ("made by", f"tfedge {made.tfedge}, {made.pipeline} [{made.stage}], {made.key}"),
            *((f"on {split}", _figures(figures)) for split, figures in card.measured.items()),
        ]
    )


def _exits(exits: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describe when a file of stages is left, in rows of the card's table."""
    if not exits:
        return []
    point, promise = exits["points"][exits["chosen"]], exits["promise"]
    bounds = [f"{name} {promise[name]:g}" for name in ("max_drop", "mean_cost") if name in promise]
    return [
        ("exits", f"{len(exits['signatures'])}, left by {exits['measure']}"),
        ("leave at", _numbers(point["thresholds"])),
        ("then", f"shares {_numbers(point['shares'])}, mean cost {point['mean_cost']:.4g}"),
        ("promise", f"{bounds[0]}, confidence {promise['confidence']:g}, on {promise['split']}"),
        ("points", f"{len(exits['points'])}, of effort 0 to 1"),
        *([("next", exits["next"] or "none: the last stage")] if "next" in exits else []),
    ]


def _sizes(sizes: Sizes) -> list[str]:
    rows = [(part, getattr(sizes, part)) for part in ("weights", "structure", "metadata", "card")]
    return _table([*rows, ("total", sizes.total)], right={1})


def _model(known: Facts, here: Mapping[str, Any]) -> list[str]:
    measured = here.get("arena_measured_bytes", f"not measured: {here.get('failed')}")
    share = "not counted" if known.zero_weights is None else f"{known.zero_weights:.4f}"
    return _table(
        [
            ("parameters", known.parameters),
            ("macs", known.macs),
            ("zero weights", share),
            ("float tensors", len(known.float_tensors)),
            ("custom operators", ", ".join(known.custom_operators) or "none"),
            ("arena planned", arena.peak(known.subgraphs)),
            *([("arena measured", measured)] if here else ()),
        ]
    )


def _signatures(signatures: tuple[Signature, ...]) -> list[str]:
    rows: list[Row] = [
        (signature.name, end, name, tensor.dtype, _axes(tensor.shape), _scale(tensor), tensor.name)
        for signature in signatures
        for end, tensors in (("input", signature.inputs), ("output", signature.outputs))
        for name, tensor in tensors.items()
    ]
    return _table(rows, ("signature", "", "name", "dtype", "shape", "quantised", "tensor"))


def _operators(known: Facts) -> list[str]:
    rows = [(name, version, count) for (name, version), count in known.operators.items()]
    return _table(rows, ("operator", "version", "count"), right={1, 2})


def _zeros(known: Facts) -> list[str]:
    rows = [
        (
            weight.operator,
            _axes(weight.shape),
            weight.elements,
            "-" if weight.zeros is None else weight.zeros,
            "-" if weight.zeros is None else f"{weight.zeros / weight.elements:.4f}",
            weight.name,  # last, since the converter joins the names of all that it folds
        )
        for weight in known.weights
    ]
    return _table(
        rows, ("operator", "shape", "elements", "zeros", "share", "tensor"), right={2, 3, 4}
    )


def _steps(subgraph: Subgraph) -> list[str]:
    rows = [
        (
            number,
            operator.name,
            f"v{operator.version}",
            counts.macs(operator, subgraph),
            ", ".join(subgraph.tensors[index].name for index in operator.outputs),
        )
        for number, operator in enumerate(subgraph.operators)
    ]
    return _table(rows, ("", "operator", "", "macs", "makes"), right={0, 3})


def _tensors(subgraph: Subgraph) -> list[str]:
    rows = [
        (
            number,
            tensor.dtype,
            _axes(tensor.shape),
            _kind(number, subgraph),
            _scale(tensor),
            tensor.name,
        )
        for number, tensor in enumerate(subgraph.tensors)
    ]
    return _table(rows, ("", "dtype", "shape", "", "quantised", "name"), right={0})


def _kind(number: int, subgraph: Subgraph) -> str:
    if number in subgraph.inputs:
        return "input"
    if number in subgraph.outputs:
        return "output"
    return "constant" if subgraph.tensors[number].constant else ""


def _scale(tensor: Tensor) -> str:
    if not tensor.scales:
        return "-"
    if tensor.axis is None:
        return f"scale {tensor.scales[0]:.6g} zero {tensor.zero_points[0]}"
    low, high = min(tensor.scales), max(tensor.scales)
    return f"{len(tensor.scales)} scales {low:.6g} to {high:.6g} on axis {tensor.axis}"


def _figures(figures: Any) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in figures.items())


def _numbers(values: Sequence[float]) -> str:
    return " ".join(_number(value) for value in values)


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _axes(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"


def _table(
    rows: Sequence[Row], heads: Sequence[str] = (), right: frozenset[int] | set[int] = frozenset()
) -> list[str]:
    """Align the columns; those of `right` to the right."""
    if not rows:
        return ["none"]
    cells = [[str(cell) for cell in row] for row in ([heads] if heads else []) + list(rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
