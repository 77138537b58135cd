"""Learners of a quantity: leave-one-out against refits, weights, units and signs, and what the fitted one predicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from transmeter.gain.transfers import by_regression
from transmeter.learners.combination import COMBINATION, NO_WEIGHT, average
from transmeter.learners.linear import with_intercept
from transmeter.learners.regression import combination, pooled_ridge, ridge
from transmeter.learners.regression.fitted import FittedQuantity, fit_quantity
from transmeter.learners.regression.member import DOUBT, evidence, fit_on_prediction
from transmeter.learners.regression.task import shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.tables import data
from transmeter.tables.splits import Split

ROWS, REST = np.arange(12), np.arange(12, 80)


def table(name, rows, seed, unit=1.0, columns="abcd", noise=0.5):
    """A quantity that follows four columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    y = x @ [1.0, 2.0, 0.0, -1.0] + noise * rng.normal(size=rows) + 5
    return data.table(name, pd.DataFrame(x, columns=list(columns)), unit * y)


pytestmark = pytest.mark.filterwarnings("ignore:.*the label is a quantity")


@pytest.fixture(scope="module")
def target():
    """80 rows."""
    return Encoded(table("target", 80, 0))


@pytest.fixture(scope="module")
def task(target):
    """Two splits of unequal size."""
    return task_of(target, [np.arange(12), np.arange(20, 30)], 0)


def refitted(task, split, row, source=None, x=None, y=None):
    """What a fit without a row predicts for it, by scikit-learn."""
    rows = task.rows[split][task.counted[split]]
    rest = rows[rows != row]
    columns, label = task.x[rest], task.y[rest]
    weights = np.ones(len(rest))
    if source is not None:
        columns, label = np.concatenate([columns, x]), np.concatenate([label, y])
        weights = np.concatenate([weights, np.full(len(x), source)])
    return Ridge(7.0).fit(columns, label, sample_weight=weights).predict(task.x[row][None])[0]


def test_leave_one_out_is_that_of_refits(task, target):
    wide = with_intercept(task.x)
    penalties = np.array([7.0] * 4 + [ridge.FREE])
    coefficients, inverse = ridge.solve(task.equations, penalties)
    found = ridge.left_out(wide, task.y, coefficients, inverse, task.rows)
    for split in range(2):
        for place in np.flatnonzero(task.counted[split]):
            assert found[split, place] == pytest.approx(refitted(task, split, task.rows[split, place]), abs=1e-5)


def test_leave_one_out_of_pooled_rows_is_that_of_refits(task, target):
    part = shared(Source(table("source", 50, 1)), target, task)
    x, label = part.scales["its own units"], part.unit[0] + part.unit[1] * part.y
    equations = ridge.normal(with_intercept(x), label, np.full((1, 50), 0.2))
    both = ridge.Normal(task.equations.gram + equations.gram, task.equations.moment + equations.moment)
    coefficients, inverse = ridge.solve(both, np.array([7.0] * 4 + [ridge.FREE]))
    found = ridge.left_out(with_intercept(task.x), task.y, coefficients, inverse, task.rows)
    for split in range(2):
        row = task.rows[split, 3]
        expected = refitted(task, split, row, 0.2, x, label)
        assert found[split, 3] == pytest.approx(expected, abs=1e-5)


def test_a_label_in_its_own_unit_has_an_intercept_of_its_own(task, target):
    moved = Source(table("moved", 50, 1, unit=-1000.0))
    part = shared(moved, target, task)
    assert part.unit is None
    members = pooled_ridge.members(task, part)
    assert len(members) == 2 * len(pooled_ridge.WEIGHTS)
    shifted = replace(part, y=part.y + 100)  # its mean does not count
    for member, same in zip(members, pooled_ridge.members(task, shifted)):
        np.testing.assert_allclose(member.coefficients, same.coefficients, atol=1e-8)


def test_evidence_is_the_likelihood_of_the_errors_by_their_own_variance(task):
    predicted = np.zeros_like(task.y[task.rows])
    found = evidence(task, predicted)
    y = task.y[task.rows[0]]
    squares = (y**2).sum() + DOUBT * y.var()
    assert found[0] == pytest.approx(-12 / 2 * np.log(squares / (12 + DOUBT)))
    again = task.y[task.rows[1]][:10]  # the last two are there twice
    squares = (again**2).sum() + DOUBT * again.var()
    assert found[1] == pytest.approx(-10 / 2 * np.log(squares / (10 + DOUBT)))


