"""Gains of quantities: R2 points and MAE against a direct computation, splits, sets, and labels of other kinds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from transmeter.gain import ground_truth, heldout, measured, sets
from transmeter.gain.estimate import estimate_gain, measure_gain, measure_mae
from transmeter.gain.quantity_race import start_race
from transmeter.learners.combination import COMBINATION
from transmeter.network.source import Source
from transmeter.scorers.transmeter import score
from transmeter.tables import data
from transmeter.tables.splits import make_splits

pytestmark = pytest.mark.filterwarnings("ignore:.*the label is a quantity")


def table(name, rows, seed, unit=1.0, columns="abcd", weights=(1.0, 2.0, 0.0, -1.0)):
    """A quantity that follows columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    y = x @ np.array(weights) + rng.normal(size=rows) + 5
    return data.table(name, pd.DataFrame(x, columns=list("abcd"))[list(columns)], unit * y)


@pytest.fixture(scope="module")
def target():
    """90 rows, ten of them without a label."""
    whole = table("target", 90, 0, unit=10.0)
    there = np.arange(90) < 80
    labels, quantity = np.where(there, whole.labels, None), np.where(there, whole.quantity, np.nan)
    return replace(whole, labels=labels, quantity=quantity)


@pytest.fixture(scope="module")
def sources():
    """One that helps, one of other effects."""
    return [Source(table("good", 150, 1)), Source(table("other", 150, 2, weights=(0, 0, 2, 0)))]


@pytest.mark.parametrize("shots", [10, None])
def test_gains_are_those_of_a_direct_computation(shots, target, sources):
    race = start_race(sources, target, "r2", 0, shots, 6)
    race.run([0, 1], 0)
    for number in range(1, race.rounds):
        race.run([0, 1], number)
    outcome, y = race.outcome(0), target.quantity
    mean, deviation = np.nanmean(y), np.nanstd(y)
    predicted = {name: p.numpy()[..., 0] * deviation + mean for name, p in race.alone.items()}
    predicted["with"] = race.together([0]).numpy()[..., 0] * deviation + mean
    splits = make_splits(target, shots, 6, 0)
    rows = race.held_out.rows

    def mean_over_rows(name, power):
        cells = np.full((6, 90), np.nan)
        for i, split in enumerate(splits):
            there = np.isin(rows, split.test)
            cells[split.repeat, rows[there]] = np.abs(predicted[name][i, there] - y[rows[there]]) ** power
        return np.nanmean(np.nanmean(cells, axis=0))

    alone = {name: 1 - mean_over_rows(name, 2) / deviation**2 for name in race.alone}
    assert outcome.baseline in race.alone and set(race.alone) >= {COMBINATION, "ridge", "random forest"}
    gain = 100 * (1 - mean_over_rows("with", 2) / deviation**2 - alone[outcome.baseline])
    assert measure_gain(outcome)[0] == pytest.approx(gain, abs=1e-3)
    assert estimate_gain(outcome).mean == measure_gain(outcome)[0]  # no prior is fitted for quantities
    mae = mean_over_rows(outcome.baseline, 1) - mean_over_rows("with", 1)
    assert measure_mae(outcome).mean == pytest.approx(mae, abs=1e-4)
    assert measure_mae(outcome).low < mae < measure_mae(outcome).high
    assert {COMBINATION, "pooled_ridge", "source_ridge", "source_forest"} == set(outcome.over_itself)


def test_another_unit_of_the_target_changes_mae_alone(target, sources):
    scaled = replace(target, quantity=target.quantity / 1000)
    one, other = (score(sources[1:], t, shots=10, repeats=4, metric="r2")[0] for t in (target, scaled))
    # whether the units of both seem to be the same differs, so the source is looked at in its own unit
    assert measure_mae(other.outcome).mean == pytest.approx(measure_mae(one.outcome).mean / 1000, abs=2e-3)


def test_the_better_source_leads_and_repeats_are_reproducible(target, sources):
    found = [score(sources, target, shots=10, repeats=20, metric="r2", seed=3) for _ in range(2)]
    assert [s.gain for s in found[0]] == [s.gain for s in found[1]]
    good, other = found[0]
    assert good.gain.verdict == "helps" and good.value > other.value


