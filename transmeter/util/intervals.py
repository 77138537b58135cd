"""The 95 % interval of a mean, by Student's t distribution."""

from scipy import stats


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
