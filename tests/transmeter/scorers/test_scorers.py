"""Checks that every file of transmeter/scorers must pass; adding a scorer adds its tests."""

import atexit
import inspect
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats

from transmeter.batch.spec import FIXED
from transmeter.network.source import Source
from transmeter.scorers import SHARED, alignment, needs, scorers
from transmeter.scorers.logme import log_evidence
from transmeter.tables import data

ON_VIEWS = ("gbc", "hscore", "knn", "leep", "logme", "nce", "transrate")
FAST = {
    **{name: {"steps": 20} for name in (*ON_VIEWS, "cls", "otdd")},
    "transmeter": {"repeats": 2},
    "short_finetune": {"repeats": 8, "steps": 5},
}
STATIC = {"shared_columns", "source_accuracy", "source_size"}  # look at no row of the target
COUNTS_DIRECTIONS = {"transrate"}  # with few rows a source that spreads them over more directions wins, noise or not
# How far a score may move when rows and columns are permuted, as a share of how far it moves when the labels are drawn
# at random: training draws other rows first, and its fresh layers meet the columns in another order.
SHARE = {**dict.fromkeys(ON_VIEWS, 0.15), "gbc": 0.04, "alignment": 1e-3, "cls": 1e-6, "otdd": 1e-6}
APART = {"gbc": 0.6}  # of the classes, where those of the fixture would be too far apart for a score that is not 0
# gains in percentage points: options with which they are 21 to 32, and by how much permutations may move them: twice
# what five moved them at most (3.1 and 2.6)
TRAINED = {
    "transmeter": ({"repeats": 12, "shots": 1}, 6.0),
    "short_finetune": ({"repeats": 60, "steps": 5, "shots": 1}, 5.0),
}
CACHE = Path(tempfile.mkdtemp())  # classifiers of sources are trained once for all scorers
atexit.register(shutil.rmtree, CACHE, True)
every_scorer = pytest.mark.parametrize("name", scorers())


def run(name, sources, target, seed=0, options=None):
    """Values of a scorer for tables."""
    found = scorers()[name]([Source(t, CACHE) for t in sources], target, seed=seed, **options or FAST.get(name, {}))
    return np.array([s.value for s in found])


def in_range(name, values, classes):
    """Whether scores for a target of so many classes are where their files say that they are; no value is NaN."""
    ranges = {
        **dict.fromkeys(("knn", "cls", "shared_columns"), (0, 1)),
        **dict.fromkeys(("transmeter", "short_finetune"), (-100, 100)),
        "alignment": (1e-6, 1e6),
        "gbc": (-classes * (classes - 1), 0),
        "hscore": (0, classes - 1),
        "leep": (-5, 0),
        "logme": (-3, 3),
        "nce": (-np.log(classes), 0),
        "otdd": (-1000, 0),
        "source_accuracy": (-0.3, 1),
        "source_size": (np.log(2), np.log(1000)),
        "transrate": (0, 50),
    }
    low, high = ranges.get(name, (-1e300, 1e300))  # a new scorer need not be named here
    return bool(((values >= low - 1e-9) & (values <= high + 1e-9)).all())


