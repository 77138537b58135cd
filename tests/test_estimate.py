"""Splits, and the statistics from paired differences to a gain."""

import numpy as np
import pandas as pd
import pytest

from transmeter import data, estimate


def table(counts, unlabelled=0):
    """A table with the given rows a class."""
    labels = np.concatenate(
        [np.full(n, chr(97 + c), dtype=object) for c, n in enumerate(counts)] + [[None] * unlabelled]
    )
    return data.table("t", pd.DataFrame({"x": np.arange(len(labels), dtype=float)}), labels)


def test_folds_measure_every_labelled_row_once_and_never_train_on_it():
    splits = estimate.make_splits(table([20, 13], unlabelled=7), None, 3, seed=0)
    for repeat in range(3):
        tests = np.concatenate([s.test for s in splits if s.repeat == repeat])
        assert sorted(tests) == list(range(33))
    assert all(not set(s.train) & set(s.test) for s in splits)


def test_shots_train_on_that_many_rows_a_class():
    t = table([20, 13], unlabelled=7)
    for split in estimate.make_splits(t, 5, 4, seed=0):
        assert list(np.bincount(t.codes[split.train])) == [5, 5]
        assert len(split.test) == 23 and not set(split.train) & set(split.test)


@pytest.mark.parametrize("counts, shots, repeats", [([20, 1], None, 2), ([20, 5], 5, 2), ([20, 20], 5, 1)])
def test_what_cannot_be_split_is_refused(counts, shots, repeats):
    with pytest.raises(ValueError, match="at least"):
        estimate.make_splits(table(counts), shots, repeats, seed=0)


def outcome(difference, codes, shared=1.0, guess=None, guess_unlabelled=()):
    """An outcome in balanced accuracy."""
    codes = np.asarray(codes)
    guess = np.zeros(len(codes)) if guess is None else guess
    weights = estimate.row_weights(codes, "balanced_accuracy")
    return estimate.Outcome(np.asarray(difference, float), weights, codes, guess, np.array(guess_unlabelled), shared)


def test_row_weights_give_balanced_accuracy():
    codes = np.array([0] * 30 + [1] * 10)
    correct = np.random.default_rng(0).random(40) < 0.7
    by_class = np.mean([correct[codes == c].mean() for c in (0, 1)])
    assert (correct * estimate.row_weights(codes, "balanced_accuracy")).mean() == pytest.approx(by_class)


def test_interval_covers_a_null_and_finds_a_real_gain():
    rng = np.random.default_rng(0)
    codes, covered, found = np.arange(120) % 2, 0, 0
    for _ in range(300):
        lean = 0.4 * rng.normal(size=120)  # rows differ in which side they favour
        noise = rng.normal(size=(8, 120))
        null = np.sign(np.where(np.abs(lean + noise) > 1, lean + noise, 0))
        mean, error, _ = estimate.measured(outcome(null, codes))
        covered += abs(mean) < 1.96 * error
        mean, error, _ = estimate.measured(outcome(np.where(noise > 0.5, 1, null), codes))
        found += mean > 1.96 * error
    assert 0.93 <= covered / 300 <= 1 and found / 300 > 0.95


def test_few_rows_without_any_difference_prove_little():
    gain = estimate.estimate(outcome(np.zeros((10, 20)), np.arange(20) % 2))
    assert gain.mean == 0 and gain.high > 4 and gain.low < -4 and gain.p_negative == pytest.approx(0.5)


def test_more_rows_narrow_and_fewer_shared_columns_pull_harder():
    rng = np.random.default_rng(1)
    wide = estimate.estimate(outcome(rng.integers(-1, 2, (10, 20)), np.arange(20) % 2))
    narrow = estimate.estimate(outcome(rng.integers(-1, 2, (10, 400)), np.arange(400) % 2))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2
    lucky = np.where(rng.random((10, 20)) < 0.5, 1, 0)
    apart = estimate.estimate(outcome(lucky, np.arange(20) % 2, shared=0.0))
    shared = estimate.estimate(outcome(lucky, np.arange(20) % 2, shared=1.0))
    assert 0 < apart.mean < shared.mean


def test_good_guesses_on_unlabelled_rows_narrow_the_interval_and_useless_ones_do_not_widen_it():
    rng = np.random.default_rng(2)
    truth = rng.choice([-1, 0, 1], 440, p=[0.1, 0.6, 0.3])
    cells = np.repeat(truth[None, :40], 6, 0)
    codes = np.arange(40) % 2
    plain = estimate.measured(outcome(cells, codes))[1]
    good = estimate.measured(outcome(cells, codes, guess=0.9 * truth[:40], guess_unlabelled=0.9 * truth[40:]))
    useless = estimate.measured(outcome(cells, codes, guess=rng.normal(size=40), guess_unlabelled=rng.normal(size=400)))
    assert good[1] < 0.8 * plain and useless[1] < 1.05 * plain
    assert abs(good[0] - 100 * truth.mean()) < 2 * good[1]
