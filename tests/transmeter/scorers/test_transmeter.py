"""The scorer `transmeter`: a screen, then rounds that settled sources leave; budgets; company."""

import importlib
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from transmeter import ranking
from transmeter.gain import ground_truth, race, transfers
from transmeter.network.source import Source
from transmeter.report.tables import format_ranking
from transmeter.result import load
from transmeter.tables import data

scorer = importlib.import_module("transmeter.scorers.transmeter")
NETWORK = {"learner": "network", "steps": 25}


def easy(name, rows, seed, flip=0.0):
    """Rows of two classes, told apart only by several columns together; `flip`: share of wrong labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.normal(size=(rows, 10)) + 0.5 * np.outer(2 * y - 1, np.ones(10))
    y = np.where(rng.random(rows) < flip, 1 - y, y)
    return data.table(name, pd.DataFrame(x).add_prefix("c"), np.array(["no", "yes"], dtype=object)[y])


@pytest.fixture(scope="module")
def target():
    """300 rows."""
    return easy("target", 300, seed=0)


@pytest.fixture(scope="module")
def sources():
    """Two helpful ones, an inverted one, an unrelated one; classifiers trained once."""
    rng = np.random.default_rng(9)
    apart = data.table("apart", pd.DataFrame(rng.normal(size=(80, 4))).add_prefix("z"), np.arange(80) % 2)
    tables = [easy("good", 250, 1), easy("fair", 200, 2, 0.1), easy("inverted", 200, 3, 1.0), apart]
    return [Source(t) for t in tables]


def score(sources, target, **settings):
    """Scores by name."""
    settings = {"shots": 1, "repeats": 20} | settings
    return {s.table.name: x for s, x in zip(sources, scorer.score(sources, target, **settings))}


@pytest.fixture(scope="module")
def full(sources, target):
    """Scores of all sources over two rounds."""
    return score(sources, target)


def repeats(scores):
    """Repeats that measured each source, 0 for the screen alone."""
    return {name: len(s.outcome.difference) if s.outcome else 0 for name, s in scores.items()}


def test_a_settled_source_leaves_the_race_and_an_open_one_stays(full):
    assert repeats(full)["inverted"] == 10 and repeats(full)["good"] == 20
    assert full["inverted"].gain.high < 0 < full["good"].gain.low
    assert full["good"].value == full["good"].gain.mean > full["apart"].value > full["inverted"].value


def test_a_source_that_settled_early_is_compared_on_the_repeats_of_both(full):
    groups = ranking.tie_groups([full["good"], full["inverted"]])
    assert groups == [1, 2]


def test_a_source_does_not_depend_on_who_else_runs(full, sources, target):
    fewer = score(sources[:2], target)
    for name in ("good", "fair"):
        assert repeats(fewer)[name] == repeats(full)[name]
        assert fewer[name].value == pytest.approx(full[name].value, abs=0.05)
        assert fewer[name].outcome.baseline == full[name].outcome.baseline


def test_sources_beyond_the_candidates_keep_the_gain_of_the_screen(full, sources, target, monkeypatch):
    monkeypatch.setattr(race, "CANDIDATES", 2)
    found = score(sources, target)
    assert repeats(found) == {"good": repeats(full)["good"], "fair": repeats(full)["fair"], "inverted": 0, "apart": 0}
    for name in ("inverted", "apart"):
        assert found[name].outcome is None and found[name].value == found[name].gain.mean
    for name in ("good", "fair"):
        assert found[name].value == pytest.approx(full[name].value, abs=0.05)


def test_screened_sources_stand_in_the_ranking_without_repeats(sources, target, monkeypatch, tmp_path):
    monkeypatch.setattr(race, "CANDIDATES", 2)
    found = ranking.rank(target, [s.table for s in sources], shots=1, repeats=10)
    rows = {r.source: r for r in found.rows}
    assert sorted(r.rank for r in found.rows) == [1, 2, 3, 4] and {rows[n].repeats for n in ("good", "fair")} == {10}
    for name in ("inverted", "apart"):
        row = rows[name]
        assert row.repeats == 0 and row.baseline is None and row.verdict == row.gain.verdict
    assert rows["good"].evidence["zero_shot"] > 0.5 and rows["good"].baseline
    found.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == found
    assert all(name in format_ranking(found) for name in rows)


def test_a_ranking_reports_the_repeats_that_measured_each_source(full, sources, target):
    found = ranking.rank(target, [s.table for s in sources], shots=1, repeats=20)
    counts = {r.source: r.repeats for r in found.rows}
    assert found.repeats == 20 and counts["apart"]  # there its classes 0 and 1 are matched to no and yes
    assert counts == repeats(full) | {"apart": counts["apart"]}


@pytest.mark.parametrize("budget, rounds", [(100.0, 3), (1.5, 2), (0.5, 1)])
def test_after_the_budget_no_new_round_begins(sources, target, monkeypatch, budget, rounds):
    seconds = itertools.count()  # every look at the clock takes one
    monkeypatch.setattr(scorer, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    found = score(sources[:1], target, repeats=30, budget=budget)
    assert repeats(found) == {"good": 10 * rounds}
    assert found["good"].gain.low < found["good"].value == found["good"].gain.mean < found["good"].gain.high


@pytest.mark.parametrize("calls, rounds", [(2, 1), (3, 2)])
def test_an_interrupt_keeps_the_rounds_that_are_whole(sources, target, monkeypatch, calls, rounds):
    """Interrupted in a later round; nobody settles."""
    monkeypatch.setattr(race.Race, "unsettled", lambda self, live: list(live))
    count, fitted = itertools.count(1), race.by_combination

    def interrupted(*args):
        if next(count) == calls:
            raise KeyboardInterrupt
        return fitted(*args)

    whole = score(sources[:2], target, repeats=10 * rounds)
    monkeypatch.setattr(race, "by_combination", interrupted)
    with pytest.warns(UserWarning, match=f"interrupted: gains are of {rounds} of 3 rounds"):
        found = score(sources[:2], target, repeats=30)
    assert repeats(found) == {"good": 10 * rounds, "fair": 10 * rounds}
    for name in found:
        assert found[name].value == pytest.approx(whole[name].value, abs=0.05)
        assert found[name].outcome.baseline == whole[name].outcome.baseline


def test_an_interrupt_before_any_round_ends_the_run(sources, target, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(race, "by_combination", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(sources[:1], target)


def test_networks_train_in_parts_and_score_as_in_one(sources, target, monkeypatch):
    whole = score(sources, target, repeats=10, **NETWORK)
    monkeypatch.setattr(transfers, "STACK", 2 * race.SPLITS)  # one source beside the target alone
    found = score(sources, target, repeats=10, **NETWORK)
    for name in found:
        assert found[name].value == pytest.approx(whole[name].value, abs=0.05)
        assert list(found[name].outcome.over_itself) == ["network"]


def test_options_of_the_network_are_refused_without_it(sources, target):
    for option in ({"steps": 5}, {"variant": "paper"}, {"reconstruction": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is an option of the network: set learner=network"):
            score(sources[:1], target, **option)


def test_every_learner_stands_beside_itself_without_the_source(full):
    for name in ("good", "inverted"):
        over_itself = full[name].outcome.over_itself
        assert list(over_itself) == ["combination", "pooled_linear", "source_forest", "source_linear"]
    assert all(v > 3 for v in full["good"].outcome.over_itself.values())
    assert (
        full["inverted"].outcome.over_itself["source_linear"] < full["inverted"].outcome.over_itself["combination"] < 0
    )


def test_one_shot_and_more_classes_than_the_source_has_are_measured():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    three = data.table("three", pd.DataFrame(rng.normal(size=(60, 10)) + y[:, None]).add_prefix("c"), y)
    found = score([Source(easy("two", 80, 1))], three, repeats=4)
    assert abs(found["two"].value) < 10 and repeats(found) == {"two": 4} and found["two"].outcome.shots == 1


def test_metric_and_repeats_are_checked(sources, target):
    with pytest.raises(ValueError, match="metric 'f1' is unknown"):
        score(sources[:1], target, metric="f1")
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"repeats {few} is too few"):
            score(sources[:1], target, repeats=few)
    found = score(sources[:1], target, repeats=4, metric="accuracy")["good"]
    assert found.outcome.metric == "accuracy"


def test_a_source_that_changes_nothing_neither_helps_nor_hurts():
    rng = np.random.default_rng(3)
    three = easy("three", 90, 5)
    three = data.table("three", three.features, np.arange(90) % 3)
    strange = Source(data.table("strange", pd.DataFrame(rng.normal(size=(80, 4))).add_prefix("z"), np.arange(80) % 2))
    for seed in range(2):
        found = score([strange], three, shots=5, repeats=10, seed=seed)["strange"]
        assert np.nanmax(np.abs(found.outcome.difference)) == 0 and found.outcome.baseline == "combination"
        assert found.gain.verdict == "no evidence"
    measured = ground_truth.measure([strange], three, shots=5, repeats=4, controls=False, network=False)
    assert measured.sources[0].gain_pp == measured.together.gain_pp == 0