def make(name, n=80, d=4, classes=2, noise=0.5, seed=0, columns=None, names=None, apart=1.0):
    """A table whose classes lie apart along the first columns."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, d))
    x[:, 0] += 3 * apart * y
    x[:, 1] -= 2 * apart * y
    y = np.where(rng.random(n) < noise, rng.permutation(y), y) if noise else y
    frame = pd.DataFrame(x, columns=columns or [f"c{i}" for i in range(d)])
    return data.table(name, frame, np.array([(names or "abcdefghij")[i] for i in y], dtype=object))


@pytest.fixture(scope="module")
def target():
    """80 rows, two classes."""
    return make("target", noise=0.1, seed=1)


@every_scorer
def test_what_a_scorer_declares_is_what_it_takes(name):
    options = set(inspect.signature(scorers()[name]).parameters) - {"sources", "target"}
    declared = needs(name)
    assert {"seed", *declared.settings} == options & set(SHARED)
    assert declared.compares == ("independent" in options) and set(declared.machine_options) <= options & set(FIXED)


@every_scorer
def test_a_classifier_is_trained_only_where_it_is_declared(name, target, monkeypatch):
    if needs(name).classifier:
        pytest.skip("it needs one")
    monkeypatch.setattr("transmeter.network.source.fit_source", lambda *_: pytest.fail("a classifier is trained"))
    assert scorers()[name]([Source(make("s1", noise=0.1, seed=2))], target)


@every_scorer
def test_finite_reproducible_and_leaves_everything_alone(name, target):
    sources = [make("s1", noise=0.1, seed=2), make("s2", n=120, noise=0.9, seed=3)]
    before = [t.features.copy() for t in (*sources, target)]
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = run(name, sources, target)
    assert first.shape == (2,) and in_range(name, first, 2)
    np.testing.assert_array_equal(first, run(name, sources, target))
    assert torch.equal(state[0], torch.get_rng_state()) and (state[1] == np.random.get_state()[1]).all()
    for table, old in zip((*sources, target), before):
        pd.testing.assert_frame_equal(table.features, old)


@every_scorer
def test_a_score_does_not_depend_on_the_company(name, target):
    sources = [make("s1", noise=0.1, seed=2), make("s2", n=120, d=6, noise=0.9, seed=3)]
    together, alone = run(name, sources, target), [run(name, [s], target)[0] for s in sources]
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=2.0 if name == "transmeter" else 1e-9)


@every_scorer
def test_class_names_mean_nothing(name, target):
    sources = [make("s1", noise=0.1, seed=2)]
    renamed = [make("s1", noise=0.1, seed=2, names="xy")]
    target_renamed = make("target", noise=0.1, seed=1, names="xy")
    first = run(name, sources, target)
    np.testing.assert_allclose(run(name, renamed, target_renamed), first, rtol=1e-6)


def permuted(name):
    """The score, that of permuted rows and columns, and by how much it may have moved."""
    options, tolerance = TRAINED.get(name, (None, None))
    d, n, apart = (12, 200, 0.7) if options else (4, 120 if name in APART else 80, APART.get(name, 1.0))
    noise = 0.0 if options else 0.1
    sources = [make("s1", n=400 if options else 80, d=d, noise=noise, seed=2, apart=apart)]
    target = make("target", n=n, d=d, noise=noise, seed=1, apart=apart)
    order = np.random.default_rng(0)
    shuffled = target.take(order.permutation(n))
    shuffled = data.table("target", shuffled.features[order.permutation(target.features.columns)], shuffled.labels)
    first, moved = (run(name, sources, t, options=options) for t in (target, shuffled))
    if tolerance is None:
        chance = run(name, sources, make("target", n=n, noise=1.0, seed=1, apart=apart))
        tolerance = max(SHARE.get(name, 0) * abs(float((first - chance)[0])), 1e-6 * abs(float(first[0])))
    return first, moved, tolerance


@every_scorer
def test_order_of_rows_and_columns_means_nothing_and_half_of_a_score_would_be_noticed(name):
    first, moved, tolerance = permuted(name)
    np.testing.assert_allclose(moved, first, rtol=0, atol=tolerance)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(moved / 2, first, rtol=0, atol=tolerance)


@every_scorer
def test_informative_beats_noise(name):
    if name in STATIC:
        pytest.skip("a static scorer looks at no content")
    if name in COUNTS_DIRECTIONS:
        pytest.skip("needs many more rows than features: its pure function is checked in test_rivals.py")
    target = make("target", n=60, noise=0.3, seed=1)  # some labels wrong, so that no score reaches its limit
    good = make("good", n=200, noise=0.0, seed=2)
    rng = np.random.default_rng(5)
    noise = data.from_arrays("noise", rng.normal(size=(200, 4)), np.arange(200) % 2)
    noise = data.table("noise", noise.features.set_axis(good.columns, axis=1) * 3 + 2, np.array(list("ab") * 100))
    values = scorers()[name](
        [Source(good), Source(noise)],
        data.table("t", target.features, np.where(np.arange(60) < 16, target.labels, None)),
        **FAST.get(name, {}),
    )
    assert values[0].value > values[1].value


@every_scorer
def test_other_widths_and_other_label_sets(name, target):
    other = make("other", d=7, classes=4, noise=0.1, columns=[f"z{i}" for i in range(7)], names="pqrs")
    if needs(name).shared_columns:
        with pytest.raises(ValueError, match="shares no"):
            run(name, [other], target)
    else:
        assert in_range(name, run(name, [other], target), 2)
    fewer = make("fewer", d=3, classes=2, noise=0.1)
    assert in_range(name, run(name, [fewer], make("three", d=5, classes=3, noise=0.1, n=90)), 3)


@every_scorer
def test_missing_cells_and_unlabelled_rows(name, heart):
    va = heart["va"]
    partly = data.table("va", va.features, np.where(np.arange(len(va)) % 3 == 0, va.labels, None))
    assert in_range(name, run(name, [heart["hungarian"], heart["switzerland"]], partly), len(va.classes))


@every_scorer
def test_too_few_rows_of_a_class_are_refused_or_do_not_matter(name):
    lonely = data.table("t", pd.DataFrame({"c0": range(9)}), np.array(list("aaaaaaaab")))
    if needs(name).labelled_rows <= 1:
        assert in_range(name, run(name, [make("s", seed=2)], lonely), 2)
    else:
        with pytest.raises(ValueError, match="class 'b' of t has 1 labelled row: at least"):
            run(name, [make("s", seed=2)], lonely)


def hard(n=120, d=100, classes=10, seed=0):
    """Features with a decaying spectrum, on which a known LogME implementation fails after renaming labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ np.diag(0.9 ** np.arange(d)) @ rng.normal(size=(d, d))
    return x, rng.integers(0, classes, n)


