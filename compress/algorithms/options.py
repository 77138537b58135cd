"""Groups of options that several methods share, checked when they are made. Nothing here needs torch.

A method takes a group as one keyword parameter, annotated with its dataclass; users give the fields one by one, as
`--set ratio=0.5` or in Python `ratio=0.5` (transmeter.util.signatures puts them together).
"""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Limits:
    """What may stay of a model; at most one limit, and without any the ratio is 0.5.

    Attributes
    ----------
    ratio
        Share of the FLOPs of all heads and neurons that is removed.
    parameters, bytes
        Size of the whole model in the end.
    latency
        Seconds of one sequence in the end.

    Raises
    ------
    ValueError
        For several limits, or one out of its range.
    """

    ratio: float | None = None
    parameters: int | None = None
    bytes: int | None = None
    latency: float | None = None
    multiple: ClassVar[int] = 1  # of whole sublayers and blocks

    def __post_init__(self):
        if self.ratio is not None:
            check_ratio(self.ratio)
        names = [f.name for f in fields(Limits) if getattr(self, f.name) is not None]
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)} are both given: give one limit")
        for name in {*names, "multiple"} - {"ratio"}:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} is out of range: give more than 0")

    @property
    def share(self) -> float:
        """The share of the FLOPs to remove, where no other limit is given."""
        return 0.5 if self.ratio is None else self.ratio


@dataclass(frozen=True)
class UnitLimits(Limits):
    """`Limits` of methods that remove single heads and neurons.

    Attributes
    ----------
    multiple
        The number of neurons left in a layer is a multiple of it, as kernels and group-wise quantization like it.
    shape
        free: every layer keeps what is worth most; uniform: every layer keeps the same number of neurons and, where
        the config can say so, of heads, so that a plain model is left, which needs no code of its own.
    """

    multiple: int = 1
    shape: Literal["free", "uniform"] = "free"


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes
    ----------
    steps
        Number of updates.
    rate
        The largest learning rate; None: what suits the method.
    temperature
        Gamma of the divergence from the teacher.
    rows
        Sequences a step in each process.
    seed
        Of the order of the batches.

    Raises
    ------
    ValueError
        For a value out of range.
    """

    steps: int = 200
    rate: float | None = 1e-3
    temperature: float = 1.0
    rows: int = 8
    seed: int = 0

    def __post_init__(self):
        if (self.rate is not None and self.rate <= 0) or self.temperature <= 0:
            raise ValueError(f"rate {self.rate} and temperature {self.temperature}: both must be above 0")
        if self.rows < 1 or self.steps < 0:
            raise ValueError(f"steps {self.steps}, rows {self.rows}: give 0 or more, and 1 or more")

    def with_rate(self, rate: float) -> "TrainingConfig":
        """The same with `rate` where none is given."""
        return replace(self, rate=rate) if self.rate is None else self


@dataclass(frozen=True)
class DistillationConfig:
    """What counts in the distillation loss.

    Attributes
    ----------
    temperature
        Of the logits.
    hidden, attention, labels
        Weights, beside that of the logits, of the hidden states, the attention maps and the cross entropy of labels.
    on_policy
        Share of the steps on which a decoder learns from what it wrote itself, by its logits alone.
    top_k
        Classes of the teacher's logits that are kept for later passes, all others as one; None: the teacher runs at
        every step.

    Raises
    ------
    ValueError
        For a value out of range, and for two that exclude each other.
    """

    temperature: float = 1.0
    hidden: float = 0.0
    attention: float = 0.0
    labels: float = 0.0
    on_policy: float = 0.0
    top_k: int | None = None

    def __post_init__(self):
        for name in ("hidden", "attention", "labels"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is out of range: give a weight of at least 0")
        if not 0 <= self.on_policy <= 1:
            raise ValueError(f"on_policy {self.on_policy} is not a share of the steps: give 0 to 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} is out of range: give more than 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} is out of range: give at least 1")
        if self.top_k is not None and self.hidden + self.attention:
            raise ValueError("top_k keeps only logits: give hidden=0 and attention=0 with it, as they run the teacher")


def check_ratio(ratio: float) -> None:
    """Refuse a ratio out of range.

    Parameters
    ----------
    ratio
        Share that is removed.

    Raises
    ------
    ValueError
        Unless 0 <= ratio < 1.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio {ratio} is not a share to remove: give 0 <= ratio < 1, for example ratio=0.5")
