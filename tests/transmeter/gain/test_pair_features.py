"""Evidence in closed form, and the ridges that it comes from, against plain computations."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score

from transmeter.gain.estimate import make_splits
from transmeter.gain.pair_features import gather
from transmeter.learners import ridge
from transmeter.network.source import Encoded, Source
from transmeter.tables import data


def blobs(n=60, d=5, classes=3, seed=0):
    """(x, codes) of overlapping classes of different sizes."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    return rng.normal(size=(n, d)) + 1.2 * np.eye(classes, d)[codes], codes


def table(name, seed, columns="abcd", classes="pq", n=80, keys=None, labelled=None):
    """Two well separated classes along the first two columns."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 4)) + np.outer(y, [3, -2, 0, 0])
    labels = np.array(list(classes), dtype=object)[y]
    if labelled is not None:
        labels[labelled:] = None
    return data.table(name, pd.DataFrame(x, columns=list(columns)), labels, keys)


def evidence(source, target):
    """Of one source for one target."""
    return gather(Source(source), Encoded(target), make_splits(target, 5, 4, seed=0))


@pytest.mark.parametrize("features", [5, 100])
def test_the_closed_form_is_a_loop_that_leaves_one_out(features):
    x, codes = blobs(d=features)
    classes = np.unique(codes)
    y = np.eye(len(classes))[codes]
    y /= y.mean(0)
    a = np.column_stack([x, np.ones(len(x))])
    guess = np.zeros(len(x), dtype=int)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        weights = np.linalg.solve(a[rest].T @ a[rest] + ridge.RIDGE * np.eye(a.shape[1]), a[rest].T @ y[rest])
        guess[i] = (a[i] @ weights).argmax()
    expected = (balanced_accuracy_score(codes, guess) - 1 / 3) / (1 - 1 / 3)
    assert 0.02 < expected < 0.9
    assert ridge.loo_skill(x, codes) == pytest.approx(expected, abs=1e-12)


def test_skill_is_one_where_classes_lie_apart_and_about_nothing_in_noise():
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 3
    assert ridge.loo_skill(np.eye(3)[codes] + 0.01 * rng.normal(size=(300, 3)), codes) == 1
    assert ridge.loo_skill(rng.normal(size=(300, 3)), codes) < 0.15
    assert ridge.loo_skill(rng.normal(size=(20, 50)), codes[:20]) <= 1  # more features than rows


def test_held_out_is_the_ridge_of_scikit_learn():
    x, codes = blobs(n=90)
    x -= x.mean(0)
    train, test = np.arange(50), np.arange(50, 90)
    found = ridge.held_out(x, codes, train, test, 3)
    y = np.eye(3)[codes[train]]
    model = Ridge(ridge.RIDGE * len(train), fit_intercept=False).fit(x[train], y - y.mean(0))
    guess = (model.predict(x[test]) + y.mean(0)).argmax(1)
    assert found == pytest.approx(balanced_accuracy_score(codes[test], guess), abs=1e-12)


def test_long_training_sets_are_thinned_evenly():
    x, codes = blobs(n=1300)
    train, test = np.arange(1200), np.arange(1200, 1300)
    found = ridge.held_out(x, codes, train, test, 3)
    assert found == ridge.held_out(x, codes, train[::3], test, 3)


def test_a_source_that_is_the_target_looks_like_it():
    one = table("one", seed=1)
    found = evidence(one, table("again", seed=1))
    assert found.shared == found.mapped == 1 and found.paired == 0
    assert found.zero_shot > 0.8 and found.closeness > 0.8 and found.skill > 0.8
    assert found.separation < 0.1 and abs(found.misfit) < 0.1
    assert found.size == pytest.approx(np.log10(80)) and found.ridge_gain >= 0


def test_a_source_of_other_columns_has_no_evidence_but_its_own():
    found = evidence(table("other", seed=1, columns="efgh"), table("target", seed=2))
    assert found.shared == found.zero_shot == found.closeness == 0
    assert found.separation == found.misfit == found.ridge_gain == 0
    assert found.mapped == 1 and found.skill > 0.8  # its classes have the target's names
    assert evidence(table("other", seed=1, columns="efgh", classes="xy"), table("target", seed=2)).mapped == 0


def test_classes_of_other_names_are_matched_before_they_are_judged():
    target = table("target", seed=2)
    named, renamed = (evidence(table("s", seed=1, classes=c), target) for c in ("pq", "xy"))
    assert renamed.mapped == 0 and renamed.zero_shot == named.zero_shot > 0.8
    swapped = evidence(table("s", seed=1, classes="qp"), target)
    assert swapped.zero_shot < -0.8 and swapped.closeness < 0


def test_a_shifted_source_is_told_apart():
    near, far = table("near", seed=1), table("far", seed=1)
    far = data.table("far", far.features.assign(c=np.random.default_rng(0).gamma(0.2, size=80) ** 4), far.labels)
    target = table("target", seed=2)
    assert evidence(far, target).separation > evidence(near, target).separation


def test_paired_is_the_share_of_unlabelled_rows_that_the_source_has_seen():
    target = table("target", seed=2, keys=[f"k{i}" for i in range(80)], labelled=40)
    source = table("s", seed=1, columns="efgh", keys=[f"k{i}" for i in range(30, 110)])
    assert evidence(source, target).paired == 1  # k40..k79 are all in k30..k109
    source = table("s", seed=1, columns="efgh", keys=[f"k{i}" for i in range(-10, 70)])
    assert evidence(source, target).paired == 30 / 40
    assert evidence(table("s", seed=1), target).paired == 0
    assert evidence(source, table("target", seed=2, labelled=40)).paired == 0


def test_evidence_of_real_tables_is_in_its_ranges_and_reproducible(heart):
    target = heart["va"]
    for name in ("hungarian", "cleveland"):
        found, again = (evidence(heart[name], target) for _ in range(2))
        assert found == again
        for field in ("shared", "mapped", "paired", "skill", "separation"):
            assert 0 <= getattr(found, field) <= 1, field
        assert -1 <= found.zero_shot <= 1 and found.closeness <= 1 and -100 <= found.ridge_gain <= 100
        assert found.size == np.log10((heart[name].codes >= 0).sum()) and 0 < found.misfit < 5