def test_a_set_is_chosen_by_squared_errors(target):
    halves = [Source(table("first", 150, 1, columns="ab")), Source(table("second", 150, 2, columns="cd"))]
    noise = table("noise", 150, 3)
    noise = Source(replace(noise, quantity=np.random.default_rng(0).permutation(noise.quantity)))
    found = sets.choose([*halves, noise], target, shots=10, repeats=12, metric="r2")
    assert "first" in found.sources and "noise" not in found.sources
    assert found.gain.mean > 0 and found.over_all is not None


def test_the_check_is_of_what_a_ranking_measures(target, sources):
    found = heldout.check(sources[:1], target, shots=10, repeats=10, metric="r2")
    scored = score(sources[:1], target, shots=10, repeats=10, metric="r2")[0]
    assert found.gain == scored.gain and found.baseline == scored.outcome.baseline
    assert found.reached.mean - found.alone.mean == pytest.approx(scored.gain.mean, abs=1e-6)
    assert found.mae == measure_mae(scored.outcome)


def test_ground_truth_has_controls_that_do_not_help(target, sources):
    found = ground_truth.measure(sources, target, shots=15, repeats=8, metric="r2")
    assert found.metric == "r2" and list(found.others) == ["pooled"]
    assert found.sources[0].gain_pp > found.sources[1].gain_pp
    assert [c.name for c in found.controls] == ["good, labels shuffled", "Gaussian mixture"]
    assert all(c.gain_pp < found.sources[0].gain_pp and c.ci_low < 0 for c in found.controls)
    assert set(found.baselines) == {"ridge", "random forest", "gradient boosting", COMBINATION}


def test_splits_are_of_rows_in_all(target):
    splits = make_splits(target, 7, 5, 0)
    assert all(len(s.train) == 7 and len(s.test) == 73 and s.test.max() < 80 for s in splits)
    folds = make_splits(target, None, 2, 0)
    assert len(folds) == 10 and sorted(np.concatenate([s.test for s in folds[:5]])) == list(range(80))
    for shots, message in (
        (2, "has to leave 3"),
        (78, "target has 80 labelled rows: at least --shots 78 has to leave 3"),
    ):
        with pytest.raises(ValueError, match=message):
            make_splits(target, shots, 5, 0)
    with pytest.raises(ValueError, match="has 5 labelled rows: at least 6 are needed"):
        make_splits(target.take(np.arange(5)), None, 5, 0)


def test_labels_are_what_the_metric_measures(target):
    classes = data.table("classes", pd.DataFrame({"x": range(40)}), np.arange(40) % 2)
    numbers = data.table("numbers", pd.DataFrame({"x": range(40)}), np.arange(40) % 3 * 1.5)
    names = data.table("names", pd.DataFrame({"x": range(40)}), np.array(["p", "q", "r", "s"] * 10))
    assert measured.measured_by(target, None)[1] == "r2" and measured.measured_by(classes, None)[1] != "r2"
    cut, metric = measured.measured_by(target, "accuracy")
    assert cut.quantity is None and metric == "accuracy" and set(cut.classes) == {"low", "middle", "high"}
    assert sorted(set(measured.measured_by(numbers, "r2")[0].quantity)) == [0.0, 1.5, 3.0]
    with pytest.raises(ValueError, match="names has the label 'p', which is not a number"):
        measured.measured_by(names, "r2")
    with pytest.raises(ValueError, match="metric 'r2' is unknown: give one of balanced_accuracy, accuracy"):
        measured.measured_by(target, "r2", quantities=False)
    texts = replace(classes, classes=("no", "yes"), labels=np.array(["no", "yes"] * 20, dtype=object))
    with pytest.warns(UserWarning, match="classes: 'no' counts as 0 and 'yes' as 1"):
        assert sorted(set(measured.like(target, texts).quantity)) == [0.0, 1.0]
    assert "names has 4 classes, not numbers" in measured.like(target, names).reason
    assert measured.like(classes, target).quantity is None and measured.like(classes, names) is names


def test_the_network_is_refused(target, sources):
    with pytest.raises(ValueError, match="the network tells classes apart, target has a quantity"):
        score(sources, target, shots=10, learner="network", metric="r2")
