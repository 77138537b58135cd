"""Metrics of classes: against scikit-learn, their standard errors against theory and repetition, and in every job."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

import transmeter
from transmeter.batch.spec import Lines, check
from transmeter.gain import estimate, ground_truth, metrics
from transmeter.gain.metric_names import ACCURACIES, METRICS
from transmeter.gain.race import UNKNOWN, Race
from transmeter.network.source import Source
from transmeter.report import sections, tables
from transmeter.scorers import short_finetune
from transmeter.tables import data
from transmeter.tables.splits import Split
from transmeter.util.intervals import half_width

SLOPED = sorted(metrics.SLOPED)


def chances(codes, classes, seed, steps=None):
    """(n, classes) probabilities that lean to the right class; `steps` makes ties."""
    rng = np.random.default_rng(seed)
    logits = 1.2 * np.eye(classes)[codes] + rng.normal(size=(len(codes), classes))
    logits = np.round(logits * steps) / steps if steps else logits
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)


def by_scikit_learn(metric, codes, p, positives):
    """The metric of some rows."""
    if metric == "macro_f1":
        return f1_score(codes, p.argmax(1), average="macro", zero_division=0)
    if metric == "log_loss":
        return -log_loss(codes, p.astype(float) / p.sum(1, keepdims=True), labels=range(p.shape[1]))
    function = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}[metric]
    return np.mean([function(codes == k, p[:, k]) for k in positives if (codes == k).any()])


@pytest.mark.parametrize("metric", SLOPED)
@pytest.mark.parametrize("classes, steps", [(2, None), (2, 1), (4, None), (4, 1)])
def test_metrics_are_those_of_scikit_learn_and_means_of_rows(metric, classes, steps):
    codes = np.random.default_rng(0).choice(classes, 80, p=[0.5, 0.5] if classes == 2 else [0.5, 0.3, 0.15, 0.05])
    rows = np.arange(80)
    splits = [Split(rows[::2], rows[1::2], 0), Split(rows[:20], rows[codes != classes - 1 + (classes == 2)], 1)]
    p = np.stack([chances(codes, classes, seed, steps) for seed in range(2)])
    positives = metrics.positive_classes(codes, classes)
    found = metrics.reached_by(torch.from_numpy(p[None]), codes, splits, metric, positives)[0]
    values = metrics.row_values(p, codes, splits, metric, positives)
    for i, split in enumerate(splits):
        expected = by_scikit_learn(metric, codes[split.test], p[i, split.test], positives)
        assert found[i] == pytest.approx(100 * expected, abs=1e-4)
        for k in np.unique(codes[split.test]):
            assert values[i, split.test][codes[split.test] == k].mean() == pytest.approx(expected, abs=1e-6)


def test_multiclass_roc_auc_is_scikit_learns_one_vs_rest():
    codes, p = np.arange(90) % 3, chances(np.arange(90) % 3, 3, 0).astype(float)
    p /= p.sum(1, keepdims=True)
    value, _ = metrics.roc_auc(p, codes, [0, 1, 2])
    assert value == pytest.approx(roc_auc_score(codes, p, multi_class="ovr", average="macro"))


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "macro_f1", "log_loss"])
@pytest.mark.parametrize("classes", [2, 3])
def test_row_values_are_the_jackknifes(metric, classes):
    """Leaving a row of a class out moves the metric by the row's deviation over the class's other rows."""
    codes = np.arange(600) % classes
    p = chances(codes, classes, 1)
    positives = metrics.positive_classes(codes, classes)
    whole = by_scikit_learn(metric, codes, p, positives)
    values = metrics.row_values(p[None], codes, [Split(codes, np.arange(600), 0)], metric, positives)[0]
    left = range(0, 600, 7)
    count = 600 / classes
    pseudo = []
    for i in left:
        rest = np.arange(600) != i
        # the shares of classes stay as they were, as in the values: other rows of the class count by so much more
        weights = np.where(codes[rest] == codes[i], count / (count - 1), 1.0)
        pseudo.append(count * whole - (count - 1) * _weighted(metric, codes[rest], p[rest], positives, weights))
    found, expected = values[list(left)] - whole, np.array(pseudo) - whole
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert found == pytest.approx(expected, abs=0.1 * np.abs(expected).max())


def _weighted(metric, codes, p, positives, weights):
    if metric == "macro_f1":
        return f1_score(codes, p.argmax(1), average="macro", sample_weight=weights)
    if metric == "log_loss":
        return -log_loss(codes, p.astype(float) / p.sum(1, keepdims=True), sample_weight=weights)
    function = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}[metric]
    return np.mean([function(codes == k, p[:, k], sample_weight=weights) for k in positives])


def outcome(difference, codes, metric):
    """Of endlessly many rows."""
    return estimate.Outcome(
        difference=difference,
        codes=codes,
        metric=metric,
        population=None,
        baseline="",
        transfer=None,
        features=None,
        shots=10,
    )


def test_standard_error_of_roc_auc_is_delongs():
    codes = (np.arange(400) < 100).astype(int)
    p = [chances(codes, 2, seed) for seed in range(2)]
    values = [metrics.row_values(x[None], codes, [Split(codes, np.arange(400), 0)], "roc_auc", [1]) for x in p]
    repeated = np.repeat(values[1] - values[0], 5, axis=0)  # no chance but that of the rows
    mean, error, freedom = estimate.measure_gain(outcome(repeated, codes, "roc_auc"))
    score, positive = (p[1][:, 1], p[0][:, 1]), codes == 1
    wins = [((s[positive][:, None] > s[~positive]) + 0.5 * (s[positive][:, None] == s[~positive])) for s in score]
    over_negatives, over_positives = wins[0].mean(1) - wins[1].mean(1), wins[0].mean(0) - wins[1].mean(0)
    delong = (over_negatives.var(ddof=1) / 100 + over_positives.var(ddof=1) / 300) ** 0.5
    auc = [roc_auc_score(codes, s) for s in score]
    assert mean == pytest.approx(100 * (auc[0] - auc[1]))
    assert error == pytest.approx(100 * delong, rel=0.03)  # besides, differences of half a row in every class
    assert 99 < freedom < 398


def simulated(metric, counts, seed, repeats=4, folds=5):
    """Gain, standard error and degrees of freedom, of two classifiers on new rows."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    n, classes = len(codes), len(counts)
    splits = []
    for repeat in range(repeats):
        fold = np.concatenate([rng.permutation(c) % folds for c in counts])
        splits += [Split(np.flatnonzero(fold != k), np.flatnonzero(fold == k), repeat) for k in range(folds)]
    common, cells = 1.2 * rng.normal(size=(n, classes)), []
    positives = metrics.positive_classes(codes, classes)
    for strength in (1.2, 1.8):
        of_row = common + 0.7 * rng.normal(size=(n, classes))
        of_cell = 0.4 * rng.normal(size=(len(splits), n, classes)) + 0.3 * rng.normal(size=(len(splits), 1, classes))
        logits = strength * np.eye(classes)[codes] + of_row + of_cell
        p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
        cells.append(estimate.in_repeats(metrics.row_values(p, codes, splits, metric, positives), splits))
    return estimate.measure_gain(outcome(cells[1] - cells[0], codes, metric))


