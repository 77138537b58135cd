"""What a scorer says of a source, and what it declares of itself."""

from dataclasses import dataclass

from transmeter.gain.estimate import Outcome
from transmeter.gain.prior import Gain


@dataclass(frozen=True)
class Score:
    """What a scorer says of one source.

    Attributes
    ----------
    value : float
        Higher is better.
    gain : Gain or None
        Where the scorer estimates one.
    outcome : Outcome or None
        What the gain was measured on, where it was.
    evidence : dict or None
        What the gain was predicted from, by name, where it was not measured.
    """

    value: float
    gain: Gain | None = None
    outcome: Outcome | None = None
    evidence: dict[str, float] | None = None


@dataclass(frozen=True)
class Needs:
    """What a scorer needs and how it measures, which its file declares as `NEEDS`.

    Attributes
    ----------
    labelled_rows : int
        Rows of every target class without which it refuses; 0 where it looks at no label of the target.
    target_labels : bool
        Whether it looks at the target's labels; otherwise it takes a target that has none.
    shared_columns : bool
        Whether it refuses a source without a column and a class name of the target.
    classifier : bool
        Whether it uses the source's pre-trained network.
    settings : tuple of str
        Settings of a ranking besides the seed that it takes: shots, repeats, metric, budget.
    compares : bool
        Whether its score of a source depends on the other sources unless its option `independent` is set.
    machine_options : tuple of str
        Options with which a score depends on the speed of the machine.
    quantities : bool
        Whether it takes a target whose label is a quantity as it is; otherwise that is cut at its terciles.
    """

    labelled_rows: int = 0
    target_labels: bool = True
    shared_columns: bool = False
    classifier: bool = False
    settings: tuple[str, ...] = ()
    compares: bool = False
    machine_options: tuple[str, ...] = ()
    quantities: bool = False
