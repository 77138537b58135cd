"""How many more labelled rows would settle a ranking, checked by simulation."""

import numpy as np
import pytest

from transmeter import rank
from transmeter.gain.estimate import Outcome, measure_gain
from transmeter.gain.prior import Gain
from transmeter.gain.score import Score
from transmeter.more_labels import BEYOND, MOST, more_labels, rows_to_settle
from transmeter.result import MORE
from transmeter.util.intervals import half_width


def outcome(rows, lead, seed, repeats=10):
    """Of a source that is right `lead` more often than the target alone; half of the luck is a row's own."""
    rng = np.random.default_rng(seed)
    luck = rng.random(2 * rows)[None] < 0.5
    chance = np.where(luck, rng.random(2 * rows)[None], rng.random((repeats, 2 * rows)))
    difference = np.where(chance < 0.1 + lead, 1.0, np.where(chance > 0.9, -1.0, 0.0))
    return Outcome(
        difference=difference,
        codes=np.arange(2 * rows) % 2,
        metric="balanced_accuracy",
        population=None,
        baseline="logistic regression",
        transfer=None,
        features=None,
        shots=rows,
        correct=difference,
    )


def test_the_forecast_holds_in_four_of_five_draws():
    forecasts = [rows_to_settle(10.0, measure_gain(outcome(20, 0.1, seed))[1], 20) for seed in range(40)]
    rows = round(np.median(forecasts))
    assert rows > 30
    beyond = 0
    for seed in range(200):
        mean, error, freedom = measure_gain(outcome(rows, 0.1, 1000 + seed))
        beyond += mean > half_width(error, freedom)
    assert 0.68 < beyond / 200 < 0.92


def test_rows_grow_with_the_square_of_the_error_and_without_end():
    assert rows_to_settle(2.0, 2.0, 10) == pytest.approx(10 * BEYOND**2)
    assert rows_to_settle(2.0, 4.0, 10) == 4 * rows_to_settle(2.0, 2.0, 10) == 4 * rows_to_settle(-2.0, 2.0, 10)
    assert rows_to_settle(0.0, 1.0, 10) == np.inf


def score(mean, measured):
    return Score(mean, Gain(mean, mean - 5, mean + 5, 0.3), measured)


def test_a_line_is_about_the_leading_pair_or_the_leader():
    first, second = outcome(60, 0.1, 0), outcome(60, 0.08, 1)
    (line,) = more_labels([("a", score(6.0, first)), ("b", score(2.0, second)), ("c", score(0.0, None))])
    rows = rows_to_settle(4.0, measure_gain(first, second)[1], 60) - 60
    number = int(line.removeprefix(f"{MORE}about ").partition(" ")[0])
    assert line == f"{MORE}about {number} more labelled rows per class would tell a from b"
    assert abs(number - rows) <= 0.06 * rows + 5
    (line,) = more_labels([("a", score(2.0, first))])
    assert line.endswith("more labelled rows per class would show what a brings")
    (line,) = more_labels([("a", score(2.0, first)), ("b", score(2.0, second))])
    assert line == f"{MORE}not even {MOST} times as many labelled rows would tell a from b"
    assert more_labels([("c", score(0.0, None))]) == more_labels([]) == []
    sure = Score(9.0, Gain(9.0, 5.0, 13.0, 0.0), first)
    assert more_labels([("a", sure)]) == []


def test_a_ranking_says_it_with_few_labels_alone(heart):
    found = rank(heart["va"], [heart["hungarian"], heart["cleveland"]], repeats=2)
    assert len(found.about_labels) <= 1 and all("labelled rows" in line for line in found.about_labels)
    assert rank(heart["va"], [heart["hungarian"]], shots=5, repeats=2).about_labels == []
