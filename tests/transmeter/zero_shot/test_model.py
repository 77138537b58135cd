"""The model of a source alone against scikit-learn, and what it never looks at."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from transmeter.learners.task import PENALTY
from transmeter.network.source import Encoded, Source
from transmeter.zero_shot.model import fit_source_model


def test_it_is_the_mean_of_logistic_regressions_in_both_units(target, encoded, sources):
    model = fit_source_model(sources[1], encoded)
    x_t = target.features.to_numpy()
    x_s = sources[1].table.features.to_numpy()
    theirs = np.clip((x_s - x_t.mean(0)) / x_t.std(0), -10, 10)
    own = (theirs - theirs.mean(0)) / theirs.std(0)
    x = (x_t - x_t.mean(0)) / x_t.std(0)
    fitted = [LogisticRegression(C=1 / PENALTY, tol=1e-8).fit(u, sources[1].table.codes) for u in (theirs, own)]
    assert model.probabilities == pytest.approx(np.mean([f.predict_proba(x) for f in fitted], 0), abs=2e-3)
    left_out = []
    for unit in (theirs, own):
        refit = LogisticRegression(C=1 / PENALTY).fit(unit[1:], sources[1].table.codes[1:])
        left_out.append(refit.predict_proba(unit[:1])[0])
    assert model.left_out[0] == pytest.approx(np.mean(left_out, axis=0), abs=0.01)


def test_labels_of_the_target_are_not_looked_at(labelled, encoded, sources):
    seen, unseen = (fit_source_model(sources[0], given) for given in (Encoded(labelled), encoded))
    assert np.array_equal(seen.probabilities, unseen.probabilities)


def test_without_a_column_in_common_there_is_none(encoded, sources):
    table = sources[0].table
    strange = replace(table, features=table.features.rename(columns=lambda c: f"other {c}"))
    assert fit_source_model(Source(strange), encoded) is None
    half = replace(table, features=table.features[["a", "b"]])
    assert fit_source_model(Source(half), encoded).known.tolist() == [True, True, False, False]
