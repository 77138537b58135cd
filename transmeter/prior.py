"""What to expect of a gain before it is measured, and how to join that with a measurement."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Evidence:
    """Of one source for one target; shares and skills between 0 and 1 unless said otherwise.

    shared: of the target's features that the source has; mapped: of its classes; paired: of its unlabelled rows that
    the source has seen; size: log10 of the labelled source rows; skill: accuracy of the source on itself above chance
    (leave-one-out ridge); zero_shot: that of the source's classifier on the labelled target rows, 0 where it cannot
    look at them, may be negative; closeness: of target class means to the source's, against other classes' means;
    separation: of the two domains by a linear discriminator; misfit: log error of the source's autoencoder on target
    rows, less that on its own; ridge_gain: of a ridge that sees the source's outputs, in percentage points.
    """

    shared: float
    mapped: float
    paired: float
    size: float
    skill: float
    zero_shot: float
    closeness: float
    separation: float
    misfit: float
    ridge_gain: float

    def values(self) -> list[float]:
        """In the order of the fields."""
        return list(asdict(self).values())


@dataclass(frozen=True)
class Gain:
    """Percentage points over the target alone, with a 95 % interval and P(gain < 0)."""

    mean: float
    low: float
    high: float
    p_negative: float


def foresee(evidence: Evidence, shots: int) -> Gain:
    """The gain that evidence alone lets expect."""
    mean, deviation = 0.0, 4 + 6 * evidence.shared
    reach = 1.96 * deviation
    return Gain(mean, mean - reach, mean + reach, 0.5)
