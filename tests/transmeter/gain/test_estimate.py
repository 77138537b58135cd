"""The statistics from paired differences to a gain."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from transmeter.gain import estimate, metrics, prior
from transmeter.tables import data
from transmeter.tables.splits import Split, make_splits


def table(counts, unlabelled=0):
    """A table with the given rows a class."""
    labels = np.concatenate(
        [np.full(n, chr(97 + c), dtype=object) for c, n in enumerate(counts)] + [[None] * unlabelled]
    )
    return data.table("t", pd.DataFrame({"x": np.arange(len(labels), dtype=float)}), labels)


OWN = {"shared": 1, "mapped": 1, "paired": 0, "size": 2.5, "skill": 0.5, "zero_shot": 0.3, "closeness": 0.3}
PAIR = prior.PairFeatures(classes=2, **OWN, separation=0.1, misfit=0, ridge_gain=1)


def outcome(difference, codes, population=None, probability_gain=0.0):
    """An outcome in balanced accuracy."""
    codes = np.asarray(codes)
    return estimate.Outcome(
        difference=np.asarray(difference, float),
        codes=codes,
        metric="balanced_accuracy",
        population=population,
        baseline="scratch network",
        transfer=prior.ShortTransfer(probability_gain, probability_gain / 100),
        features=PAIR,
        shots=10,
        correct=np.asarray(difference, float),
    )


def test_row_weights_give_balanced_accuracy():
    codes = np.array([0] * 30 + [1] * 10)
    correct = np.random.default_rng(0).random(40) < 0.7
    by_class = np.mean([correct[codes == c].mean() for c in (0, 1)])
    assert (correct * metrics.row_weights(codes, "balanced_accuracy")).mean() == pytest.approx(by_class)


def test_interval_covers_a_null_and_finds_a_real_gain():
    rng = np.random.default_rng(0)
    codes, covered, found = np.arange(120) % 2, 0, 0
    for _ in range(300):
        lean = 0.4 * rng.normal(size=120)  # rows differ in which side they favour
        noise = rng.normal(size=(8, 120))
        null = np.sign(np.where(np.abs(lean + noise) > 1, lean + noise, 0))
        mean, error, _ = estimate.measure_gain(outcome(null, codes))
        covered += abs(mean) < 1.96 * error
        mean, error, _ = estimate.measure_gain(outcome(np.where(noise > 0.5, 1, null), codes))
        found += mean > 1.96 * error
    assert 0.93 <= covered / 300 <= 1 and found / 300 > 0.95


def test_few_rows_without_any_difference_prove_little():
    mean, error, _ = estimate.measure_gain(outcome(np.zeros((10, 20)), np.arange(20) % 2))
    assert mean == 0 and error > 2
    assert estimate.measure_gain(outcome(np.zeros((10, 2000)), np.arange(2000) % 2))[1] < error / 5


def test_more_rows_narrow_and_leave_less_to_the_prior():
    rng = np.random.default_rng(1)
    few = outcome(np.where(rng.random((10, 20)) < 0.3, 1, 0), np.arange(20) % 2)
    many = outcome(np.where(rng.random((10, 400)) < 0.3, 1, 0), np.arange(400) % 2)
    expected, _ = prior.load_prior().transfer.predict(prior.regressors(PAIR, 10, prior.ShortTransfer(0.0, 0.0)), 10)
    gains, pulls = [], []
    for found in (few, many):
        mean, gain = estimate.measure_gain(found)[0], estimate.estimate_gain(found)
        assert expected < gain.mean < mean
        gains.append(gain)
        pulls.append((mean - gain.mean) / (mean - expected))
    assert gains[1].high - gains[1].low < (gains[0].high - gains[0].low) / 2 and pulls[1] < pulls[0] / 2


def test_rows_that_are_most_of_the_population_say_nearly_all():
    cells = np.repeat(np.random.default_rng(3).choice([-1, 0, 1], (1, 100)), 5, 0)
    codes = np.arange(100) % 2
    endless, large, whole = (estimate.measure_gain(outcome(cells, codes, population=n))[1] for n in (None, 200, 100))
    assert large == pytest.approx(endless * 0.5**0.5) and whole == 0


def test_a_row_that_no_repeat_measured_does_not_count():
    cells = np.random.default_rng(4).choice([-1.0, 0, 1], (6, 40))
    cells[:, ::5] = np.nan
    seen = np.arange(40) % 5 > 0
    part = estimate.measure_gain(outcome(cells, np.arange(40) % 2))
    assert part == pytest.approx(estimate.measure_gain(outcome(cells[:, seen], np.arange(40)[seen] % 2)))


def test_classes_move_by_the_mean_of_their_own_measured_rows():
    cells = np.array([[1.0, 0, np.nan, -1], [0, np.nan, np.nan, -1]])
    assert estimate.class_gains(outcome(cells, np.array([0, 0, 1, 2]))) == {0: 25.0, 2: -100.0}


def test_a_lead_is_paired_over_the_repeats_that_both_ran():
    rng = np.random.default_rng(5)
    common = rng.choice([-1.0, 0, 1], (12, 200))
    better = np.where(rng.random((12, 200)) < 0.1, 1, common)
    codes = np.arange(200) % 2
    leader, other = outcome(better, codes), outcome(common[:6], codes)
    mean, error, _ = estimate.measure_gain(leader, other)
    assert mean == pytest.approx(100 * (better[:6] - common[:6]).mean())
    assert error < estimate.measure_gain(leader)[1] and estimate.is_better(leader, other)
    assert not estimate.is_better(other, leader) and not estimate.is_better(leader, leader)


def test_accuracies_are_those_of_scikit_learn():
    rng = np.random.default_rng(6)
    codes = rng.choice(3, 30, p=[0.6, 0.3, 0.1])
    splits = [Split(np.arange(0), np.sort(rng.permutation(30)[:20]), r) for r in range(2)]
    chances = torch.rand(4, 2, 30, 3, generator=torch.Generator().manual_seed(0))
    for metric, reference in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        found = metrics.accuracies(chances, codes, splits, metric)
        for a in range(4):
            for i, split in enumerate(splits):
                guess = chances[a, i].argmax(1).numpy()[split.test]
                assert found[a, i] == pytest.approx(100 * reference(codes[split.test], guess), abs=1e-4)


@pytest.mark.parametrize("shots, hidden, expected", [(None, False, None), (15, False, 61), (None, True, 61)])
def test_a_gain_is_about_this_table_when_planning_or_beside_unlabelled_rows(shots, hidden, expected):
    target = table([30, 31])
    if hidden:
        target = data.table("t", target.features, np.where(np.arange(61) % 3 == 0, None, target.labels))
    splits = make_splits(target, shots, 2, 0)
    assert estimate.HeldOutRows(target, splits, "accuracy", shots).population == expected


def test_a_rare_class_of_a_long_table_is_still_measured():
    target = table([9000, 6])
    splits = make_splits(target, 5, 2, 0)
    held_out = estimate.HeldOutRows(target, splits, "balanced_accuracy", 5)
    assert len(held_out.rows) < 2200 and all(1 in target.codes[s.test] for s in splits)
    assert all((held_out.codes[s.test] == target.codes[full.test]).all() for s, full in zip(held_out.splits, splits))
