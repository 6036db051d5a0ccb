"""The manual's entries: every source and stage with its declarations."""

from __future__ import annotations

from tfedge.plan.freeing import Manner
from tfedge.plan.reading import Every, General
from tfedge.plan.settings import Field, fields_of
from tfedge.plan.sources import SOURCES, Function
from tfedge.plan.stages import STAGES
from tfedge.plan.targets import Table


def entries() -> dict[str, tuple[str, list[Field]]]:
    """Map each `use` to its docstring and its settings."""
    kinds = {"[settings]": General, **SOURCES, "path.py:function": Function}
    kinds |= {"[any stage]": Every, **STAGES, "[targets]": Table, "[search]": Manner}
    return {use: (kind.__doc__ or "", list(fields_of(kind))) for use, kind in kinds.items()}
