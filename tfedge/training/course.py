"""How long and by what rule a network is trained: the settings of every stage that trains."""

from __future__ import annotations

from dataclasses import dataclass

from tfedge.declarations import setting
from tfedge.training.team import ONE, STRATEGIES

PRECISION = setting(
    "float32",
    "of the arithmetic; bfloat16 is faster where the processor has AMX",
    choices=("float32", "bfloat16"),
)


@dataclass(frozen=True)
class Course:
    """How a network is trained.

    Attributes are the settings that a user writes; `tfedge stages` prints their help.
    """

    epochs: int = setting(20, "passes over the training split", low=1, high=10_000)
    batch: int = setting(128, "inputs per step", low=1, high=65_536)
    optimizer: str = setting(
        "adam", "the rule of descent; adam with a weight_decay is AdamW", choices=("adam", "sgd")
    )
    rate: float = setting(1e-3, "step size after the warm-up", low=1e-7, high=10)
    schedule: str = setting(
        "cosine",
        "how the step size falls: to 0 on a half cosine, or not",
        choices=("cosine", "constant"),
    )
    warmup: float = setting(0.0, "epochs over which the step size rises from 0", low=0, high=1000)
    momentum: float = setting(0.9, "of sgd, with Nesterov's correction", low=0, high=1)
    weight_decay: float = setting(
        0.0, "times the step size, decoupled from the loss", low=0, high=1
    )
    label_smoothing: float = setting(0.0, "share of each label given to all classes", low=0, high=1)
    patience: int = setting(
        0,
        "epochs without a better tune accuracy after which to stop; 0 never stops",
        low=0,
        high=10_000,
    )
    keep: str = setting(
        "best", "weights to end with: best on tune, or last", choices=("best", "last")
    )
    strategy: str = setting(
        ONE,
        "who trains: one process; mirrored, all GPUs of this machine, each on its part of every"
        " batch; multi_worker, all processes that TF_CONFIG names, see docs/cluster.md; the curve"
        " is the same but for rounding and Dropout, so that another one runs no stage again",
        choices=STRATEGIES,
        decides=False,
    )
    balance: bool = setting(default=False, help="weigh classes by the inverse of their frequency")
    class_weights: dict[str, float] = setting(
        {},
        'weight of a class in the loss, such as { "cat" = 2.0 }; 1 where not named',
        low=0,
        high=1e6,
    )
