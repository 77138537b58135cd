"""An estimator of the user joins the combination, with and without every source."""

import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC

import cli
from tests.transmeter.learners.problems import table
from transmeter import TransferClassifier, TransferRegressor, rank, transfer, validate
from transmeter.gain.transfers import by_combination
from transmeter.learners import pooled_estimator, target_estimator
from transmeter.learners.estimator import folds, text_of, user_estimator
from transmeter.learners.task import shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.tables.splits import Split

TARGET, GOOD = table("target", 60, 0), table("good", 80, 1)
NEIGHBOURS = KNeighborsClassifier(5)


class Brittle(ClassifierMixin, BaseEstimator):
    """Fails where a certain number of rows is trained on."""

    def __init__(self, rows=12):
        self.rows = rows

    def fit(self, X, y):  # noqa: N803
        if self.rows is None or len(y) == self.rows:
            raise RuntimeError("no\nmore")
        self.model_ = LogisticRegression().fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X):  # noqa: N803
        return self.model_.predict_proba(X)


class Unfinished(Brittle):
    def predict_proba(self, X):  # noqa: N803
        return np.full((len(X), 2), np.nan)


def task(learner, parts=(range(12), range(6, 26))):
    return task_of(Encoded(TARGET), [np.array(part) for part in parts], 0, user_estimator(learner, quantity=False))


def test_its_members_are_fits_of_target_rows_and_of_both():
    made = task(LogisticRegression(C=0.5))
    (alone,) = target_estimator.members(made, None)
    (given,) = shared(Source(GOOD), Encoded(TARGET), made)
    pooled = pooled_estimator.members(made, given)
    assert [m.name for m in pooled] == [f"pooled with good, LogisticRegression, in {units}" for units in given.scales]
    x = np.random.default_rng(0).normal(size=(9, 4))
    for split in range(2):
        rows = np.flatnonzero(made.weights[split])
        expected = LogisticRegression(C=0.5).fit(made.x[rows], made.codes[rows], made.weights[split][rows])
        np.testing.assert_allclose(alone.probabilities(x)[split], expected.predict_proba(x), atol=1e-6)
        for member, theirs in zip(pooled, given.scales.values()):
            weights = np.concatenate([made.weights[split][rows], len(rows) * given.weights[split]])
            assert weights[: len(rows)].sum() == pytest.approx(weights[len(rows) :].sum())
            codes = np.concatenate([made.codes[rows], given.memberships[split].argmax(1)])
            expected = LogisticRegression(C=0.5).fit(np.concatenate([made.x[rows], theirs]), codes, weights)
            np.testing.assert_allclose(member.probabilities(x)[split], expected.predict_proba(x), atol=1e-6)


def test_its_evidence_is_of_rows_that_it_has_not_seen():
    made = task(NEIGHBOURS, [range(20)])
    (member,) = target_estimator.members(made, None)
    fold, total = folds(made.codes), 0.0
    for row in range(20):
        model = KNeighborsClassifier(5).fit(made.x[fold != fold[row]], made.codes[fold != fold[row]])
        total += np.log(max(model.predict_proba(made.x[row : row + 1])[0, made.codes[row]], 0.01))
    assert member.evidence[0] == pytest.approx(total)


@pytest.mark.parametrize("codes", [[0], [0, 1], [0, 0, 0, 1, 1, 2], [0] * 40 + [1] * 7])
def test_folds_hold_every_class_alike(codes):
    found = folds(np.array(codes))
    for c in set(codes):
        counts = np.bincount(found[np.array(codes) == c], minlength=min(5, len(codes)))
        assert np.ptp(counts) <= 1


def test_what_fails_on_a_split_is_left_out_there_alone_and_said():
    splits = [Split(np.arange(*ends), np.arange(30, 60), i) for i, ends in enumerate([(0, 12), (6, 26)])]
    estimator = user_estimator(Brittle(), quantity=False)
    with pytest.warns(
        UserWarning, match=r"^Brittle failed on a repeat, where it is left out \(RuntimeError: no more\)$"
    ):
        found = by_combination([Source(GOOD)], Encoded(TARGET), splits, np.arange(60), 0, estimator)
    without = by_combination([Source(GOOD)], Encoded(TARGET), splits, np.arange(60), 0)
    np.testing.assert_allclose(found.alone.probabilities[0], without.alone.probabilities[0], atol=1e-6)
    assert np.abs(found.alone.probabilities[1] - without.alone.probabilities[1]).max() > 1e-3
    assert estimator.notes() == ["Brittle failed on 1 repeat, where it is left out: RuntimeError: no more"]


@pytest.mark.parametrize("broken", [Brittle(None), Unfinished()])
def test_what_always_fails_changes_nothing(broken):
    settings = {"shots": 5, "repeats": 3}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = rank(TARGET, [GOOD], learner=broken, together=True, **settings)
    assert sum("failed on a repeat" in str(w.message) for w in said) == 1
    assert any("repeats, where it is left out" in note for note in found.notes)
    without = rank(TARGET, [GOOD], together=True, **settings)
    assert found.rows[0].gain_pp == pytest.approx(without.rows[0].gain_pp)
    assert set(found.rows[0].over_itself) == set(without.rows[0].over_itself)


