"""Ridge regressions in closed form, many at once, with what each would predict for a row that it had not seen."""

from dataclasses import dataclass

import numpy as np

FREE = 1e-6  # penalty of an intercept: hardly any
CLOSE = 1e-3  # least share of a row's residual that is not its own doing


@dataclass(frozen=True)
class Normal:
    """Normal equations of one or several regressions on the same columns; sums of two are those of all their rows.

    Attributes
    ----------
    gram
        (..., c, c) weighted products of columns.
    moment
        (..., c) weighted products of columns and label.
    """

    gram: np.ndarray
    moment: np.ndarray


def normal(columns: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Normal:
    """Normal equations of weighted rows.

    Parameters
    ----------
    columns
        (n, c).
    y
        (n,) label.
    weights
        (fits, n) weight of every row, 0 for those that a fit does not see.

    Returns
    -------
    Normal
        Of every fit.
    """
    return Normal((columns.T[None] * weights[:, None]) @ columns, (weights * y) @ columns)


def solve(equations: Normal, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the least penalised squares.

    Parameters
    ----------
    equations
        Of several fits.
    penalties
        (c,) of the squared coefficients.

    Returns
    -------
    tuple
        (fits, c) coefficients, and (fits, c, c) inverses of the penalised products.
    """
    inverse = np.linalg.inv(equations.gram + np.diag(penalties))
    return (inverse @ equations.moment[..., None])[..., 0], inverse


def left_out(
    columns: np.ndarray, y: np.ndarray, coefficients: np.ndarray, inverse: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """What every fit predicts for rows of weight 1, each as if it had not seen that row.

    Parameters
    ----------
    columns
        (n, c).
    y
        (n,) label.
    coefficients, inverse
        Of `solve`.
    rows
        (fits, m) numbers of the rows.

    Returns
    -------
    np.ndarray
        (fits, m).
    """
    inside = columns[rows]  # (fits, m, c)
    leverage = ((inside @ inverse) * inside).sum(2)
    fitted = (inside @ coefficients[..., None])[..., 0]
    return (fitted - leverage * y[rows]) / np.maximum(1 - leverage, CLOSE)
