"""Every stage that a pipeline can use, with its settings: this file is the reference manual.

A stage is a frozen dataclass.  Its fields are the settings of its table in the pipeline file, so
all tables are checked before the first stage runs; `run` hands them to the function that does the
work.  That function's module is imported inside `run`, because reading a pipeline must not cost the
seconds that TensorFlow takes to import.
"""

from __future__ import annotations

from tfedge.plan.stages.cascading import Cascade
from tfedge.plan.stages.clustering import Cluster
from tfedge.plan.stages.compressing import Prune, Qat
from tfedge.plan.stages.converting import Convert, Evaluate
from tfedge.plan.stages.exiting import Exits
from tfedge.plan.stages.making import Distill, Import, Train
from tfedge.plan.stages.narrowing import Narrow

__all__ = [
    "STAGES",
    "Cascade",
    "Cluster",
    "Convert",
    "Distill",
    "Evaluate",
    "Exits",
    "Import",
    "Narrow",
    "Prune",
    "Qat",
    "Train",
]

STAGES: dict[str, type] = {
    "train": Train,
    "import": Import,
    "distill": Distill,
    "narrow": Narrow,
    "prune": Prune,
    "cluster": Cluster,
    "exits": Exits,
    "qat": Qat,
    "convert": Convert,
    "cascade": Cascade,
    "evaluate": Evaluate,
}
"""What `use` may say in a pipeline file, besides a ``path.py:Class`` of the user's own."""