def test_a_ranking_a_check_and_a_classifier_use_it(tmp_path):
    settings = {"shots": 5, "repeats": 4}
    text = f"{type(NEIGHBOURS).__module__}.KNeighborsClassifier()"
    found = rank(TARGET, [GOOD], learner=NEIGHBOURS, **settings)
    assert text_of(NEIGHBOURS) == text == found.options["learner"]
    assert {"pooled_estimator", "pooled_linear"} < set(found.rows[0].over_itself)
    again = rank(TARGET, [GOOD], options={"learner": text}, **settings)
    assert again.rows[0].gain_pp == found.rows[0].gain_pp
    plain = rank(TARGET, [GOOD], **settings)
    assert plain.rows[0].gain_pp != found.rows[0].gain_pp and "learner" not in plain.options
    found.save(tmp_path / "ranking.json")
    truth = validate(TARGET, [GOOD], tmp_path / "ranking.json", repeats=3).ground_truth
    assert "KNeighborsClassifier" in truth.baselines
    model = TransferClassifier([GOOD], learner=NEIGHBOURS).fit(TARGET.features, TARGET.labels)
    assert any("KNeighborsClassifier" in name for name in model.members_)
    np.testing.assert_allclose(model.predict_proba(TARGET.features).sum(1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="KNeighborsClassifier.*: not plain arrays, and no pickle is written: leave"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_transfer_keeps_predictions_and_no_model(tmp_path):
    found = transfer(TARGET, [GOOD], learner=NEIGHBOURS, predict=TARGET.features, repeats=2)
    with pytest.warns(UserWarning, match="holds no model: an estimator of the user is not plain arrays"):
        found.save(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"transfer.json", "predictions.csv"}


class Quantities(RegressorMixin, BaseEstimator):
    """The mean of all labels but where it fails."""

    def fit(self, X, y, sample_weight):  # noqa: N803
        self.mean_ = np.average(y, weights=sample_weight)
        return self

    def predict(self, X):  # noqa: N803
        return np.full(len(X), self.mean_)


def test_of_a_quantity_it_is_a_regressor(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(160, 2))
    y = np.where(x[:, 0] * x[:, 1] > 0, 3.0, -3.0) + 0.1 * rng.normal(size=160)
    mine, theirs = (x[:60], y[:60]), (x[60:], y[60:])
    learner = KNeighborsRegressor(3)
    found = rank(mine, [theirs], metric="r2", shots=20, repeats=4, learner=learner)
    plain = rank(mine, [theirs], metric="r2", shots=20, repeats=4)
    assert found.rows[0].over_itself["pooled_estimator"] > 5  # neighbours know what no plane does
    assert found.rows[0].gain_pp != plain.rows[0].gain_pp
    model = TransferRegressor([theirs], learner=learner).fit(*mine)
    fresh = rng.uniform(-2, 2, size=(80, 2))
    errors = [
        np.abs(np.where(fresh[:, 0] * fresh[:, 1] > 0, 3.0, -3.0) - fitted.predict(fresh)).mean()
        for fitted in (model, TransferRegressor([theirs]).fit(*mine))
    ]
    assert errors[0] < errors[1]
    constant = TransferRegressor(learner=Quantities()).fit(*mine)
    assert np.isfinite(constant.predict(fresh)).all()
    with pytest.raises(ValueError, match="not plain arrays"):
        model.save(tmp_path / "model")


@pytest.mark.parametrize(
    "learner, message",
    [
        ("nope", "is not understood: give combination, network or a class with arguments, such as sklearn"),
        ("a.B(1)", "is not understood"),
        ("a.B(n=x)", "is not understood"),
        ("a.B(**{})", "is not understood"),
        ("no_such_package.Classifier", "is not installed .*: pip install no_such_package"),
        ("sklearn.neighbors.Neighbour", "is unknown: sklearn.neighbors has no Neighbour"),
        ("os.getcwd", "is not a class"),
        ("sklearn.neighbors.KNeighborsClassifier(k=3)", "cannot be made: .*unexpected keyword argument 'k'"),
        (KNeighborsClassifier, "KNeighborsClass...: give a text or a BaseEstimator"),
        (SVC(), "has no predict_proba: wrap it in sklearn.calibration.CalibratedClassifierCV"),
        (Ridge(), "predicts quantities: give a classifier"),
        (5, "learner of scorer transmeter is 5: give"),
    ],
)
def test_what_is_no_classifier_is_refused_before_any_work(learner, message):
    with pytest.raises(ValueError, match=message):
        rank(TARGET, [GOOD], learner=learner)


def test_a_learner_that_does_not_fit_the_call_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not predict quantities: give a regressor"):
        rank(([[0.0], [1.0]] * 10, np.arange(20.0)), [([[0.0], [1.0]], [0.5, 1.5])], metric="r2", learner=NEIGHBOURS)
    with pytest.raises(ValueError, match="learner is given twice"):
        rank(TARGET, [GOOD], learner=NEIGHBOURS, options={"learner": "network"})
    with pytest.raises(ValueError, match="option 'learner' is unknown to scorer logme"):
        rank(TARGET, [GOOD], "logme", learner=NEIGHBOURS)
    with pytest.raises(ValueError, match="steps is an option of the network"):
        rank(TARGET, [GOOD], learner=NEIGHBOURS, options={"steps": 3})
    with pytest.raises(ValueError, match="is not an estimator"):
        TransferClassifier(learner=KNeighborsClassifier).fit(TARGET.features, TARGET.labels)
    arguments = ["transfer", "data/tabular/heart_va.csv", "data/tabular/heart_statlog.csv", "--out", f"{tmp_path}/new"]
    found = CliRunner().invoke(cli.main, [*arguments, "--learner", "sklearn.naive_bayes.GaussianNB"])
    assert found.exit_code == 2 and "cannot be saved, as it is not plain arrays: add --predict" in found.output


def test_lightgbm_joins_by_name():
    pytest.importorskip("lightgbm")
    learner = "lightgbm.LGBMClassifier(n_estimators=5,n_jobs=1,verbose=-1,min_child_samples=2)"
    found = rank(TARGET, [GOOD], learner=learner, shots=5, repeats=3)
    assert "pooled_estimator" in found.rows[0].over_itself and found.options["learner"] == learner