@pytest.mark.parametrize("metric", SLOPED)
@pytest.mark.parametrize("counts", [(60, 60), (90, 30), (40, 20, 20)])
def test_intervals_cover(metric, counts):
    mean, error, freedom = np.array([simulated(metric, counts, seed) for seed in range(80)]).T
    assert 0.8 < (error**2).mean() ** 0.5 / mean.std() < 1.35
    inside = [abs(m - mean.mean()) < half_width(e, f) for m, e, f in zip(mean, error, freedom)]
    assert np.mean(inside) > 0.87


@pytest.mark.parametrize("metric", SLOPED)
def test_constant_predictions_and_no_difference_are_finite(metric):
    codes = (np.arange(40) < 30).astype(int)
    splits = [Split(codes, np.arange(i, 40, 2), r) for r in range(3) for i in range(2)]
    p = np.full((6, 40, 2), 0.5, np.float32)
    values = metrics.row_values(p, codes, splits, metric, [0])
    chance = {"roc_auc": 0.5, "average_precision": 0.25, "log_loss": np.log(0.5)}
    if metric in chance:
        assert values.mean(0) * 2 == pytest.approx(np.full(40, chance[metric]))
    mean, error, freedom = estimate.measure_gain(outcome(np.zeros((3, 40)), codes, metric))
    assert mean == 0 and error > 1 and np.isfinite(freedom)  # few rows prove little
    sure = np.stack([np.eye(2, dtype=np.float32)[1 - codes]] * 6)
    assert np.isfinite(metrics.row_values(sure, codes, splits, metric, [0])).all()


def table(name, rows, seed, flip=0.0, classes=2):
    """Classes of unequal sizes that columns tell apart."""
    rng = np.random.default_rng(seed)
    codes = np.minimum(np.arange(rows) % 4, classes - 1)
    x = rng.normal(size=(rows, 4)) + np.eye(4)[codes]
    codes = np.where(rng.random(rows) < flip, (codes + 1) % classes, codes)
    return data.table(name, pd.DataFrame(x, columns=list("abcd")), np.array(["p", "q", "r", "s"], dtype=object)[codes])


@pytest.fixture(scope="module")
def target():
    """60 rows of p, 180 of q."""
    return table("target", 240, 0)


@pytest.fixture(scope="module")
def sources():
    """One that helps, one of inverted labels."""
    return [table("good", 200, 1), table("inverted", 200, 2, flip=1.0)]


