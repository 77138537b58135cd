"""The 95 % interval of a mean, by Student's t distribution."""

from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes
    ----------
    mean, low, high : float
        In one unit.
    """

    mean: float
    low: float
    high: float


def around(mean: float, error: float, freedom: float) -> Interval:
    """The 95 % interval around a mean.

    Parameters
    ----------
    mean, error : float
        Mean and its standard error, in one unit.
    freedom : float
        Degrees of freedom of that error; infinite for a normal distribution.

    Returns
    -------
    Interval
        In the unit of `mean`.
    """
    reach = half_width(error, freedom)
    return Interval(mean, mean - reach, mean + reach)


def half_width(error: float, freedom: float) -> float:
    """Half the width of the 95 % interval around a mean.

    Parameters
    ----------
    error : float
        Standard error of the mean, in any unit.
    freedom : float
        Degrees of freedom of that error; infinite for a normal distribution.

    Returns
    -------
    float
        In the unit of `error`.
    """
    return float(stats.t.ppf(0.975, freedom)) * error