def test_a_prediction_as_it_is_is_kept_where_the_target_says_little(task):
    right = (task.y - 0.5) / 2
    found = fit_on_prediction("m", 1.0, task, right, (0.5, 2.0), None)
    np.testing.assert_allclose(found.slopes, 2, atol=1e-9)
    np.testing.assert_allclose(found.coefficients, [[0, 0, 0, 0, 0.5]] * 2, atol=1e-9)
    turned = fit_on_prediction("m", 1.0, task, -3 * task.y, None, None)  # of another unit and sign
    assert (turned.slopes < -0.25).all()


def test_a_source_of_another_unit_and_sign_helps_and_noise_counts_for_little(target):
    splits = [Split(np.arange(i, i + 8), REST, 0) for i in (0, 4)]
    noise = table("noise", 100, 3)
    noise = replace(noise, quantity=np.random.default_rng(0).permutation(noise.quantity))
    sources = [Source(t) for t in (table("good", 100, 1), table("turned", 100, 2, unit=-40.0), noise)]
    found = by_regression(sources, target, splits, REST, 0)
    y = (target.table.quantity[REST] - target.table.quantity.mean()) / target.table.quantity.std()
    errors = [((way[COMBINATION][0][..., 0] - y) ** 2).mean() for way in found.with_and_without]
    alone = ((found.alone.probabilities[..., 0] - y) ** 2).mean()
    assert errors[0] < 0.6 * alone and errors[1] < 0.8 * alone and errors[2] < 2.5 * alone
    shares = [np.exp(g.log_weight - np.logaddexp(g.log_weight, found.alone.log_weight)) for g in found.given]
    assert shares[0].min() > 0.8 and shares[2].max() < min(shares[0].min(), shares[1].min())


def test_nothing_in_common_and_a_constant_quantity_change_nothing(target, task):
    strange, constant = table("strange", 40, 2, columns="wxyz"), table("constant", 40, 2)
    constant = replace(constant, quantity=np.full(40, 3.0))
    for odd in (strange, constant):
        assert shared(Source(odd), target, task) is None
    found = by_regression([Source(strange)], target, [Split(ROWS, REST, 0)], REST, 0)
    assert (found.given[0].log_weight < NO_WEIGHT / 2).all()
    both, alone = found.with_and_without[0][COMBINATION]
    assert (both == alone).all()


@pytest.mark.parametrize("names", [(), ("good",), ("good", "turned"), ("strange", "good")])
def test_the_fitted_combination_predicts_as_the_one_that_is_measured(names, target):
    tables = {
        "good": table("good", 60, 1),
        "turned": table("turned", 60, 2, unit=-40.0),
        "strange": table("strange", 40, 3, columns="wxyz"),
    }
    few = replace(
        target.table,
        labels=np.where(np.arange(80) < 12, target.table.labels, None),
        quantity=np.where(np.arange(80) < 12, target.table.quantity, np.nan),
    )
    sources = [Source(tables[name]) for name in names]
    fitted, shares = fit_quantity(Encoded(few), sources, 5)
    measured = by_regression(sources, target, [Split(ROWS, REST, 0)], REST, 5)
    expected = average([measured.alone, *measured.given]).probabilities[0, :, 0]
    expected = expected * target.table.quantity.std() + target.table.quantity.mean()
    np.testing.assert_allclose(fitted.predict(Encoded(few).x.numpy()[REST]), expected, atol=1e-4)
    assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(shares.values(), reverse=True)


def test_it_is_arrays_and_predicts_the_same_from_them(target):
    fitted, _ = fit_quantity(target, [Source(table("good", 60, 1))], 0)
    arrays = fitted.arrays()
    again = FittedQuantity.restore({name: array.copy() for name, array in arrays.items()})
    x = target.x.numpy()
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))
    assert len(arrays["trees.roots"]) == 50 + 2 * 100  # a forest stands there once, whatever it serves
    with pytest.raises(KeyError, match="trees.left"):
        FittedQuantity.restore({name: array for name, array in arrays.items() if name != "trees.left"})
    with pytest.raises(ValueError):
        FittedQuantity.restore(arrays | {"coefficients": arrays["coefficients"][:-1]})
    for name in ("basis", "coefficients", "trees.threshold", "trees.value"):
        with pytest.raises(ValueError, match="numbers that are not finite"):
            FittedQuantity.restore(arrays | {name: np.full_like(arrays[name], np.nan)})


def test_every_learner_is_found_and_has_a_counterpart_of_the_target_alone(task):
    assert list(combination.target_members(task)) == ["target_estimator", "target_forest", "target_ridge"]
    for name in combination.counterparts().values():
        assert name in combination.target_members(task)