@pytest.mark.parametrize("metric", SLOPED)
def test_a_race_is_measured_by_its_metric(metric, target, sources):
    race = Race([Source(s) for s in sources], target, metric, 0, 3, 8)
    assert race.predicted == [UNKNOWN] * 2 and race.screened[0].high != UNKNOWN.high
    race.run([0, 1], 0)
    outcome, held_out = race.outcome(0), race.held_out
    reached = {
        name: np.mean(
            [
                by_scikit_learn(metric, held_out.codes[s.test], p[i, s.test].numpy(), held_out.positives)
                for i, s in enumerate(held_out.splits)
            ]
        )
        for name, p in {**race.alone, "with": race.together([0])}.items()
    }
    with_source = reached.pop("with")
    assert outcome.baseline == max(reached, key=reached.get)
    gain = estimate.estimate_gain(outcome)
    # rows that few repeats measured count as much as others
    assert gain.mean == pytest.approx(100 * (with_source - max(reached.values())), abs=0.15 * (gain.high - gain.low))
    assert (gain.mean, gain.high - gain.mean) == (
        estimate.measure_gain(outcome)[0],
        pytest.approx(half_width(*estimate.measure_gain(outcome)[1:])),
    )
    assert estimate.explain_gain(outcome) is None and set(estimate.class_gains(outcome)) == {0, 1}


@pytest.mark.parametrize("metric", SLOPED)
def test_every_job_takes_the_metric_and_names_its_unit(metric, target, sources, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = transmeter.rank(target, sources, shots=3, repeats=5, metric=metric, together=True)
        measured = ground_truth.measure(
            [Source(sources[0])], target, shots=3, repeats=3, metric=metric, controls=False, network=False
        )
        moved = transmeter.transfer(target, sources[0], metric=metric, repeats=2)
    best = found.rows[0]
    assert best.source == "good" and best.gain_pp > 0 and best.terms is None and best.classes
    arm = measured.sources[0]
    assert arm.gain_pp > 0 and abs(arm.gain_pp - best.gain_pp) < 3 * (best.ci_high - best.ci_low)
    check_of, unit = moved.check, "hundredths of a nat" if metric == "log_loss" else "percentage points"
    assert check_of.reached.mean - check_of.alone.mean == pytest.approx(check_of.gain.mean)
    assert (
        check_of.reached.low <= check_of.reached.mean <= check_of.reached.high <= (0 if metric == "log_loss" else 100)
    )
    level = "negative log_loss in 1/100 nat" if metric == "log_loss" else f"{metric} in %"
    assert level in tables.format_transfer(moved)
    lines = [f"{metric}: gains are in {unit}{' by which it falls' if metric == 'log_loss' else ''}, as measured"]
    lines += ["average_precision: of class 'p', the rarer one"] if metric == "average_precision" else []
    assert all(line in tables.format_ranking(found) and line in tables.format_transfer(moved) for line in lines)
    assert f"gain in {metric}, {unit} (95 %)".replace("_", " ") in json.dumps(found.plot().to_dict())
    found.save(tmp_path / "ranking.json")
    page = json.dumps(sections.sections([tmp_path / "ranking.json"])[0], default=str)
    assert lines[0] in page and ("percentage points" in page or metric == "log_loss")
    content = {"targets": "a.csv", "sources": "b.csv", "metric": metric}
    assert check(content, Lines()).metric == metric


def test_short_finetune_takes_the_metrics(target, sources):
    for metric in ("roc_auc", "log_loss"):
        scores = short_finetune.score([Source(sources[0])], target, shots=5, repeats=2, steps=5, metric=metric)
        assert np.isfinite(scores[0].value) and scores[0].value != 0


def test_three_classes_are_averaged(sources):
    target = table("target", 120, 0, classes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = transmeter.rank(target, [table("good", 200, 1, classes=3)], shots=5, repeats=4, metric="roc_auc")
    assert "roc_auc: of every class, then averaged, against the rest" in found.about_metric


def test_splits_of_one_class_are_refused():
    target = data.table("t", pd.DataFrame({"x": range(40)}), np.array(["p"] * 35 + ["q"] * 5))
    splits = [Split(np.arange(30, 40), np.arange(30), 0)]
    for metric in METRICS:
        if metric in ("roc_auc", "average_precision"):
            with pytest.raises(
                ValueError, match=f"metric {metric} needs two classes among the test rows of every split"
            ):
                estimate.HeldOutRows(target, splits, metric, 5)
        else:
            estimate.HeldOutRows(target, splits, metric, 5)


def test_a_gain_of_a_metric_without_a_prior_is_the_measured_one():
    assert set(METRICS) == {*ACCURACIES, *metrics.SLOPED}
    assert metrics.positive_classes(np.array([0, 0, 1, 1, -1]), 2) == [1]
    assert metrics.positive_classes(np.array([0, 1, 1, -1, -1]), 2) == [0]
