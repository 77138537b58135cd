"""Features of a pair in closed form."""

import numpy as np
import pandas as pd
import pytest

from transmeter.gain.pair_features import fit_features, pair_features
from transmeter.gain.prior import FitFeatures
from transmeter.learners import source_linear, target_linear
from transmeter.learners.combination import TARGET_PRIOR
from transmeter.learners.task import shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.tables import data
from transmeter.tables.splits import make_splits


def table(name, seed, columns="abcd", classes="pq", n=80, keys=None, labelled=None):
    """Two well separated classes along the first two columns."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 4)) + np.outer(y, [3, -2, 0, 0])
    labels = np.array(list(classes), dtype=object)[y]
    if labelled is not None:
        labels[labelled:] = None
    return data.table(name, pd.DataFrame(x, columns=list(columns)), labels, keys)


def features(source, target):
    """Of one source for one target."""
    splits, encoded, sources = make_splits(target, 5, 4, seed=0), Encoded(target), [Source(source)]
    return pair_features(sources[0], encoded, splits, *fit_features(sources, encoded, splits, 0))


def test_a_source_that_is_the_target_looks_like_it():
    one = table("one", seed=1)
    found = features(one, table("again", seed=1))
    assert found.shared == found.mapped == 1 and found.paired == 0
    assert found.zero_shot > 0.8 and found.closeness > 0.8 and found.skill > 0.8
    assert found.separation < 0.1 and abs(found.misfit) < 0.1
    assert found.size == pytest.approx(np.log10(80)) and found.ridge_gain >= 0


def test_a_source_of_other_columns_has_no_features_but_its_own():
    found = features(table("other", seed=1, columns="efgh"), table("target", seed=2))
    assert found.shared == found.zero_shot == found.closeness == 0
    assert found.separation == found.misfit == found.ridge_gain == 0
    assert found.mapped == 1 and found.skill > 0.8  # its classes have the target's names
    assert features(table("other", seed=1, columns="efgh", classes="xy"), table("target", seed=2)).mapped == 0


def test_classes_of_other_names_are_matched_before_they_are_judged():
    target = table("target", seed=2)
    named, renamed = (features(table("s", seed=1, classes=c), target) for c in ("pq", "xy"))
    assert renamed.mapped == 0 and renamed.zero_shot == named.zero_shot > 0.8
    swapped = features(table("s", seed=1, classes="qp"), target)
    assert swapped.zero_shot < -0.8 and swapped.closeness < 0


def test_a_shifted_source_is_told_apart():
    near, far = table("near", seed=1), table("far", seed=1)
    far = data.table("far", far.features.assign(c=np.random.default_rng(0).gamma(0.2, size=80) ** 4), far.labels)
    target = table("target", seed=2)
    assert features(far, target).separation > features(near, target).separation


def test_paired_is_the_share_of_unlabelled_rows_that_the_source_has_seen():
    target = table("target", seed=2, keys=[f"k{i}" for i in range(80)], labelled=40)
    source = table("s", seed=1, columns="efgh", keys=[f"k{i}" for i in range(30, 110)])
    assert features(source, target).paired == 1  # k40..k79 are all in k30..k109
    source = table("s", seed=1, columns="efgh", keys=[f"k{i}" for i in range(-10, 70)])
    assert features(source, target).paired == 30 / 40
    assert features(table("s", seed=1), target).paired == 0
    assert features(source, table("target", seed=2, labelled=40)).paired == 0


def test_features_of_real_tables_is_in_its_ranges_and_reproducible(heart):
    target = heart["va"]
    for name in ("hungarian", "cleveland"):
        found, again = (features(heart[name], target) for _ in range(2))
        assert found == again
        for field in ("shared", "mapped", "paired", "skill", "separation"):
            assert 0 <= getattr(found, field) <= 1, field
        assert -1 <= found.zero_shot <= 1 and found.closeness <= 1 and -100 <= found.ridge_gain <= 100
        assert found.size == np.log10((heart[name].codes >= 0).sum()) and 0 < found.misfit < 5


def fits(sources, target, splits):
    """What one fit tells of the sources."""
    return fit_features([Source(s) for s in sources], Encoded(target), splits, 0)


def test_one_fit_tells_a_source_from_its_opposite_and_from_a_stranger():
    target = table("target", seed=2, labelled=20)
    same, opposite, strange = fits(
        [table("s", seed=1), table("o", seed=1, classes="qp"), table("z", seed=1, columns="efgh")], target, []
    )
    assert same.source_likelihood > opposite.source_likelihood + 0.5 and same.odds > 0 > opposite.odds
    assert same.agreement > 0.55 > 0.45 > opposite.agreement and same.confidence > 0.3 and same.change < 0.2
    assert strange == FitFeatures()
    assert same.own_confidence == opposite.own_confidence > 0.3 and same.expected >= 0


def test_the_likelihood_of_a_source_is_that_of_its_own_model_on_the_labelled_rows():
    target, source = table("target", seed=2, labelled=20), table("s", seed=1)
    (found,) = fits([source], target, [])
    encoded = Encoded(target)
    task = task_of(encoded, [np.arange(20)], 0)
    (given,) = shared(Source(source), encoded, task)
    members = [*source_linear.members(task, given)]
    alone = target_linear.members(task, None)
    expected = []
    for some, prior in ((members, 1.0), (alone, TARGET_PRIOR)):
        log_weight = np.array([0.5 * m.evidence[0] + np.log(prior) for m in some])
        shares = np.exp(log_weight - log_weight.max())
        expected.append((shares / shares.sum()) @ [m.evidence[0] for m in some] / 20)
    assert found.source_likelihood == pytest.approx(expected[0] - expected[1])


@pytest.mark.parametrize("labelled", [78, 79, 80])
def test_few_rows_without_a_label_are_looked_at_whatever_the_others(labelled):
    target = table("target", seed=2, labelled=labelled if labelled < 80 else None)
    (found,) = fits([table("s", seed=1)], target, make_splits(target, None, 2, seed=0))
    assert np.isfinite(list(vars(found).values())).all() and found.confidence > 0
