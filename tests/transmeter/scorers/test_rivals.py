"""The pure functions of the rival scorers against independent computations, and what each scorer promises alone."""

import itertools

import numpy as np
import ot
import pytest
from scipy import linalg, optimize, stats
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from tests.transmeter.scorers.test_scorers import hard, make
from transmeter.network.source import Source
from transmeter.network.views import pairs
from transmeter.scorers import cls, otdd, short_finetune, source_accuracy, transmeter
from transmeter.scorers.gbc import gbc
from transmeter.scorers.hscore import h_score
from transmeter.scorers.knn import knn
from transmeter.scorers.leep import leep
from transmeter.scorers.logme import log_evidence
from transmeter.scorers.nce import nce
from transmeter.scorers.transrate import trans_rate
from transmeter.tables import data
from transmeter.tables.labels import one_hot

ON_FEATURES = (log_evidence, h_score, trans_rate, gbc, knn)


def outputs(n=120, classes=7, seed=1):
    """Probabilities of a source classifier that is sure of some rows."""
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.2), n)


def h_score_by_inverse(x, y):
    fitted = LedoitWolf().fit(x)
    means = np.stack([x[y == c].mean(0) for c in y])  # (n, d), the class mean of every row
    return np.trace(np.linalg.inv(fitted.covariance_) @ np.cov(means, rowvar=False)) * (1 - fitted.shrinkage_)


def trans_rate_by_eigenvalues(x, y, distortion=1e-4):
    def rate(z):
        return 0.5 * sum(np.log1p(s**2 / len(z) / distortion) for s in linalg.svdvals(z))

    x = x - x.mean(0)
    return rate(x) - np.mean([rate(x[y == c]) for c in np.unique(y)])


def gbc_by_loops(x, y):
    total = 0.0
    for a, b in itertools.permutations(np.unique(y), 2):
        (mean_a, v_a), (mean_b, v_b) = ((x[y == c].mean(0), x[y == c].var(0).mean()) for c in (a, b))
        middle = (v_a + v_b) / 2 * np.eye(x.shape[1])
        distance = (mean_a - mean_b) @ linalg.inv(middle) @ (mean_a - mean_b) / 8
        logs = [np.linalg.slogdet(m)[1] for m in (middle, v_a * np.eye(len(middle)), v_b * np.eye(len(middle)))]
        total -= np.exp(-distance - 0.5 * (logs[0] - (logs[1] + logs[2]) / 2))
    return total


def knn_by_loops(x, y, k=5):
    right = {c: [] for c in np.unique(y)}
    for i in range(len(x)):
        near = [j for j in np.argsort([np.inf if i == j else ((x[i] - x[j]) ** 2).sum() for j in range(len(x))])][:k]
        votes = [y[j] for j in near]
        most = max(votes.count(c) for c in votes)
        # of the classes with most votes the one whose nearest row comes first
        winner = next(c for c in votes if votes.count(c) == most)
        right[y[i]].append(winner == y[i])
    return np.mean([np.mean(r) for r in right.values()])


def leep_by_loops(p, y):
    n, found = len(p), 0.0
    for i in range(n):
        likely = 0.0
        for z in range(p.shape[1]):
            joint = sum(p[j, z] for j in range(n) if y[j] == y[i]) / n
            likely += joint / (p[:, z].sum() / n) * p[i, z]
        found += np.log(likely) / n
    return found


def nce_by_entropies(z, y):
    def entropy(values):
        return stats.entropy(np.unique(values, return_counts=True)[1])

    return entropy(z) - entropy(1000 * z + y)  # H(z) - H(z, y) = -H(y | z)


ORACLES = {
    h_score: h_score_by_inverse,
    trans_rate: trans_rate_by_eigenvalues,
    gbc: gbc_by_loops,
    knn: knn_by_loops,
}


@pytest.mark.parametrize("measure", ORACLES)
@pytest.mark.parametrize("n, d, classes", [(120, 100, 10), (60, 20, 3), (40, 90, 2), (300, 12, 4)])
def test_measures_of_features_agree_with_an_independent_computation(measure, n, d, classes):
    x, y = hard(n, d, classes)
    y = 3 * y + 1  # numbers with gaps will do
    assert measure(x, y) == pytest.approx(ORACLES[measure](x, y), rel=1e-5, abs=1e-5)
    assert measure(x + 7, y) == pytest.approx(measure(x, y), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 10])
def test_measures_of_outputs_agree_with_an_independent_computation(classes):
    p, y = outputs(), hard(classes=classes)[1]
    assert leep(p, y) == pytest.approx(leep_by_loops(p, y), abs=1e-10)
    assert nce(p.argmax(1), y) == pytest.approx(nce_by_entropies(p.argmax(1), y), abs=1e-10)
    silent = np.insert(p, 2, 0.0, axis=1)  # a source class that is never predicted adds nothing
    assert leep(silent, y) == pytest.approx(leep(p, y))
    assert nce(p.argmax(1) * 2, y) == pytest.approx(nce(p.argmax(1), y))


