"""Batched logistic regressions against scikit-learn, and leave-one-out against fits without the row."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from transmeter.learners import linear


def problem(n=30, d=4, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    x = rng.normal(size=(n, d)) + 0.8 * rng.normal(size=(classes, d))[codes]
    return x, codes


def reference(classes):
    model = LogisticRegression(C=1 / 2.0, tol=1e-10, max_iter=10_000)
    return model if classes == 2 else OneVsRestClassifier(model)


def fitted(x, codes, weights, classes, penalty=2.0):
    memberships = np.broadcast_to(np.eye(classes)[codes], (len(weights), len(x), classes))
    return linear.fit(x, memberships, weights, penalty, np.tile(np.arange(len(x)), (len(weights), 1)))


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_those_of_scikit_learn(classes):
    x, codes = problem(60, classes=classes)
    weights = np.stack([np.ones(60), np.r_[np.ones(40), np.zeros(20)]])
    found = linear.probabilities(fitted(x, codes, weights, classes).coefficients, x)
    for part, seen in zip(found, (slice(60), slice(40))):
        model = reference(classes).fit(x[seen], codes[seen])
        assert np.abs(part - model.predict_proba(x)).max() < 2e-3  # the intercept's penalty


def test_weights_count_as_repeated_rows():
    x, codes = problem()
    twice = np.where(np.arange(30) < 10, 2.0, 1.0)
    repeated = np.r_[np.arange(30), np.arange(10)]
    one = fitted(x, codes, twice[None], 2).coefficients
    other = fitted(x[repeated], codes[repeated], np.ones((1, 40)), 2).coefficients
    assert np.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_leaving_a_row_out_is_a_fit_without_it(classes):
    x, codes = problem(40, classes=classes)
    given = fitted(x, codes, np.ones((1, 40)), classes).left_out[0]
    without = np.ones((40, 40)) - np.eye(40)
    refits = fitted(x, codes, without, classes).coefficients
    exact = np.stack([linear.probabilities(c, x[i : i + 1])[0] for i, c in enumerate(refits)])
    seen = linear.probabilities(fitted(x, codes, np.ones((1, 40)), classes).coefficients[0], x)
    assert np.abs(given - exact).max() < 0.02 and np.abs(given - exact).mean() < 0.1 * np.abs(seen - exact).mean()


def test_fits_do_not_depend_on_one_another_or_on_how_many_are_held_at_once(monkeypatch):
    x, codes = problem(50, classes=3)
    weights = np.random.default_rng(1).random((5, 50))
    whole = fitted(x, codes, weights, 3)
    monkeypatch.setattr(linear, "CELLS", 1)
    single = fitted(x, codes, weights, 3)
    assert np.allclose(whole.coefficients, single.coefficients, atol=1e-4)
    assert np.allclose(whole.left_out, single.left_out, atol=1e-4)


def test_separable_classes_and_a_class_without_weight_stay_finite():
    x = np.r_[np.full((10, 1), -5.0), np.full((10, 1), 5.0)]
    codes = np.repeat([0, 1], 10)
    found = fitted(x, codes, np.stack([np.ones(20), np.r_[np.ones(10), np.zeros(10)]]), 2, penalty=1e-3)
    p = linear.probabilities(found.coefficients, x)
    assert np.isfinite(found.left_out).all() and (p[0].argmax(1) == codes).all() and (p[1][:10, 0] > 0.99).all()
