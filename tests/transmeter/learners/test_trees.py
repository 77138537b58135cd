"""Forests as plain arrays against scikit-learn's own, and the learners that grow them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from tests.transmeter.learners.problems import table
from transmeter.learners import source_forest, target_forest, trees
from transmeter.learners.combination import learn
from transmeter.learners.member import evidence
from transmeter.learners.task import shared, task_of
from transmeter.learners.trees import trees_of, weighted_sum
from transmeter.network.source import Encoded, Source
from transmeter.tables import data


def grown(classes=3, seed=0, missing=None, number=20, **options):
    """A forest, rows, and codes; `missing`: a class that it has not seen."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, 150)
    codes[codes == missing] = 0
    x = rng.normal(size=(150, 6)) + codes[:, None] * rng.normal(size=6)
    return RandomForestClassifier(number, random_state=seed, **options).fit(x, codes), x, codes


@pytest.mark.parametrize("options", [{}, {"min_samples_leaf": 3}, {"max_depth": 1}, {"class_weight": "balanced"}])
@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_those_of_scikit_learn(classes, options):
    forest, x, _ = grown(classes, **options)
    other = np.random.default_rng(1).normal(size=(200, 6)) * 3
    for rows in (x, other):
        np.testing.assert_allclose(trees_of(forest, classes).probabilities(rows), forest.predict_proba(rows), atol=1e-6)


def test_every_tree_ends_in_the_leaf_of_scikit_learn():
    forest, x, _ = grown()
    found = trees_of(forest, 3).leaves(x)
    expected = np.stack([tree.predict_proba(x) for tree in forest.estimators_], axis=1)
    np.testing.assert_allclose(found * 20, expected, atol=1e-6)


def test_values_on_a_threshold_go_the_way_of_scikit_learn():
    forest, _, _ = grown()
    first = forest.estimators_[0].tree_
    x = np.tile(first.threshold[first.children_left >= 0][:, None], (1, 6))  # rounds to float32, as it does there
    np.testing.assert_allclose(trees_of(forest, 3).probabilities(x), forest.predict_proba(x), atol=1e-6)


def test_rows_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    forest = trees_of(grown()[0], 3)
    x = np.random.default_rng(2).normal(size=(50, 6))
    whole = forest.probabilities(x)
    monkeypatch.setattr(trees, "CELLS", 20 * 3 * 7)  # seven rows
    np.testing.assert_array_equal(forest.probabilities(x), whole)
    assert forest.probabilities(x[:0]).shape == (0, 3)


def test_a_class_that_a_forest_has_not_seen_has_no_probability():
    forest, x, _ = grown(4, missing=2)
    found = trees_of(forest, 4).probabilities(x)
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(found[:, [0, 1, 3]], forest.predict_proba(x), atol=1e-6)
    stump = trees_of(RandomForestClassifier(3, random_state=0).fit(x, np.full(150, 1)), 2)
    assert (stump.probabilities(x)[:, 0] == 0).all() and np.allclose(stump.probabilities(x)[:, 1], 1)


def test_a_weighted_sum_of_forests_is_one_forest():
    forests = [trees_of(grown(3, seed, number=5 + seed)[0], 3) for seed in range(3)]
    x, weights = np.random.default_rng(5).normal(size=(40, 6)), (0.5, 0.2, 0.0)
    found = weighted_sum(forests, weights)
    assert len(found.roots) == 18
    expected = sum(w * f.probabilities(x) for w, f in zip(weights, forests))
    np.testing.assert_allclose(found.probabilities(x), expected, atol=1e-6)
    np.testing.assert_array_equal(weighted_sum(forests[:1], [1.0]).probabilities(x), forests[0].probabilities(x))


def test_a_forest_moves_to_other_units_of_the_columns_and_no_further():
    forest, x, codes = grown()
    rng = np.random.default_rng(7)
    slope, offset, rows = rng.uniform(0.1, 9, 6), rng.normal(size=6) * 50, rng.normal(size=(300, 6)) * 3
    moved = trees_of(forest, 3).in_unit_of(x, x * slope + offset)
    expected = RandomForestClassifier(20, random_state=0).fit(x * slope + offset, codes)
    np.testing.assert_allclose(moved.probabilities(rows * slope + offset), forest.predict_proba(rows), atol=1e-6)
    np.testing.assert_allclose(moved.probabilities(rows), expected.predict_proba(rows), atol=1e-6)
    assert trees_of(forest, 3).in_unit_of(x, x @ rng.normal(size=(6, 6))) is None


