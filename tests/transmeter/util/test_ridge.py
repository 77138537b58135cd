"""Ridge classifiers in closed form against plain computations."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score

from transmeter.util import ridge


def blobs(n=60, d=5, classes=3, seed=0):
    """(x, codes) of overlapping classes of different sizes."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    return rng.normal(size=(n, d)) + 1.2 * np.eye(classes, d)[codes], codes


@pytest.mark.parametrize("features", [5, 100])
def test_the_closed_form_is_a_loop_that_leaves_one_out(features):
    x, codes = blobs(d=features)
    classes = np.unique(codes)
    y = np.eye(len(classes))[codes]
    y /= y.mean(0)
    a = np.column_stack([x, np.ones(len(x))])
    guess = np.zeros(len(x), dtype=int)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        weights = np.linalg.solve(a[rest].T @ a[rest] + ridge.RIDGE * np.eye(a.shape[1]), a[rest].T @ y[rest])
        guess[i] = (a[i] @ weights).argmax()
    expected = (balanced_accuracy_score(codes, guess) - 1 / 3) / (1 - 1 / 3)
    assert 0.02 < expected < 0.9
    assert ridge.loo_skill(x, codes) == pytest.approx(expected, abs=1e-12)


def test_skill_is_one_where_classes_lie_apart_and_about_nothing_in_noise():
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 3
    assert ridge.loo_skill(np.eye(3)[codes] + 0.01 * rng.normal(size=(300, 3)), codes) == 1
    assert ridge.loo_skill(rng.normal(size=(300, 3)), codes) < 0.15
    assert ridge.loo_skill(rng.normal(size=(20, 50)), codes[:20]) <= 1  # more features than rows


def test_held_out_is_the_ridge_of_scikit_learn():
    x, codes = blobs(n=90)
    x -= x.mean(0)
    train, test = np.arange(50), np.arange(50, 90)
    found = ridge.ridge_accuracy(x, codes, train, test, 3)
    y = np.eye(3)[codes[train]]
    model = Ridge(ridge.RIDGE * len(train), fit_intercept=False).fit(x[train], y - y.mean(0))
    guess = (model.predict(x[test]) + y.mean(0)).argmax(1)
    assert found == pytest.approx(balanced_accuracy_score(codes[test], guess), abs=1e-12)


def test_long_training_sets_are_thinned_evenly():
    x, codes = blobs(n=1300)
    train, test = np.arange(1200), np.arange(1200, 1300)
    found = ridge.ridge_accuracy(x, codes, train, test, 3)
    assert found == ridge.ridge_accuracy(x, codes, train[::3], test, 3)
