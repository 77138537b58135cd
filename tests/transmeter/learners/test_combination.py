"""The combination: its weights, what it falls back on, and that a learner is one file."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import transmeter.learners
from tests.transmeter.learners.problems import table
from transmeter.checks import unusable_lines
from transmeter.learners import combination
from transmeter.learners.combination import NO_WEIGHT, TARGET_PRIOR, TEMPER, Part
from transmeter.learners.member import LinearMember, evidence
from transmeter.learners.task import shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.tables.prepare import prepare

SPLITS = [np.arange(8), np.arange(8, 16)]
REST = np.arange(16, 60)


@dataclass
class Certain:
    """A member that gives the second class the same probability everywhere."""

    name: str
    evidence: np.ndarray
    chance: float

    def probabilities(self, x):
        """(splits, n, 2)."""
        return np.tile([1 - self.chance, self.chance], (len(self.evidence), len(x), 1))


@pytest.fixture(scope="module")
def target():
    """60 rows."""
    return Encoded(table("target", 60, 0))


@pytest.fixture(scope="module")
def task(target):
    """Two splits of eight rows."""
    return task_of(target, SPLITS, 0)


@pytest.fixture(scope="module")
def good():
    """A source that helps."""
    return table("good", 200, 1)


def learn(target, *tables):
    """What the target alone gives, and each of the tables, as one part each."""
    alone, given = combination.learn(target, [Source(t) for t in tables], SPLITS, REST, 0)
    return combination.average(list(alone.values())), [combination.average(list(g.values())) for g in given]


def right(target, part):
    """Mean probability of the right class."""
    return part.probabilities[:, np.arange(len(REST)), target.table.codes[REST]].mean()


def test_members_count_by_the_root_of_their_likelihood_and_those_of_the_target_by_their_prior(task):
    evidences = np.array([[-4.0, -1.0], [-3.0, -1.0], [-5.0, -9.0]])
    chances = np.array([0.9, 0.2, 0.6])
    alone, one, two = (Certain("m", e, c) for e, c in zip(evidences, chances))
    x = np.zeros((3, 4))
    first = combination.predict([alone], TARGET_PRIOR, task, x)
    second = combination.predict([one, two], 1.0, task, x)
    weights = np.array([TARGET_PRIOR, 1.0, 1.0])[:, None] * np.exp(TEMPER * evidences)
    both = combination.average([first, second])
    expected = (weights * chances[:, None]).sum(0) / weights.sum(0)
    np.testing.assert_allclose(both.probabilities[:, :, 1], np.tile(expected[:, None], (1, 3)), rtol=1e-6)
    np.testing.assert_allclose(both.log_weight, np.log(weights.sum(0)))
    assert TEMPER == 0.5 and TARGET_PRIOR > 1


@pytest.mark.parametrize("rows, exponent", [(8, 0.5), (40, 0.5), (160, 0.25)])
def test_the_likelihood_of_many_rows_is_tempered_by_their_root(rows, exponent):
    many = Encoded(table("many", rows, 0))
    task = task_of(many, [np.arange(rows)], 0)
    members = [Certain("m", np.array([value]), 0.5) for value in (-3.0, -1.0)]
    found = combination.log_weights(members, TARGET_PRIOR, task)[:, 0]
    np.testing.assert_allclose(found, exponent * np.array([-3.0, -1.0]) + np.log(TARGET_PRIOR))


def test_an_average_of_averages_is_that_of_all_members(task, target, good):
    given = shared(Source(good), target, task)
    members = [m for found in combination.source_members(task, given).values() for m in found]
    x = task.x[:5]
    whole = combination.predict(members, 1.0, task, x)
    parts = combination.average([combination.predict(members[i : i + 3], 1.0, task, x) for i in range(0, 12, 3)])
    assert len(members) == 12
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-6)
    np.testing.assert_allclose(parts.log_weight, whole.log_weight)


def test_splits_are_chained_and_cut():
    parts = [Part(np.full(n, float(n)), np.full((n, 3, 2), n / 10)) for n in (2, 3)]
    chained = combination.chain(*parts)
    assert chained.log_weight.tolist() == [2, 2, 3, 3, 3] and chained.probabilities.shape == (5, 3, 2)
    cut = chained.first(2)
    assert (cut.log_weight == parts[0].log_weight).all() and (cut.probabilities == parts[0].probabilities).all()


def test_a_helpful_source_makes_the_right_class_likelier_and_probabilities_sum_to_one(target, good):
    alone, (given,) = learn(target, good)
    both = combination.average([alone, given])
    for part in (alone, given, both):
        assert part.probabilities.shape == (2, 44, 2) and part.log_weight.shape == (2,)
        np.testing.assert_allclose(part.probabilities.sum(2), 1, atol=1e-6)
    assert right(target, both) > right(target, alone) + 0.03


def test_a_source_with_nothing_in_common_changes_nothing(target, task, good):
    strange = table("strange", 50, 2, columns="wxyz")
    members = combination.source_members(task, shared(Source(strange), target, task))
    assert list(members) == ["pooled_estimator", "pooled_linear", "source_forest", "source_linear"] and not any(
        members.values()
    )
    alone, (nothing, given) = learn(target, strange, good)
    assert (nothing.log_weight < NO_WEIGHT / 2).all() and np.allclose(nothing.probabilities, 0.5)
    assert (combination.average([alone, nothing]).probabilities == alone.probabilities).all()
    both = combination.average([alone, given])
    with_nothing = combination.average([alone, nothing, given])
    np.testing.assert_allclose(with_nothing.probabilities, both.probabilities, rtol=0, atol=1e-6)


def test_labels_that_are_inverted_count_for_little(target, good):
    turned = replace(good, labels=np.where(good.labels == "yes", "no", "yes").astype(object))
    alone, given = learn(target, good, turned)
    by_source = [np.exp(part.log_weight - np.logaddexp(part.log_weight, alone.log_weight)) for part in given]
    assert by_source[0].mean() > 0.6 > by_source[1].mean()
    both = combination.average([alone, given[1]])
    assert right(target, both) > right(target, given[1]) + 0.1


def test_one_more_source_costs_no_other_fit_and_order_does_not_matter(target, good):
    other = table("other", 100, 4)
    alone, (one, two) = learn(target, good, other)
    again, (second, first) = learn(target, other, good)
    for part, same in ((alone, again), (one, first), (two, second)):
        assert (part.probabilities == same.probabilities).all() and (part.log_weight == same.log_weight).all()


def test_a_source_labels_the_unlabelled_rows_that_it_has_seen():
    keys = [f"k{i}" for i in range(60)]
    mine = table("target", 60, 0, keys)
    mine = replace(mine, labels=np.where(np.arange(60) < 8, mine.labels, None))
    seen = table("other columns", 60, 0, keys, columns="wxyz")
    target = Encoded(mine)
    (given,) = shared(Source(seen), target, task_of(target, [np.arange(8)], 0))
    assert given.name == "rows seen by other columns" and given.memberships.shape == (1, 52, 2)
    likeliest = given.memberships[0].argmax(1) == np.arange(60)[8:] % 2
    assert likeliest.mean() > 0.8


def test_evidence_counts_classes_alike_and_no_row_more_than_a_hundredth(target):
    rows = np.array([1, 3, 5, 7, 9, 11, 0, 2])  # six of the second class, two of the first
    task = task_of(target, [rows], 0)
    of_first = np.zeros((1, 8, 2))
    of_first[..., 0] = 1.0
    of_second = of_first[..., ::-1]
    np.testing.assert_allclose(evidence(task, of_first), 4 * np.log(0.01))
    np.testing.assert_allclose(evidence(task, of_second), 4 * np.log(0.01))
    np.testing.assert_allclose(evidence(task, np.full((1, 8, 2), 0.5)), 8 * np.log(0.5))


def test_the_evidence_of_a_linear_member_is_that_of_fits_without_the_row(target):
    task = task_of(target, [np.r_[np.arange(20), 21, 23]], 0)  # 10 rows of one class, 12 of the other
    members = combination.target_members(task)["target_linear"]
    by_hand = np.zeros(len(members))
    for row, (code, weight) in enumerate(zip(task.codes, task.weights[0])):
        rest = replace(task, weights=np.where(np.arange(22) == row, 0.0, task.weights))
        found = combination.target_members(rest)["target_linear"]
        by_hand += [weight * np.log(m.probabilities(task.x[[row]])[0, 0, code]) for m in found]
    for member, log_likelihood in zip(members, by_hand):
        assert member.evidence[0] == pytest.approx(log_likelihood, rel=0.02)


def test_every_learner_of_a_source_has_a_counterpart_without():
    found = combination.learners()
    with_source = ["pooled_estimator", "pooled_linear", "source_forest", "source_linear"]
    assert list(found) == [*with_source, "target_estimator", "target_forest", "target_linear"]
    for module in found.values():
        if module.NEEDS_SOURCE:
            assert not found[module.COUNTERPART].NEEDS_SOURCE


def test_a_learner_is_one_file(target, task, tmp_path, monkeypatch):
    (tmp_path / "constant.py").write_text(
        "import numpy as np\nfrom transmeter.learners.member import LinearMember\nNEEDS_SOURCE = False\n\n\n"
        "def members(task, source):\n"
        "    shape = (len(task.weights), 1, task.x.shape[1] + 1)\n"
        "    return [LinearMember('constant', np.full(len(task.weights), -1.0), np.zeros(shape))]\n"
    )
    monkeypatch.setattr(transmeter.learners, "__path__", [*transmeter.learners.__path__, str(tmp_path)])
    combination.learners.cache_clear()
    try:
        assert isinstance(combination.target_members(task)["constant"][0], LinearMember)
        alone, _ = combination.learn(target, [], SPLITS, REST, 0)
        assert (alone["constant"].probabilities == 0.5).all()
    finally:
        combination.learners.cache_clear()


def test_a_source_of_one_class_in_common_gives_no_member():
    three = table("three", 90, 0)
    three = replace(three, labels=np.array(["a", "b", "c"], dtype=object)[np.arange(90) % 3], classes=("a", "b", "c"))
    part = replace(
        table("part", 90, 1), labels=np.array(["a", "x"], dtype=object)[np.arange(90) % 2], classes=("a", "x")
    )
    target = Encoded(three)
    assert shared(Source(part), target, task_of(target, [np.arange(30)], 0)) == []
    (line,) = unusable_lines(part, three, prepare(three, [part])[2][0])
    assert line.startswith("of its classes only 'a' is one of three: the combination of learners cannot use it")
