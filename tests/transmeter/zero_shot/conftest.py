"""A target without labels and sources that know more or less of it."""

from dataclasses import replace

import numpy as np
import pytest

from transmeter.network.source import Encoded, Source
from transmeter.tables.data import from_arrays


def rows(name, seed, n=200, shift=0.0, told=1.0):
    """Rows of two classes apart by `told` in the first two of four columns."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 2
    x = rng.normal(size=(n, 4)) + shift
    x[:, :2] += told * (2 * codes[:, None] - 1)
    return from_arrays(name, x, np.array(["no", "yes"], dtype=object)[codes], list("abcd"))


@pytest.fixture(scope="session")
def labelled():
    """The target with the labels that nobody knows."""
    return rows("target", 0)


@pytest.fixture(scope="session")
def target(labelled):
    """The target, its classes those of the sources."""
    return replace(labelled, labels=np.full(len(labelled), None, dtype=object))


@pytest.fixture(scope="session")
def encoded(target):
    """The target as numbers."""
    return Encoded(target)


@pytest.fixture(scope="session")
def sources():
    """A source that tells the classes, two that hardly do, and one far off."""
    return [Source(rows(*given)) for given in (("good", 1), ("far", 2, 200, 8.0), ("noise", 3, 200, 0.0, 0.0))]
