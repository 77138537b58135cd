"""Metrics against scikit-learn, scipy and SQuAD's own cases; intervals against their meaning."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from compress.evaluation import metrics

RNG = np.random.default_rng(0)


def estimate(task, metric, truths, predictions):
    """Value, interval and number of items."""
    return metrics.measure(metric, metrics.outcome(task, metric, truths, predictions))


def test_f1_of_classes_is_that_of_scikit_learn():
    truth, prediction = RNG.integers(0, 2, 200), RNG.integers(0, 2, 200)
    found = estimate("classes", "f1", truth, prediction)
    assert found["value"] == pytest.approx(f1_score(truth, prediction)) and found["n"] == 200
    assert found["ci_low"] < found["value"] < found["ci_high"] and "1000 repeats, seed 0" in found["interval"]
    many = RNG.integers(0, 5, (2, 200))
    assert estimate("classes", "macro_f1", *many)["value"] == pytest.approx(f1_score(*many, average="macro"))


def test_f1_of_words_leaves_out_what_is_outside():
    truths = [np.array([1, -1, -1, 2]), np.array([-1, 2])]
    predictions = [np.array([1, -1, 2, 1]), np.array([-1, 2])]
    # right: 2; predicted: 4; there: 3
    assert estimate("labels", "f1", truths, predictions)["value"] == pytest.approx(2 * 2 / (4 + 3))
    assert estimate("labels", "macro_f1", truths, predictions)["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert estimate("labels", "accuracy", truths, predictions)["value"] == pytest.approx(4 / 6)
    outside = [np.array([-1, -1])] * 3
    assert (
        estimate("labels", "f1", outside, outside)["value"]
        == 0
        == metrics.STATISTICS["macro_f1"](outside[0], outside[0])
    )


def test_correlations_are_those_of_scipy_and_zero_where_one_side_is_constant():
    x = RNG.normal(size=300)
    y = x + RNG.normal(size=300)
    found = estimate("values", "pearson", x, y)
    exact = stats.pearsonr(x, y)
    assert found["value"] == pytest.approx(exact.statistic)
    interval = exact.confidence_interval()
    assert found["ci_low"] == pytest.approx(interval.low, abs=0.03)
    assert found["ci_high"] == pytest.approx(interval.high, abs=0.03)
    assert estimate("values", "spearman", x, y)["value"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert estimate("values", "spearman", x, np.ones(300))["value"] == 0


def test_a_paired_change_is_far_surer_than_two_intervals():
    truth = RNG.normal(size=200)
    one = truth + 0.5 * RNG.normal(size=200)
    other = one + 0.2 * RNG.normal(size=200)
    a, b = (metrics.outcome("values", "spearman", truth, p) for p in (one, other))
    change = metrics.change("spearman", a, b)
    assert change["value"] == pytest.approx(
        metrics.measure("spearman", a)["value"] - metrics.measure("spearman", b)["value"]
    )
    alone = metrics.measure("spearman", a)
    assert change["ci_high"] - change["ci_low"] < 0.7 * (alone["ci_high"] - alone["ci_low"])
    assert metrics.change("spearman", a, a)["ci_low"] == 0 == metrics.change("spearman", a, a)["ci_high"]


@pytest.mark.parametrize(
    "answer, truths, exact, f1",
    [
        ("The  Eiffel Tower!", ["eiffel tower"], True, 1.0),
        ("in Paris", ["Paris", "the city of Paris"], False, 2 / 3),
        ("London", ["Paris"], False, 0.0),
        ("", ["Paris"], False, 0.0),
        ("", [], True, 1.0),
        ("Paris", [], False, 0.0),
        ("the", [], True, 1.0),
        ("a b b c", ["b b"], False, 2 * 2 / (3 + 2)),
    ],
)
def test_answers_are_compared_as_squad_does(answer, truths, exact, f1):
    assert metrics.exact_match(answer, truths) == exact
    assert metrics.answer_f1(answer, truths) == pytest.approx(f1)


def test_answers_have_intervals_over_questions():
    truths, answers = [["paris"], ["oslo fjord"]] * 20, ["paris", "oslo"] * 20
    found = estimate("answers", "exact_match", truths, answers)
    assert found["value"] == 0.5 and found["interval"] == "Wilson" and found["n"] == 40
    f1 = metrics.outcome("answers", "f1", truths, answers)
    assert metrics.measure("f1", f1)["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.change("f1", f1, f1 * 0)["value"] == pytest.approx((1 + 2 / 3) / 2)
