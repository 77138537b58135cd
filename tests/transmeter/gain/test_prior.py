"""What pair lets expect, how it joins with a measurement, and the fit of the shipped model."""

import importlib.util
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmeter.gain import prior
from transmeter.util.intervals import half_width

OWN = {"shared": 1, "mapped": 1, "paired": 0, "size": 2.5, "skill": 0.5, "zero_shot": 0.3, "closeness": 0.3}
PLAIN = prior.PairFeatures(classes=2, **OWN, separation=0.1, misfit=0, ridge_gain=1)
finite = st.floats(-1e6, 1e6)
pairs = st.builds(prior.PairFeatures, **{name: finite for name in prior.PairFeatures.__dataclass_fields__})
transfers = st.builds(prior.ShortTransfer, finite, finite)


def short(probability_gain):
    """What repeats tell of a source, likelihood and probability in step."""
    return prior.ShortTransfer(probability_gain, probability_gain / 100)


@pytest.fixture(scope="module")
def fit_prior(root):
    """The benchmark that fits prior.json."""
    spec = importlib.util.spec_from_file_location("fit_prior", root / "benchmarks" / "fit_prior.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_model_sees_every_feature():
    shipped = prior.load_prior()
    for forest, x in (
        (shipped.screen, prior.regressors(PLAIN, 10)),
        (shipped.transfer, prior.regressors(PLAIN, 10, short(2.0))),
    ):
        forest.trees.check(len(x))
        assert set(range(len(x))) == set(np.unique(forest.trees.feature[forest.trees.left >= 0]))
        assert (forest.scales > 0).all() and np.isfinite(forest.trees.value).all()
    assert len(prior.TERMS) == len(x) and shipped.inflation >= 1


def test_a_saved_model_is_what_it_was():
    shipped = prior.load_prior()
    again = prior.Prior.restore({name: array.copy() for name, array in shipped.arrays().items()})
    x = prior.regressors(PLAIN, 10, short(2.0))
    assert again.transfer.predict(x, 10) == shipped.transfer.predict(x, 10) and again.inflation == shipped.inflation


def test_a_better_source_is_expected_to_bring_more():
    poor = replace(PLAIN, shared=0, mapped=0, skill=0.0, zero_shot=0.0, closeness=0.0, separation=0.0, ridge_gain=0)
    good = replace(
        PLAIN,
        skill=0.9,
        zero_shot=0.8,
        closeness=0.9,
        separation=0.0,
        ridge_gain=8,
        source_likelihood=0.3,
        pooled_likelihood=0.3,
        odds=2.0,
        confidence=0.7,
        expected=0.1,
        change=0.2,
        agreement=0.6,
    )
    assert prior.predict_gain(good, 5).mean > prior.predict_gain(poor, 5).mean + 2
    assert prior.predict_gain(good, 5).p_negative < prior.predict_gain(poor, 5).p_negative


@given(st.floats(-30, 30), st.floats(3, 100), st.floats(-20, 20))
def test_a_sure_measurement_wins_and_an_unsure_one_leaves_the_prior(mean, freedom, probability_gain):
    shipped = prior.load_prior()
    expected, deviation = shipped.transfer.predict(prior.regressors(PLAIN, 10, short(probability_gain)), 10)
    sure = prior.combine(shipped, PLAIN, 10, short(probability_gain), (mean, 1e-6, freedom))
    assert sure.mean == pytest.approx(mean, abs=1e-6) and sure.high - sure.low < 1e-4
    exact = prior.combine(shipped, PLAIN, 10, short(probability_gain), (mean, 0.0, freedom))
    assert exact.mean == exact.low == exact.high == mean and exact.p_negative == (mean < 0)
    unsure = prior.combine(shipped, PLAIN, 10, short(probability_gain), (mean, 1e6, freedom))
    assert unsure.mean == pytest.approx(expected, abs=1e-3)
    assert unsure.high - unsure.mean == pytest.approx(half_width(deviation, prior.TAIL), rel=1e-2)


@given(st.floats(-30, 30), st.floats(0.1, 30), st.floats(-20, 20))
def test_the_joined_gain_lies_between_both_and_is_surer_than_either(mean, error, probability_gain):
    shipped = prior.load_prior()
    expected, deviation = shipped.transfer.predict(prior.regressors(PLAIN, 10, short(probability_gain)), 10)
    found = prior.combine(shipped, PLAIN, 10, short(probability_gain), (mean, error, np.inf))
    mean, error, _ = shipped.corrected((mean, error, np.inf))
    assert min(mean, expected) - 1e-9 <= found.mean <= max(mean, expected) + 1e-9
    half = (found.high - found.low) / 2
    kind = max(deviation, abs(mean - expected) - prior.SURPRISING * error)  # a pair that the prior does not know
    assert half <= half_width(1.0, prior.TAIL) * min(kind, error) + 1e-9


@given(pairs, st.integers(1, 10_000), transfers, st.floats(-50, 50), st.floats(0, 1e6))
def test_what_a_gain_is_made_of_adds_up_to_it(pair, shots, transfer, mean, error):
    measurement = (mean, error, 5.0)
    terms = prior.explain(prior.load_prior(), pair, shots, transfer, measurement)
    trust, measured = terms.pop("trust"), terms.pop("measured")
    gain = prior.combine(prior.load_prior(), pair, shots, transfer, measurement).mean
    assert 0 <= trust <= 1 and trust * measured + (1 - trust) * sum(terms.values()) == pytest.approx(gain, abs=1e-4)


@given(pairs, st.integers(1, 10_000), transfers, finite, st.floats(0, 1e6))
def test_any_features_give_a_finite_gain_with_a_chance(pair, shots, transfer, mean, error):
    for found in (
        prior.predict_gain(pair, shots),
        prior.combine(prior.load_prior(), pair, shots, transfer, (mean, error, 5.0)),
    ):
        assert np.isfinite([found.mean, found.low, found.high]).all()
        assert found.low <= found.mean <= found.high and 0 <= found.p_negative <= 1
    assert abs(prior.predict_gain(pair, shots).mean) < 30  # no further than the pairs that it was fitted on


def test_p_of_a_negative_gain_is_the_normal_tail():
    assert prior.Gain.from_error(0.0, 3.0).p_negative == 0.5
    assert prior.Gain.from_error(1.96, 1.0).p_negative == pytest.approx(0.025, abs=1e-4)
    assert prior.Gain.from_error(1.96, 1.0).low == pytest.approx(0, abs=1e-3)
    assert prior.Gain.from_error(1.0, 1.0, 3.0).p_negative > prior.Gain.from_error(1.0, 1.0).p_negative


def test_a_verdict_is_by_the_interval_and_then_by_the_probability():
    assert prior.Gain(2.0, 0.1, 4.0, 0.02).verdict == "helps" and prior.Gain(-2.0, -4.0, -0.1, 0.98).verdict == "hurts"
    assert prior.Gain(2.0, -1.0, 5.0, 0.19, informed=True).verdict == "likely helps"
    assert prior.Gain(2.0, -1.0, 5.0, 0.19).verdict == "no evidence"  # without a prior a fifth of useless ones reach it
    assert (
        prior.Gain(2.0, -1.0, 5.0, 0.2, informed=True).verdict
        == prior.Gain(-2.0, -5.0, 1.0, 0.9).verdict
        == "no evidence"
    )


def pairs_of(rule, noise, n=600):
    """Synthetic pairs in which `rule` (features) gives the gain."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        e = replace(PLAIN, shared=float(rng.integers(2)), skill=rng.random(), zero_shot=rng.random())
        gain = rule(e) + noise * rng.normal()
        measured = {"measured": gain + 2 * rng.normal(), "error": 2.0, "gain_error": 0.0}
        told = {"probability_gain": gain + rng.normal(), "likelihood_gain": rng.normal()}
        rows.append(
            vars(e) | {"group": f"g{i % 30}", "shots": int(rng.choice([2, 5, 10, 20])), "gain": gain} | measured | told
        )
    return pd.DataFrame(rows)


def test_the_fit_finds_a_relation_and_its_spread(fit_prior):
    def rule(e):
        return 30 * e.zero_shot - 5 * e.shared

    found = fit_prior.fit(pairs_of(rule, noise=1.0))
    truth, seen = [], []
    for share in (0.0, 1.0):
        for zero_shot in (0.1, 0.5, 0.9):
            e = replace(PLAIN, shared=share, zero_shot=zero_shot)
            truth.append(rule(e))
            seen.append(found.screen.predict(prior.regressors(e, 10), 10)[0])
    assert np.corrcoef(truth, seen)[0, 1] > 0.98 and 0.6 < np.polyfit(truth, seen, 1)[0] <= 1.05
    assert 1 <= found.inflation < 1.1
    middle = prior.regressors(replace(PLAIN, zero_shot=0.5), 10, prior.ShortTransfer(10.0, 0.0))
    assert 1 < found.transfer.predict(middle, 10)[1] < 6


def test_intervals_of_pairs_left_out_hold_their_gains(fit_prior):
    def rule(e):
        return 30 * e.zero_shot - 5 * e.shared

    found, fresh = fit_prior.fit(pairs_of(rule, noise=2.0)), pairs_of(rule, noise=2.0, n=900)[600:]
    held = []
    for _, row in fresh.iterrows():
        mean, deviation = found.screen.predict(prior.regressors(fit_prior.features_of(row), row["shots"]), row["shots"])
        held.append(abs(row["gain"] - mean) <= half_width(deviation, prior.TAIL))
    assert 0.9 <= np.mean(held) <= 0.99


def test_gains_of_few_rows_are_known_to_be_measured_too_low(fit_prior):
    pairs = pairs_of(lambda e: 3 * e.skill, noise=1.0, n=300)
    low = pairs.assign(error=8.0, measured=pairs["measured"] - 3.0)  # by a half of what is beyond ROUGH
    found = fit_prior.fit(low)
    assert found.shortfall == pytest.approx(0.5, abs=0.05)
    assert found.corrected((-3.0, 8.0, 5.0))[0] == pytest.approx(0.0, abs=0.3)
    assert found.corrected((-3.0, 1.0, 5.0))[0] == -3.0  # many rows choose the best learner rightly
    assert fit_prior.fit(pairs).shortfall == 0


def test_errors_that_are_understated_are_inflated(fit_prior):
    pairs = pairs_of(lambda e: 0.0, noise=0.0, n=120)
    assert fit_prior.fit(pairs.assign(error=0.8)).inflation == pytest.approx(2 / 0.8, rel=0.2)
    assert fit_prior.fit(pairs.assign(error=40.0)).inflation == 1
