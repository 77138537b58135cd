"""The set of sources: complements enter, useless and inverted ones stay out, and its interval knows of the choice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import transmeter
from transmeter.gain import sets
from transmeter.gain.estimate import measure_gain
from transmeter.gain.prior import Gain
from transmeter.gain.race import Race
from transmeter.gain.source_set import SourceSet, describe
from transmeter.network.source import Source
from transmeter.result import load
from transmeter.tables import data
from transmeter.util.intervals import Interval


def table(name, rows, seed, columns="abcdefgh", flip=0.0):
    """Two classes told apart by eight columns together, of which some are there."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.normal(size=(rows, 8)) + 0.5 * (2 * y - 1)[:, None]
    y = np.where(rng.random(rows) < flip, 1 - y, y)
    frame = pd.DataFrame(x, columns=list("abcdefgh"))[list(columns)]
    return data.table(name, frame, np.array(["no", "yes"], dtype=object)[y])


@pytest.fixture(scope="module")
def target():
    """240 rows."""
    return table("target", 240, 0)


@pytest.fixture(scope="module")
def sources():
    """Two halves of the columns, which together say all; noise; inverted labels."""
    return [
        Source(table("first half", 200, 1, "abcd")),
        Source(table("second half", 200, 2, "efgh")),
        Source(table("noise", 200, 3, flip=0.5)),
        Source(table("inverted", 200, 4, flip=1.0)),
    ]


@pytest.fixture(scope="module")
def found(sources, target):
    """The set at two labelled rows per class."""
    return sets.choose(sources, target, shots=2, repeats=12)


def test_complements_enter_and_what_hurts_stays_out(found):
    assert {"first half", "second half"} <= set(found.sources) and "inverted" not in found.sources
    assert found.candidates == ["first half", "second half", "noise", "inverted"] and found.repeats == 12
    assert found.verdict == "helps" and found.gain.low > 0
    assert found.over_best.low > 0 and found.over_all.mean > 0


def test_the_gain_is_that_of_the_sets_on_rows_that_did_not_choose(found, sources, target):
    race = Race(sources, target, "balanced_accuracy", 0, 2, 12)
    for number in range(race.rounds):
        race.run(range(4), number)
    rows = sets._Rows(race)
    folds = sets._folds(race.held_out.codes, 0)
    right, there = np.zeros(len(folds)), np.zeros(len(folds))
    baseline = race.baseline(len(race.splits))
    for k in range(sets.FOLDS):
        mine = race.together(rows.best(range(4), folds != k)).argmax(2).numpy()
        other = race.alone[baseline].argmax(2).numpy()
        for i, split in enumerate(race.held_out.splits):
            inside = split.test[folds[split.test] == k]
            codes = race.held_out.codes[inside]
            right[inside] += (mine[i, inside] == codes).astype(float) - (other[i, inside] == codes)
            there[inside] += 1
    classes = [race.held_out.codes == c for c in (0, 1)]
    measured = 100 * np.mean([right[c].sum() / there[c].sum() for c in classes])
    outcome = sets._outcome(race, [rows.best(range(4), folds != k) for k in range(sets.FOLDS)], folds, 0)
    assert measure_gain(outcome)[0] == pytest.approx(measured, abs=0.5)  # rows are tested unequally often
    assert found.gain.mean == pytest.approx(measured, abs=3)  # joined with what was expected


def test_folds_spread_the_classes():
    codes = np.repeat([0, 1, 2], [50, 13, 7])
    folds = sets._folds(codes, 3)
    for c in range(3):
        counts = np.bincount(folds[codes == c], minlength=sets.FOLDS)
        assert counts.max() - counts.min() <= 1


def test_no_set_is_chosen_where_every_source_hurts(target):
    wrong = [Source(table(f"inverted {i}", 200, 10 + i, flip=1.0)) for i in range(2)]
    found = sets.choose(wrong, target, shots=8, repeats=4)
    assert found.sources == [] and found.gain is found.verdict is found.over_best is found.over_all is None


def test_rank_gives_the_set_and_says_rows_that_count_twice(target, sources, tmp_path):
    copied = replace(sources[0].table, name="copy")
    tables = [sources[0].table, copied, sources[1].table]
    with pytest.warns(UserWarning, match="200 of 200 rows of (copy|first half) stand in (copy|first half) too"):
        found = transmeter.rank(target, tables, shots=2, repeats=6, together=True)
    assert {"first half", "copy"} <= set(found.together.sources)
    assert any("they count twice" in note for note in found.notes)
    found.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == found
    assert transmeter.rank(target, tables[:1], shots=2, repeats=2).together is None


def test_a_set_is_said_in_words():
    gain, lead = Gain(3.0, 1.0, 5.0, 0.01), Interval(0.5, -0.5, 1.5)
    two = SourceSet(["a", "b"], ["a", "b", "c"], gain, "helps", lead, lead, 40)
    first, then = describe(two)
    assert first == "together: a + b gain +3.0 (+1.0 to +5.0), helps"
    assert then == "  over the best single source +0.5 (-0.5 to +1.5), over all 3 at once +0.5 (-0.5 to +1.5)"
    one = describe(replace(two, sources=["a"]))
    assert one[0].startswith("together: a alone, to which no other adds, gain +3.0")
    assert one[1] == "  over all 3 at once +0.5 (-0.5 to +1.5)"
    assert len(describe(replace(two, sources=["a"], candidates=["a"]))) == 1
    none = SourceSet([], ["a", "b"], None, None, None, None, 40)
    assert describe(none) == ["together: none of 2 sources makes the labels of the target likelier"]


def test_the_budget_and_an_interruption_end_the_rounds(target, sources, monkeypatch):
    found = sets.choose(sources, target, shots=2, repeats=25, budget=0.0)
    assert found == sets.choose(sources, target, shots=2, repeats=10)  # one round of three
    run = Race.run

    def interrupted(race, active, number):
        if number:
            raise KeyboardInterrupt
        run(race, active, number)

    monkeypatch.setattr(Race, "run", interrupted)
    with pytest.warns(UserWarning, match="interrupted: the set is chosen on 1 of 3 rounds"):
        assert sets.choose(sources, target, shots=2, repeats=25) == found


def test_an_interrupted_choice_keeps_the_ranking(target, sources, monkeypatch):
    def choose(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("transmeter.ranking.choose", choose)
    with pytest.warns(UserWarning, match="interrupted: no set of sources is chosen"):
        found = transmeter.rank(target, [sources[0].table], shots=2, repeats=2, together=True)
    assert found.together is None and found.rows[0].source == "first half"


@pytest.mark.parametrize(
    ("settings", "ranked"),
    [({"scorer": "source_size"}, "source_size"), ({"options": {"learner": "network"}}, "network")],
)
def test_another_measure_of_the_ranking_is_said(target, sources, settings, ranked):
    with pytest.warns(UserWarning, match=f"by the combination of learners, the ranking is by {ranked}"):
        found = transmeter.rank(target, [sources[0].table], repeats=2, together=True, **settings)
    assert any(ranked in note for note in found.notes) and found.together.sources == ["first half"]


def test_no_candidate_is_said(target, sources, monkeypatch):
    monkeypatch.setattr("transmeter.ranking._candidates", lambda prepared, scored: [])
    with pytest.warns(UserWarning, match="no set of sources is chosen: every source hurts"):
        assert transmeter.rank(target, [sources[0].table], shots=2, repeats=2, together=True).together is None
