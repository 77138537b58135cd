"""A fitted combination predicts as the one that a ranking measures, and is plain arrays."""

from dataclasses import replace

import numpy as np
import pytest

from tests.transmeter.learners.problems import table
from transmeter.gain.transfers import by_combination
from transmeter.learners.combination import COMBINATION, average
from transmeter.learners.fitted import Fitted, fit_combination
from transmeter.network.source import Encoded, Source
from transmeter.tables.splits import Split

ROWS, REST = np.arange(12), np.arange(12, 60)
SOURCES = {"good": table("good", 80, 1), "other": table("other", 60, 2), "strange": table("s", 40, 3, columns="wxyz")}


@pytest.fixture(scope="module")
def target():
    """60 rows, of which 12 are labelled, and the same with all labels."""
    whole = table("target", 60, 0)
    return Encoded(replace(whole, labels=np.where(np.arange(60) < 12, whole.labels, None))), Encoded(whole)


@pytest.mark.parametrize("names", [(), ("good",), ("good", "other"), ("strange",), ("strange", "good")])
def test_it_predicts_as_the_combination_that_is_measured(names, target):
    few, whole = target
    sources = [Source(SOURCES[name]) for name in names]
    fitted, shares = fit_combination(few, sources, 5)
    found = fitted.probabilities(few.x.numpy()[REST])
    measured = by_combination(sources, whole, [Split(ROWS, REST, 0)], REST, 5)
    expected = average([measured.alone, *measured.given]).probabilities[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    if len(sources) == 1:
        np.testing.assert_allclose(found, measured.with_and_without[0][COMBINATION][0][0], atol=1e-5)
    assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(shares.values(), reverse=True)
    assert len(shares) == 5 + 12 * len([name for name in names if name != "strange"])


def test_it_is_arrays_and_predicts_the_same_from_them(target):
    fitted, _ = fit_combination(target[0], [Source(SOURCES["good"])], 0)
    arrays = fitted.arrays()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "fi" for array in arrays.values())
    again = Fitted.restore({name: array.copy() for name, array in arrays.items()})
    x = target[0].x.numpy()
    np.testing.assert_array_equal(again.probabilities(x), fitted.probabilities(x))
    with pytest.raises(KeyError, match="trees.left"):
        Fitted.restore({name: array for name, array in arrays.items() if name != "trees.left"})
    nodes = len(arrays["trees.left"])
    for broken in (
        *({name: arrays[name][..., :0]} for name in ("basis", "coefficients", "trees.left", "trees.value")),
        {"trees.roots": arrays["trees.roots"][:0]},
        {"trees.left": np.where(arrays["trees.left"] >= 0, np.arange(nodes), -1)},  # circles
        {"trees.right": arrays["trees.right"] + nodes},
        {"trees.feature": arrays["trees.feature"] + 4},
        {"trees.roots": arrays["trees.roots"] - nodes},
        {"trees.roots": arrays["trees.roots"].astype(np.float32)},
        {"trees.left": np.full(nodes, -1)},  # nodes with one way on
        {"trees.threshold": arrays["trees.threshold"] * np.nan},
        {"shares": arrays["shares"][:-1]},
        {"shares": arrays["shares"][:-1], "coefficients": arrays["coefficients"][:-1]},  # no sum of 1
        {"coefficients": arrays["coefficients"] * np.nan},
        {"basis": arrays["basis"].ravel()},
    ):
        with pytest.raises(ValueError):
            Fitted.restore(arrays | broken)


def test_more_columns_than_a_fit_takes_become_principal_components(target):
    wide = table("wide", 60, 0, columns=[f"c{i}" for i in range(130)])
    fitted, _ = fit_combination(Encoded(wide), [], 0)
    assert fitted.basis.shape[0] == 130 and fitted.basis.shape[1] <= 100
    assert fitted.probabilities(Encoded(wide).x.numpy()).shape == (60, 2)
