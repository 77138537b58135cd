"""Agreement of a ranking with the ground truth, against figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmeter.gain import agreement
from transmeter.gain.prior import Gain

points = st.integers(-300, 300).map(lambda v: v / 10)


def sure(mean, half=1.0, p=0.5):
    """A gain with an interval of mean +- half."""
    return Gain(mean, mean - half, mean + half, p)


def test_a_perfect_order_and_a_reversed_one():
    gains = [5.0, 3.0, 1.0, 0.0, -2.0]
    best = agreement.rank_agreement([50, 30, 10, 0, -20], gains)
    assert best == agreement.RankAgreement(*[pytest.approx(1.0)] * 4, 0.0, 0.0)
    worst = agreement.rank_agreement([-g for g in gains], gains)
    assert (worst.weighted_tau, worst.tau_b, worst.spearman, worst.pearson) == pytest.approx((-1,) * 4)
    assert worst.regret_1 == 7 and worst.regret_3 == 4  # picks -2, or the best of -2, 0, 1


def test_a_mistake_among_the_best_costs_more_than_one_among_the_worst():
    gains = [5.0, 4.0, 3.0, 2.0, 1.0]
    top, bottom = agreement.rank_agreement([4, 5, 3, 2, 1], gains), agreement.rank_agreement([5, 4, 3, 1, 2], gains)
    assert top.tau_b == pytest.approx(bottom.tau_b) == pytest.approx(0.8)
    assert top.weighted_tau < bottom.weighted_tau and top.regret_1 == 1 and bottom.regret_1 == 0


def test_ties_share_the_regret_of_their_mean():
    found = agreement.rank_agreement([1.0, 1.0, 0.0], [4.0, 0.0, 10.0])
    assert found.regret_1 == pytest.approx((6 + 10) / 2, abs=1.2) and found.regret_3 == 0
    assert agreement.rank_agreement([1, 1, 1, 1], [0, 0, 0, 8]).regret_3 == pytest.approx(8 / 4, abs=1.6)


@pytest.mark.parametrize("scores, gains", [([3.0], [2.0]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 1, 1])])
def test_without_variation_there_is_no_correlation_but_a_regret(scores, gains):
    found = agreement.rank_agreement(scores, gains)
    assert found.weighted_tau is found.tau_b is found.spearman is found.pearson is None
    assert 0 <= found.regret_3 <= found.regret_1 <= np.ptp(gains)


@given(st.lists(st.tuples(points, points), min_size=1, max_size=9))
def test_regret_is_never_negative_and_three_picks_are_no_worse_than_one(pairs):
    found = agreement.rank_agreement(*zip(*pairs))
    assert 0 <= found.regret_3 <= found.regret_1 <= np.ptp([g for _, g in pairs]) + 1e-9
    for figure in (found.weighted_tau, found.tau_b, found.spearman, found.pearson):
        assert figure is None or -1 - 1e-9 <= figure <= 1 + 1e-9


def test_coverage_counts_the_truth_inside_its_own_error_included():
    gains = [sure(0.0), sure(0.0), sure(0.0), sure(0.0)]
    assert agreement.interval_coverage(gains, [0.5, -0.9, 1.5, -3.0], [0.0] * 4).coverage == 0.5
    assert agreement.interval_coverage(gains, [0.5, -0.9, 1.5, -3.0], [0.0, 0.0, 1.0, 0.0]).coverage == 0.75
    assert agreement.interval_coverage(gains, [0.5, -0.9, 1.5, -3.0], [1.5] * 4).coverage == 1.0


def test_auroc_looks_at_signs_beyond_doubt_and_calibration_at_all_pairs():
    chances = [0.9, 0.7, 0.3, 0.1, 0.5]
    gains = [sure(0.0, p=p) for p in chances]
    found = agreement.interval_coverage(gains, [-5, -5, 5, 5, 0.1], [1.0] * 5)  # the last is in doubt
    assert found.auroc == 1 and found.pairs == 5
    assert found.calibration_error == pytest.approx((0.1 + 0.3 + 0.3 + 0.1 + 0.5) / 5)
    assert agreement.interval_coverage(gains, [-5, 5, -5, 5, 0.1], [1.0] * 5).auroc == 0.75
    one_sign = agreement.interval_coverage(gains, [5, 5, 5, 5, 0.1], [1.0] * 5)
    assert one_sign.auroc is None and one_sign.calibration_error == pytest.approx(sum(chances) / 5)
    assert agreement.interval_coverage(gains, [0.0] * 5, [1.0] * 5).auroc is None


def test_chances_that_come_true_as_often_as_they_say_are_calibrated():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 5, 4000)
    seen = true + rng.normal(0, 5, 4000)
    posteriors = [Gain.from_error(m / 2, 12.5**0.5) for m in seen]  # the posterior
    found = agreement.interval_coverage(posteriors, true, np.zeros(4000))
    assert found.coverage == pytest.approx(0.95, abs=0.015) and found.calibration_error < 0.03
    bold = [Gain.from_error(m, 1.0) for m in seen]
    found = agreement.interval_coverage(bold, true, np.zeros(4000))
    assert found.coverage < 0.5 and found.calibration_error > 0.15


def test_helps_is_false_without_gain_and_found_from_three_points():
    gains = [sure(2.0), sure(0.5), sure(4.0), sure(0.0), sure(9.0)]  # the verdicts: helps, no, helps, no, helps
    found = agreement.interval_coverage(
        gains, [0.0, -1.0, 3.0, 4.0, 1.0], [0.1] * 5
    )  # the last is neither null nor large
    assert found.false_helps == 0.5 and found.found_helps == 0.5
    none = agreement.interval_coverage(gains, [1.0] * 5, [0.1] * 5)
    assert none.false_helps is none.found_helps is None


@given(st.lists(st.tuples(points, st.floats(0.01, 20), points, st.floats(0, 10)), min_size=1, max_size=12))
def test_interval_coverage_stays_in_its_ranges(pairs):
    mean, error, true, doubt = zip(*pairs)
    found = agreement.interval_coverage([Gain.from_error(m, e) for m, e in zip(mean, error)], true, doubt)
    assert 0 <= found.coverage <= 1 and found.pairs == len(pairs)
    for figure in (found.auroc, found.calibration_error, found.false_helps, found.found_helps):
        assert figure is None or 0 <= figure <= 1