def test_perfect_and_useless_outputs_reach_the_ends_of_the_range():
    y = np.arange(30) % 3
    sure = np.eye(3)[y]
    entropy = -np.log(3)
    assert leep(sure, 2 - y) == pytest.approx(0) and nce(y, 2 - y) == pytest.approx(0)
    assert leep(np.full((30, 4), 0.25), y) == pytest.approx(entropy) and nce(0 * y, y) == pytest.approx(entropy)


@pytest.mark.parametrize("measure", ON_FEATURES)
def test_renaming_labels_moves_nothing(measure):
    x, y = hard()
    for renamed in (9 - y, np.random.default_rng(0).permutation(10)[y]):
        assert measure(x, renamed) == pytest.approx(measure(x, y), rel=1e-9)
        assert leep(outputs(), renamed) == pytest.approx(leep(outputs(), y), rel=1e-12)
        assert nce(y % 4, renamed) == pytest.approx(nce(y % 4, y), rel=1e-12)


@pytest.mark.parametrize("measure", ON_FEATURES)
def test_informative_features_beat_noise(measure):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    noise = rng.normal(size=(200, 8))
    good = noise.copy()
    good[:, :4] += 3 * np.eye(4)[y]
    assert measure(good, y) > measure(noise, y)
    assert measure(np.zeros((200, 8)), y) < measure(good, y)  # and features that tell nothing are no error


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_values_are_refused(bad):
    x, y = hard()
    for measure in (*ON_FEATURES, leep):
        with pytest.raises(ValueError, match="one class only"):
            measure(abs(x), 0 * y)
        broken = abs(x)
        broken[3, 3] = bad
        with pytest.raises(ValueError, match="not finite"):
            measure(broken, y)
    with pytest.raises(ValueError, match="not finite"):
        otdd.distance(broken, y, x, y)
    with pytest.raises(ValueError, match="one class only"):
        nce(y, 0 * y)


def test_options_out_of_range_are_refused():
    x, y = hard()
    for call, message in (
        (lambda: leep(x, y), "no probabilities"),
        (lambda: leep(0 * x, y), "no probabilities"),
        (lambda: knn(x, y, 0), "k 0 is too few"),
        (lambda: trans_rate(x, y, 0.0), "distortion 0.0 is too small"),
        (lambda: otdd.distance(x, y, x, y, -1.0), "entropy -1.0 is too small"),
        (lambda: short_finetune.score([], make("t"), seconds=0.0), "seconds 0.0 is not a budget"),
        (lambda: short_finetune.score([], make("t"), metric="f1"), "metric 'f1' is unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_one_hot_has_a_column_for_every_class_that_occurs():
    np.testing.assert_array_equal(one_hot(np.zeros(3), np.array([5, 2, 5])), [[0, 1], [1, 0], [0, 1]])


def test_otdd_agrees_with_an_independent_computation():
    (x, y), (x2, y2) = hard(40, 6, 3), hard(55, 6, 2, seed=1)
    cost = np.zeros((40, 55))
    for i, j in itertools.product(range(40), range(55)):
        a, b = x[y == y[i]], x2[y2 == y2[j]]
        c_a, c_b = np.cov(a, rowvar=False, bias=True), np.cov(b, rowvar=False, bias=True)
        root = linalg.sqrtm(c_a).real
        trace = np.trace(c_a + c_b - 2 * linalg.sqrtm(root @ c_b @ root).real)
        cost[i, j] = ((x[i] - x2[j]) ** 2).sum() + ((a.mean(0) - b.mean(0)) ** 2).sum() + trace
    cells = np.arange(cost.size).reshape(cost.shape)  # the linear program itself: all marginals given
    sides = np.zeros((95, cost.size))
    for i in range(40):
        sides[i, cells[i]] = 1
    for j in range(55):
        sides[40 + j, cells[:, j]] = 1
    solved = optimize.linprog(cost.ravel(), A_eq=sides, b_eq=np.r_[np.full(40, 1 / 40), np.full(55, 1 / 55)])
    exact = otdd.distance(x, y, x2, y2)
    assert exact == pytest.approx(solved.fun**0.5, rel=1e-5)
    assert otdd.distance(x2, y2, x, y) == pytest.approx(exact, rel=1e-9)
    assert exact <= otdd.distance(x, y, x2, y2, entropy=0.01) < 1.2 * exact
    mean = [(g[y == 0].mean(0), np.cov(g[y == 0], rowvar=False, bias=True)) for g in (x, -2 * x)]
    expected = ot.gaussian.bures_wasserstein_distance(mean[0][0], mean[1][0], mean[0][1], mean[1][1]) ** 2
    (here, _), (there, _) = otdd._gaussians(x, y), otdd._gaussians(-2 * x, y)
    assert otdd._bures_wasserstein(here[0], there[0]) == pytest.approx(expected, rel=1e-6)


def test_otdd_to_itself_is_zero_whatever_the_labels_are_called(heart):
    x, y = hard()
    assert otdd.distance(x, y, x, y) == pytest.approx(0, abs=1e-5)
    assert otdd.distance(x, 9 - y, x, y) == pytest.approx(0, abs=1e-5)
    found = otdd.score([Source(heart[n]) for n in ("va", "hungarian", "cleveland")], heart["va"])
    assert found[0].value == pytest.approx(0, abs=1e-5) and max(s.value for s in found[1:]) < -0.1


def test_cross_learning_is_high_for_one_rule_low_for_the_opposite_and_chance_for_noise():
    rng = np.random.default_rng(0)
    x, x2 = rng.normal(size=(300, 5)), rng.normal(size=(200, 5)) + 0.2
    y, y2 = (x[:, 0] > 0).astype(int), (x2[:, 0] > 0).astype(int)
    there = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x, y).predict(x2)
    back = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x2, y2).predict(x)
    expected = (balanced_accuracy_score(y2, there) + balanced_accuracy_score(y, back)) / 2
    assert cls.cross_learning(x, y, x2, y2) == pytest.approx(expected, abs=1e-12) and expected > 0.9
    assert cls.cross_learning(x, y, x2, 1 - y2) < 0.1
    coins = [cls.cross_learning(x, y, x2, rng.permutation(y2)) for _ in range(20)]
    assert np.mean(coins) == pytest.approx(0.5, abs=0.1)


