"""What pair lets expect, how it joins with a measurement, and the fit of the shipped model."""

import importlib.util
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmeter.gain import prior

PLAIN = prior.PairFeatures(1, 1, 0, 2.5, 0.5, 0.3, 0.3, 0.1, 0, 1)
finite = st.floats(-1e6, 1e6)
pairs = st.builds(prior.PairFeatures, *[finite] * 10)


@pytest.fixture(scope="module")
def fit_prior(root):
    """The benchmark that fits prior.json."""
    spec = importlib.util.spec_from_file_location("fit_prior", root / "benchmarks" / "fit_prior.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_model_has_a_weight_for_every_feature():
    shipped = prior.load_prior()
    for linear, x in (
        (shipped.screen, prior.regressors(PLAIN, 10)),
        (shipped.transfer, prior.regressors(PLAIN, 10, 2.0)),
    ):
        assert len(x) == len(linear.weights) == len(linear.center) == len(linear.scale)
        assert min(linear.scale) > 0 and min(linear.spread) >= 0 and max(linear.spread) > 0
        assert np.isfinite([*linear.weights, *linear.center, linear.intercept]).all()
    assert shipped.inflation >= 1


def test_a_saved_model_is_what_it_was(tmp_path, root):
    text = (root / "transmeter" / "gain" / "prior.json").read_text(encoding="utf-8")
    assert prior.as_json(prior.load_prior()) == text


def test_a_better_source_is_expected_to_bring_more():
    poor = prior.PairFeatures(0, 0, 0, 2.5, 0.0, 0.0, 0.0, 0.0, 0, 0)
    good = prior.PairFeatures(1, 1, 0, 2.5, 0.9, 0.8, 0.9, 0.0, 0, 8)
    assert prior.predict_gain(good, 5).mean > prior.predict_gain(poor, 5).mean + 2
    assert prior.predict_gain(good, 5).p_negative < prior.predict_gain(poor, 5).p_negative


@given(st.floats(-30, 30), st.floats(3, 100), st.floats(-20, 20))
def test_a_sure_measurement_wins_and_an_unsure_one_leaves_the_prior(mean, freedom, probability_gain):
    shipped = prior.load_prior()
    expected, deviation = shipped.transfer.predict(prior.regressors(PLAIN, 10, probability_gain), 10)
    sure = prior.combine(shipped, PLAIN, 10, probability_gain, (mean, 1e-6, freedom))
    assert sure.mean == pytest.approx(mean, abs=1e-6) and sure.high - sure.low < 1e-4
    exact = prior.combine(shipped, PLAIN, 10, probability_gain, (mean, 0.0, freedom))
    assert exact.mean == exact.low == exact.high == mean and exact.p_negative == (mean < 0)
    unsure = prior.combine(shipped, PLAIN, 10, probability_gain, (mean, 1e6, freedom))
    assert unsure.mean == pytest.approx(expected, abs=1e-3)
    assert unsure.high - unsure.mean == pytest.approx(1.96 * deviation, rel=1e-2)


@given(st.floats(-30, 30), st.floats(0.1, 30), st.floats(-20, 20))
def test_the_joined_gain_lies_between_both_and_is_surer_than_either(mean, error, probability_gain):
    shipped = prior.load_prior()
    expected, deviation = shipped.transfer.predict(prior.regressors(PLAIN, 10, probability_gain), 10)
    found = prior.combine(shipped, PLAIN, 10, probability_gain, (mean, error, np.inf))
    assert min(mean, expected) - 1e-9 <= found.mean <= max(mean, expected) + 1e-9
    half = (found.high - found.low) / 2
    kind = max(deviation, abs(mean - expected) - prior.SURPRISING * error)  # a pair that the prior does not know
    assert half <= 1.9601 * min(kind, error * shipped.inflation)


@given(pairs, st.integers(1, 10_000), finite, st.floats(-50, 50), st.floats(0, 1e6))
def test_what_a_gain_is_made_of_adds_up_to_it(pair, shots, probability_gain, mean, error):
    measurement = (mean, error, 5.0)
    terms = prior.explain(prior.load_prior(), pair, shots, probability_gain, measurement)
    trust, measured = terms.pop("trust"), terms.pop("measured")
    gain = prior.combine(prior.load_prior(), pair, shots, probability_gain, measurement).mean
    assert 0 <= trust <= 1 and trust * measured + (1 - trust) * sum(terms.values()) == pytest.approx(gain, abs=1e-6)


@given(pairs, st.integers(1, 10_000), finite, finite, st.floats(0, 1e6))
def test_any_features_give_a_finite_gain_with_a_chance(pair, shots, probability_gain, mean, error):
    for found in (
        prior.predict_gain(pair, shots),
        prior.combine(prior.load_prior(), pair, shots, probability_gain, (mean, error, 5.0)),
    ):
        assert np.isfinite([found.mean, found.low, found.high]).all()
        assert found.low <= found.mean <= found.high and 0 <= found.p_negative <= 1
    reach = 4 * np.abs(prior.load_prior().screen.weights).sum()  # pair counts no further than four deviations
    assert abs(prior.predict_gain(pair, shots).mean - prior.load_prior().screen.intercept) <= reach + 1e-9


def test_p_of_a_negative_gain_is_the_normal_tail():
    assert prior.Gain.from_error(0.0, 3.0).p_negative == 0.5
    assert prior.Gain.from_error(1.96, 1.0).p_negative == pytest.approx(0.025, abs=1e-4)
    assert prior.Gain.from_error(1.96, 1.0).low == pytest.approx(0, abs=1e-3)
    assert prior.Gain.from_error(1.0, 1.0, 3.0).p_negative > prior.Gain.from_error(1.0, 1.0).p_negative


def pairs_of(rule, noise, n=600):
    """Synthetic pairs in which `rule` (features) gives the gain."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        e = replace(PLAIN, shared=float(rng.integers(2)), skill=rng.random(), zero_shot=rng.random())
        gain = rule(e) + noise * rng.normal()
        probability_gain = gain + rng.normal()
        rows.append(
            vars(e)
            | {"family": f"f{i % 6}", "mode": "few", "shots": int(rng.choice([2, 5, 10, 20])), "gain": gain}
            | {"soft": probability_gain, "measured": gain + 2 * rng.normal(), "error": 2.0, "gain_error": 0.0}
        )
    return pd.DataFrame(rows)


def test_the_fit_finds_a_linear_relation_and_its_spread(fit_prior):
    def rule(e):
        return 30 * e.zero_shot - 5 * e.shared

    found = fit_prior.fit(pairs_of(rule, noise=1.0))
    truth, seen = [], []
    for share in (0.0, 1.0):
        for zero_shot in (0.1, 0.5, 0.9):
            e = replace(PLAIN, shared=share, zero_shot=zero_shot)
            truth.append(rule(e))
            seen.append(found.screen.predict(prior.regressors(e, 10), 10)[0])
    assert np.corrcoef(truth, seen)[0, 1] > 0.98 and 0.3 < np.polyfit(truth, seen, 1)[0] <= 1.05  # strong ridge
    assert 1 <= found.inflation < 1.1
    e = replace(PLAIN, zero_shot=0.5)
    screen, transfer = (
        linear.predict(prior.regressors(e, 10, *probability_gain), 10)[1]
        for linear, probability_gain in ((found.screen, ()), (found.transfer, (rule(e),)))
    )
    assert 0.9 < transfer < screen < 8


def test_errors_that_are_understated_are_inflated(fit_prior):
    pairs = pairs_of(lambda e: 0.0, noise=0.0, n=120)
    assert fit_prior.fit(pairs.assign(error=0.8)).inflation == pytest.approx(2 / 0.8, rel=0.2)
    assert fit_prior.fit(pairs.assign(error=40.0)).inflation == 1