@pytest.fixture(scope="module")
def target():
    """60 rows of two classes."""
    return Encoded(table("target", 60, 0))


def test_the_forest_of_the_target_is_weighed_by_what_is_out_of_bag(target):
    splits = [np.arange(30), np.r_[np.arange(1, 60, 4), np.arange(0, 20, 2)]]  # the second has 15 and 10 of a class
    task = task_of(target, splits, 7)
    (member,) = target_forest.members(task, None)
    for i, rows in enumerate(splits):
        rows, codes = np.sort(rows), target.table.codes[np.sort(rows)]
        weights = len(rows) / 2 / np.bincount(codes)[codes]
        model = RandomForestClassifier(50, min_samples_leaf=2, random_state=task.seeds[i], oob_score=True)
        model.fit(target.x.numpy()[rows], codes, sample_weight=weights)
        right = model.oob_decision_function_[np.arange(len(rows)), codes]
        assert member.evidence[i] == pytest.approx((weights * np.log(np.maximum(right, 0.01))).sum(), rel=1e-5)
        x = target.x.numpy()[:20]
        np.testing.assert_allclose(member.probabilities(x)[i], model.predict_proba(x), atol=1e-6)


def test_a_row_that_every_tree_has_seen_counts_with_even_odds():
    two = Encoded(table("two", 2, 0))
    task = task_of(two, [np.arange(2)], 0)
    model = RandomForestClassifier(1, min_samples_leaf=2, random_state=0).fit(two.x.numpy(), [0, 1])
    (member,) = target_forest.members(task, None)
    assert len(np.unique(model.estimators_samples_[0])) in (1, 2) and np.isfinite(member.evidence).all()
    left_out = target_forest._fit(task, 0)[1]
    np.testing.assert_allclose(left_out.sum(1), 1, atol=1e-6)


def test_the_forest_of_a_source_is_that_of_its_rows(target):
    task = task_of(target, [np.arange(8), np.arange(8, 20)], 3)
    source = Source(table("source", 90, 1))
    (given,) = shared(source, target, task)
    members = source_forest.members(task, given)
    assert [m.name for m in members] == [f"source alone, forest, in {u}" for u in given.scales]
    for member, x in zip(members, given.scales.values()):
        model = RandomForestClassifier(100, min_samples_leaf=3, random_state=3)
        model.fit(x, source.table.codes, sample_weight=given.weights[0])
        expected = model.predict_proba(target.x.numpy())
        assert member.forests[0] is member.forests[1]  # one fit for both splits
        for probabilities in member.probabilities(target.x.numpy()):
            np.testing.assert_allclose(probabilities, expected, atol=1e-6)
        np.testing.assert_allclose(member.evidence, evidence(task, expected[task.rows]), rtol=1e-5)


def test_a_class_that_a_source_lacks_has_no_probability_by_its_forest_and_does_not_vanish():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = pd.DataFrame(rng.normal(size=(60, 3)) + 2 * y[:, None], columns=list("abc"))
    three = Encoded(data.table("three", x, np.array(["u", "v", "w"], dtype=object)[y]))
    two = Source(data.table("two", x[y < 2].reset_index(drop=True), np.array(["u", "v", "w"], dtype=object)[y[y < 2]]))
    task = task_of(three, [np.arange(30)], 0)
    (given,) = shared(two, three, task)
    for member in source_forest.members(task, given):
        assert (member.probabilities(three.x.numpy())[..., 2] == 0).all() and np.isfinite(member.evidence).all()
    alone, (by_source,) = learn(three, [two], [np.arange(30)], np.arange(30, 60), 0)
    assert (by_source["source_forest"].probabilities[..., 2] == 0).all()
    assert (alone["target_forest"].probabilities[..., 2].mean()) > 0.2