def evidence_by_density(x, y):
    """The same maximum by the multivariate normal density of y and a general optimiser."""

    def negative(logs):
        alpha, beta = np.exp(logs)
        covariance = x @ x.T / alpha + np.eye(len(y)) / beta
        return -stats.multivariate_normal(np.zeros(len(y)), covariance, allow_singular=True).logpdf(y) / len(y)

    starts = [np.log([a, 1.0]) for a in (1.0, 100.0)]
    return -min(
        optimize.minimize(negative, s, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun
        for s in starts
    )


def test_logme_agrees_with_an_independent_computation():
    x, y = hard(n=60, d=20, classes=3)
    expected = np.mean([evidence_by_density(x, (y == c).astype(float)) for c in range(3)])
    assert log_evidence(x, y) == pytest.approx(expected, abs=1e-5)


def test_logme_does_not_move_when_labels_are_renamed():
    x, y = hard()
    assert log_evidence(x, 9 - y) == pytest.approx(log_evidence(x, y), abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logme_refuses_values_that_are_not_finite(bad):
    x, y = hard()
    x[3, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        log_evidence(x, y)
    with pytest.raises(ValueError, match="one class"):
        log_evidence(hard()[0], np.zeros(120, dtype=int))


def clouds(columns: int) -> tuple[alignment.Points, alignment.Points]:
    """A source of 120 rows and a target of 90, in the spaces "a" and "b"."""
    rng = np.random.default_rng(0)
    spaces = [
        {space: shift + rng.normal(size=(rows, d)).astype("f4") for space, d in (("a", columns), ("b", 1))}
        for rows, shift in ((120, 0.0), (90, 0.5))
    ]
    return alignment.Points(spaces[0], rng.integers(0, 2, 120)), alignment.Points(
        spaces[1], (np.arange(90) % 5 > 0).astype(int)
    )


def as_table(name: str, points: alignment.Points) -> data.Table:
    columns = [f"{space}::{i}" for space, x in points.spaces.items() for i in range(x.shape[1])]
    return data.from_arrays(name, np.concatenate(list(points.spaces.values()), 1), points.labels, columns)


def test_closeness_of_arrays_is_the_score_of_the_same_as_tables():
    source, target = clouds(7)
    source.spaces["a"][3] = 99.0  # beyond 10 standard deviations
    found = alignment.closeness(source, target)
    each = alignment.terms(as_table("s", source), as_table("t", target), ("mean_distance", "uncovered"))
    assert found.score == pytest.approx(np.exp(-np.mean(np.log(list(each.values())))), rel=1e-5)
    with pytest.raises(ValueError, match="shares no class"):
        alignment.closeness(alignment.Points(source.spaces, source.labels + 2), target)


def test_a_class_counts_by_its_share_of_the_target():
    rng, x = np.random.default_rng(0), np.zeros((1010, 1), "f4")
    x[:1000] = rng.normal(size=(1000, 1))
    labels = np.repeat([0, 1], [1000, 10])  # a class of one row in a hundred, of which the source has two rows far off
    target = alignment.Points({"a": x}, labels)
    rare = alignment.Points({"a": np.concatenate([x[:500], [[5.0], [5.0]]]).astype("f4")}, np.repeat([0, 1], [500, 2]))
    common = alignment.Points({"a": x[:500] + 1}, np.zeros(500, int))
    scores = [alignment.closeness(one, target).score for one in (rare, common)]
    terms = alignment.terms(as_table("rare", rare), as_table("t", target), ("mean_distance",))
    unit = 5 / np.std(x)
    assert terms["a", "mean_distance"] == pytest.approx(
        (1000 * (1 / 500 + 1 / 1000 + (x[:500].mean() - x[:1000].mean()) ** 2 / np.var(x)) + 10 * (0.6 + unit**2))
        / 1010,
        rel=1e-3,
    )
    assert scores[0] > scores[1]


def test_influence_is_what_leaving_a_row_out_changes():
    source, target = clouds(2)
    found = alignment.closeness(source, target)
    changes = []
    for i in range(40):
        rows = np.delete(np.arange(120), i)
        less = alignment.Points({space: x[rows] for space, x in source.spaces.items()}, source.labels[rows])
        changes.append(np.log(found.score / alignment.closeness(less, target).score))
    assert np.allclose(found.source[:40], changes, atol=0.1 * np.abs(changes).max())


def weighted_log_score(source: alignment.Points, target: alignment.Points, weights: list[np.ndarray]) -> float:
    """Of rows that count by their weights, by the definition in double precision; units and floor of weights of 1."""
    logs = []
    for space in target.spaces:
        x_s, x_t = (p.measured_by(target, space)[0].double().numpy() for p in (source, target))
        means, counts, moments = [], [], []
        for x, points, w in zip((x_s, x_t), (source, target), weights):
            each = [w * (points.labels == c) for c in (0, 1)]
            means.append([q @ x / q.sum() for q in each])
            counts.append([q.sum() for q in each])
            moments.append((x * w[:, None]).T @ x / w.sum())
        d = len(moments[1])
        apart = np.square(np.subtract(*means)).sum(1) / d + [1 / a + 1 / b for a, b in zip(*counts)]
        logs.append(np.log(np.average(apart, weights=counts[1])))
        floor = 0.1 * np.trace(x_t.T @ x_t / len(x_t)) / d * np.eye(d)
        logs.append(np.log(np.trace(np.linalg.solve(moments[0] + floor, moments[1])) / d))
    return -float(np.mean(logs))


def test_influence_is_the_derivative_of_the_definition_by_the_weight_of_a_row():
    source, target = clouds(5)
    found, step = alignment.closeness(source, target), 1e-5
    for side, own in enumerate((found.source, found.target)):
        for row in range(0, len(own), 17):
            ends = []
            for change in (step, -step):
                weights = [np.ones(120), np.ones(90)]
                weights[side][row] += change
                ends.append(weighted_log_score(source, target, weights))
            assert own[row] == pytest.approx((ends[0] - ends[1]) / 2 / step, rel=1e-4, abs=1e-6)
