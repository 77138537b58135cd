"""Class numbers as memberships."""

import numpy as np


def one_hot(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, classes) 1.0 where a row is of a class, for the classes that occur.

    values (n, ...) what is to be measured, codes (n,) class numbers from 0. Raises ValueError for values that are not
    finite and for fewer than two classes.
    """
    if not np.isfinite(values).all():
        raise ValueError("values are given that are not finite: replace them first")
    there = np.bincount(codes) > 0
    if there.sum() < 2:
        raise ValueError("one class only: two are needed")
    labels = np.zeros((len(codes), there.sum()))
    labels[np.arange(len(codes)), (there.cumsum() - 1)[codes]] = 1
    return labels
