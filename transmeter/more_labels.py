"""How many more labelled rows would settle what a ranking leaves open."""

from collections.abc import Sequence

from transmeter.gain.estimate import Outcome, is_better, measure_gain
from transmeter.gain.score import Score
from transmeter.result import MORE
from transmeter.tables.labels import R2

BEYOND = 1.96 + 0.84  # standard errors of a difference that is beyond its 95 % interval in four draws of five
MOST = 30  # times the labelled rows, beyond which nobody would label


def rows_to_settle(difference: float, error: float, shots: int) -> float:
    """Labelled rows per class at which a difference shows.

    Its standard error shrinks by the root of the rows that measure it.

    Parameters
    ----------
    difference, error : float
        True difference and its standard error now, in percentage points.
    shots : int
        Labelled rows per class now.

    Returns
    -------
    float
        At which it is beyond its 95 % interval in four draws of five; infinite without a difference.
    """
    return shots * (BEYOND * error / abs(difference)) ** 2 if difference else float("inf")


def more_labels(ranked: Sequence[tuple[str, Score]]) -> list[str]:
    """What more labelled rows would settle, where rows that train also measure (cross-fitting).

    Parameters
    ----------
    ranked : sequence of (str, Score)
        Name and score of every source, best first.

    Returns
    -------
    list of str
        One line that begins with MORE, on whether the first source leads the second or, where it does, whether it
        gains anything; none without measured gains, and where both are settled.
    """
    measured = [(name, score) for name, score in ranked if score.outcome and not score.outcome.unchanged]
    if not measured:
        return []
    (name, first), *others = measured
    if others and not is_better(first.outcome, others[0][1].outcome):
        other, second = others[0]
        return [_line(f"tell {name} from {other}", first.gain.mean - second.gain.mean, first.outcome, second.outcome)]
    if first.gain.verdict not in ("helps", "hurts"):
        return [_line(f"show what {name} brings", first.gain.mean, first.outcome, None)]
    return []


def _line(what: str, difference: float, outcome: Outcome, other: Outcome | None) -> str:
    """What a number of rows would do."""
    rows = rows_to_settle(difference, measure_gain(outcome, other)[1], outcome.shots)
    more = rows - outcome.shots
    if rows > MOST * outcome.shots:
        return f"{MORE}not even {MOST} times as many labelled rows would {what}"
    unit = "labelled rows" if outcome.metric == R2 else "labelled rows per class"
    return f"{MORE}about {_rounded(max(more, 1.0))} more {unit} would {what}"


def _rounded(number: float) -> int:
    """With one digit that counts, two where the first is 1."""
    digits = 1 - len(str(int(number))) + (str(int(number))[0] == "1")
    return max(1, int(round(number, min(digits, 0))))