def test_cross_learning_matches_classes_by_place_where_names_differ():
    same, other = make("s", noise=0.0, seed=2), make("s", noise=0.0, seed=2, names="xy")
    target = make("t", noise=0.0, seed=1)
    values = [cls.score([Source(s)], target)[0].value for s in (same, other)]
    assert values[0] == pytest.approx(values[1]) and values[0] > 0.9


def test_pairs_take_the_shared_columns_or_else_the_learned_representation():
    target = make("t", d=4, seed=1)
    shared, strange = make("s", n=90, d=6, seed=2), make("z", n=90, d=3, seed=3, columns=["p", "q", "r"])
    both = pairs([Source(shared), Source(strange)], target, seed=0, steps=5, rows=70)
    assert [len(p) for p in both] == [1, 2]
    assert both[0][0].x_s.shape == both[0][0].x_t.shape == (70, 4)
    assert both[1][0].x_s.shape[1] == both[1][0].x_t.shape[1] and len(both[1][0].x_s) == 70
    assert sum(len(p.x_t) for p in both[1]) == 70 and all(len(p.codes_t) == len(p.x_t) for p in both[1])


def test_source_accuracy_is_that_of_cross_validation_and_needs_no_target():
    clean, coin = make("clean", n=200, noise=0.0), make("coin", n=200, noise=1.0)
    rare = data.table("rare", clean.features, np.r_[["z"], clean.labels[1:]])
    values = [s.value for s in source_accuracy.score([Source(t) for t in (clean, coin, rare)], None)]
    assert values[0] > 0.85 and abs(values[1]) < 0.2 and values[2] == pytest.approx(values[0], abs=0.1)
    lonely = data.table("lonely", clean.features, np.array(["a"] * 199 + ["b"], dtype=object))
    with pytest.raises(ValueError, match="lonely has fewer than two classes"):
        source_accuracy.score([Source(lonely)], None)


def test_short_finetune_measures_what_plain_transfer_gains():
    """The estimate without terms sees the same: other draws of fresh layers, the same splits."""
    target, source = make("t", n=200, noise=0.2, seed=1), Source(make("s", n=300, noise=0.0, seed=2))
    options = {"shots": 3, "repeats": 20, "steps": 30}
    terms = dict.fromkeys(("source_loss", "reconstruction", "discriminator", "mean_distance"), 0.0)
    gain = short_finetune.score([source], target, **options)[0]
    assert gain.outcome is None and gain.value > 0
    other = transmeter.score([source], target, learner="network", **options, **terms)[0]
    assert gain.value == pytest.approx(100 * np.nanmean(np.nanmean(other.outcome.difference, 1)), abs=4)


def test_short_finetune_keeps_to_its_budget(monkeypatch):
    seconds, rounds = itertools.count(), []
    monkeypatch.setattr(short_finetune.time, "perf_counter", lambda: next(seconds))  # a second passes a round
    monkeypatch.setattr(short_finetune, "_gain", lambda source, *_: rounds.append(source) or 1.0)
    sources = [Source(make(f"s{i}", seed=i)) for i in range(2)]
    assert len(short_finetune.score(sources, make("t"), repeats=1000, seconds=3.5)) == 2
    assert rounds == 4 * sources
    rounds.clear()
    assert len(short_finetune.score(sources, make("t"), repeats=2, seconds=1e-9)) == 2
    assert rounds == sources  # one round at least
