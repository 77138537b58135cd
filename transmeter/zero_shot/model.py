"""A model of a source alone, for a target of which no label is known: the mean of two logistic regressions.

One sees the source's rows in the target's units, the other in the source's own, so that a column in another unit or
about another mean does not decide alone. They are those of the learner `source_linear`, which weighs them by labelled
target rows; here nothing can weigh them.
"""

from dataclasses import dataclass

import numpy as np

from transmeter.learners import linear
from transmeter.learners.task import PENALTY, balanced, basis_of, in_units, labelled_rows, most_features
from transmeter.network.source import Encoded, Source


@dataclass(frozen=True)
class SourceModel:
    """A source's regressions and what they predict; classes are the source's.

    Attributes
    ----------
    basis : ndarray of shape (features, d)
        That leads from the target's encoded features to those of the regressions.
    coefficients : ndarray of shape (units, regressions, d + 1)
        Of every unit of the features, see `linear.probabilities`.
    rows : ndarray of shape (m, features)
        Labelled rows of the source in the target's encoded features, those that it lacks at 0.
    codes : ndarray of shape (m,)
        Their classes.
    left_out : ndarray of shape (m, classes)
        Probabilities of these rows, each predicted without it.
    by_unit : ndarray of shape (units, n, classes)
        Probabilities of the target's rows.
    """

    basis: np.ndarray
    coefficients: np.ndarray
    rows: np.ndarray
    codes: np.ndarray
    left_out: np.ndarray
    by_unit: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(n, classes) of the target's rows."""
        return self.by_unit.mean(0)

    @property
    def known(self) -> np.ndarray:
        """(features,) whether the source has a feature of the target."""
        return (self.rows != 0).any(0)


def fit_source_model(source: Source, target: Encoded) -> SourceModel | None:
    """Fit the model of a source and predict the target's rows.

    Parameters
    ----------
    source : Source
        With columns named as the target's.
    target : Encoded
        Whose labels are not looked at.

    Returns
    -------
    SourceModel or None
        None without a column in common.
    """
    rows = labelled_rows(source)
    x = target.x.numpy().astype(np.float64)
    scales = in_units(source, target, rows, np.eye(x.shape[1]))
    if not scales:
        return None
    classes, codes = len(source.table.classes), source.table.codes[rows]
    basis = basis_of(target, most_features(classes))
    weights, labels = len(rows) * balanced(codes, codes >= 0), np.eye(classes)[codes]
    everyone = np.arange(len(rows))[None]
    fits = [linear.fit(u @ basis, labels[None], weights[None], PENALTY, everyone) for u in scales.values()]
    coefficients = np.stack([fit.coefficients[0] for fit in fits])
    return SourceModel(
        basis=basis,
        coefficients=coefficients,
        rows=next(iter(scales.values())),
        codes=codes,
        left_out=np.mean([fit.left_out[0] for fit in fits], axis=0),
        by_unit=linear.probabilities(coefficients, x @ basis),
    )
