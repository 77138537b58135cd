"""The combination: its weights, what it falls back on, and that a learner is one file."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import transmeter.learners
from transmeter.learners import combination
from transmeter.learners.task import Member, shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.tables import data


def table(name, rows, seed, keys=None, columns="abcd"):
    """Two classes, told apart by several columns together."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.normal(size=(rows, len(columns))) + 0.7 * (2 * y - 1)[:, None]
    made = data.table(name, pd.DataFrame(x, columns=list(columns)), np.array(["no", "yes"], dtype=object)[y])
    return made if keys is None else replace(made, keys=np.array(keys, dtype=object))


@pytest.fixture(scope="module")
def target():
    """60 rows."""
    return Encoded(table("target", 60, 0))


@pytest.fixture(scope="module")
def task(target):
    """Two splits of eight rows."""
    return task_of(target, [np.arange(8), np.arange(8, 16)])


def test_members_count_by_the_root_of_their_likelihood_and_those_of_the_target_twice():
    members = [
        Member(n, np.zeros((1, 1, 2)), np.array([e])) for n, e in (("alone", -4.0), ("one", -3.0), ("two", -5.0))
    ]
    weights = combination.combine(members[:1], members[1:]).weights[0]
    expected = np.array([2 * np.exp(-2.0), np.exp(-1.5), np.exp(-2.5)])
    np.testing.assert_allclose(weights, expected / expected.sum())


def test_a_helpful_source_makes_the_right_class_likelier_and_probabilities_sum_to_one(target, task):
    alone, x = combination.target_members(task), target.x.numpy() @ task.basis
    given = shared(Source(table("good", 200, 1)), target, task)
    found = combination.combine(alone, combination.source_members(task, given))
    by_alone = combination.combine(alone, []).probabilities(x)
    with_source = found.probabilities(x)
    np.testing.assert_allclose(with_source.sum(2), 1)
    rest = np.arange(16, 60)
    right = [p[:, rest, target.table.codes[rest]].mean() for p in (by_alone, with_source)]
    assert right[1] > right[0] + 0.03


def test_a_source_without_anything_in_common_gives_no_member(target, task):
    assert combination.source_members(task, shared(Source(table("strange", 50, 2, columns="wxyz")), target, task)) == []


def test_labels_that_are_inverted_count_for_little(target, task):
    good = table("good", 200, 1)
    turned = replace(good, labels=np.where(good.labels == "yes", "no", "yes").astype(object))
    alone = combination.target_members(task)
    share = [
        combination.combine(alone, combination.source_members(task, shared(Source(t), target, task)))
        .weights[:, 3:]
        .sum(1)
        .mean()
        for t in (good, turned)
    ]
    assert share[0] > 0.6 > share[1]


def test_a_source_labels_the_unlabelled_rows_that_it_has_seen():
    keys = [f"k{i}" for i in range(60)]
    mine = table("target", 60, 0, keys)
    mine = replace(mine, labels=np.where(np.arange(60) < 8, mine.labels, None))
    seen = table("other columns", 60, 0, keys, columns="wxyz")
    target = Encoded(mine)
    (given,) = shared(Source(seen), target, task_of(target, [np.arange(8)]))
    assert given.name == "rows seen by other columns" and given.memberships.shape == (1, 52, 2)
    right = given.memberships[0].argmax(1) == np.arange(60)[8:] % 2
    assert right.mean() > 0.8


def test_a_learner_is_one_file(target, task, tmp_path, monkeypatch):
    (tmp_path / "constant.py").write_text(
        "import numpy as np\nfrom transmeter.learners.task import Member\nNEEDS_SOURCE = False\n\n\n"
        "def members(task, source):\n"
        "    shape = (len(task.weights), 1, task.x.shape[1] + 1)\n"
        "    return [Member('constant', np.zeros(shape), np.full(len(task.weights), -1.0))]\n"
    )
    monkeypatch.setattr(transmeter.learners, "__path__", [*transmeter.learners.__path__, str(tmp_path)])
    combination.learners.cache_clear()
    try:
        assert "constant" in [m.name for m in combination.target_members(task)]
    finally:
        combination.learners.cache_clear()
