"""Scores of sources for a target without labels: order, bounds, and what they do not depend on."""

from dataclasses import replace

import numpy as np
import pytest

from transmeter.network.source import Source
from transmeter.zero_shot.features import regressors, zero_shot_features
from transmeter.zero_shot.model import fit_source_model
from transmeter.zero_shot.prior import gain_of, load_prior
from transmeter.zero_shot.score import about, in_classes, score


@pytest.fixture(scope="module")
def scores(sources, target):
    """Of all sources at once."""
    return score(sources, target)


def test_a_source_that_tells_the_classes_is_ahead_of_noise(scores, labelled, encoded, sources):
    good, far, noise = scores
    assert good.gain.mean > noise.gain.mean + 20 and good.gain.verdict == "helps"
    assert noise.gain.low < 0 < noise.gain.high and noise.gain.verdict != "helps"
    right = fit_source_model(sources[0], encoded).probabilities.argmax(1) == labelled.codes
    assert good.gain.low < 100 * right.mean() - 50 < good.gain.high
    assert all(s.value == s.gain.mean and -50 <= s.gain.low < s.gain.high <= 50 for s in scores)


def test_one_by_one_the_others_do_not_count(sources, target, encoded, scores):
    alone = score(sources, target, independent=True)
    assert alone[0].gain == score(sources[:1], target)[0].gain != scores[0].gain
    features = zero_shot_features(sources[0], encoded, fit_source_model(sources[0], encoded))
    (mean,), (deviation,) = load_prior().alone.predict(regressors([features]))
    assert alone[0].gain == gain_of(float(mean), float(deviation), 2, 200, 200)
    assert "consensus" not in alone[0].evidence and scores[0].evidence["consensus"] > 0.3


def test_a_source_without_a_column_in_common_guesses(sources, target):
    table = sources[0].table
    strange = Source(replace(table, features=table.features.rename(columns=lambda c: f"other {c}")))
    nothing, good = score([strange, sources[0]], target)
    assert (nothing.gain.mean, nothing.gain.low, nothing.gain.high) == (0, 0, 0)
    assert nothing.gain.verdict == "no evidence" and nothing.evidence == {}
    assert good.gain == score([sources[0]], target)[0].gain


def test_classes_of_other_names_are_said_and_do_not_agree(sources, target, encoded):
    table = sources[0].table
    names = {"no": "calm", "yes": "mad"}
    labels = np.array([names[label] for label in table.labels], dtype=object)
    other = Source(replace(table, name="other", labels=labels, classes=("calm", "mad")))
    model = fit_source_model(other, encoded)
    assert (in_classes(other.table, model, target.classes) == 0).all()
    given = in_classes(other.table, model, ("mad", "sad", "calm"))
    assert np.array_equal(given[:, [2, 0]], model.probabilities) and (given[:, 1] == 0).all()
    found = score([other, *sources[1:]], target)
    lines = about(target, [other.table, *(s.table for s in sources[1:])], found)
    assert lines[0].startswith("other: its model tells calm, mad apart, that of others no, yes")
    assert lines[1].startswith("far: ") and "of the rows of target are unlike its own" in lines[1]
    assert len(lines) == 2 and about(target, [table], ["it failed"]) == []
