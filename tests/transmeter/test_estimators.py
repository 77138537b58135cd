"""`TransferClassifier`: a scikit-learn estimator that reaches with a source what a ranking predicts."""

import copy
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from scipy import sparse
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from transmeter import TransferClassifier, TransferRegressor
from transmeter.gain.transfers import by_combination
from transmeter.learners.combination import COMBINATION
from transmeter.network.source import Encoded, Source
from transmeter.tables.data import in_order
from transmeter.tables.splits import Split


@parametrize_with_checks([TransferClassifier(), TransferRegressor()])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"random_state": None}, "random_state is None: give a whole number from 0 to 2147483647"),
        ({"match": "sound"}, "match 'sound' is unknown: give one of meaning, name"),
        ({"label": ("a", "b")}, r"label is \('a', 'b'\): give the name of one column"),
        ({"key": []}, r"key is \[\]: give the name of one column"),
        ({"encoder": 5}, "encoder is 5: give a path"),
        ({"cache": __file__}, "is a file: give a folder"),
        ({"sources": 5}, "sources is a int: give a list of sources, or a dict of them by name"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TransferClassifier(**given).fit(np.eye(6), [0, 1] * 3)


def test_a_sparse_source_will_do_and_sparse_rows_are_scikit_learns_type_error():
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    with pytest.warns(UserWarning, match="source 1: the sparse matrix of 40 x 3 cells is made dense"):
        found = TransferClassifier((sparse.csr_matrix(x), y)).fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(found, TransferClassifier((x, y)).fit(x, y).predict_proba(x))
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required. Use '.toarray"):
        TransferClassifier().fit(sparse.csr_matrix(x), y)


@pytest.fixture(scope="module")
def sites(root):
    """Two sites as data frames."""
    return {n: pd.read_csv(root / f"data/tabular/heart_{n}.csv") for n in ("va", "hungarian")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the source's classifier is kept."""
    return tmp_path_factory.mktemp("cache")


def few(frame, shots, seed):
    """X, y with labels of `shots` rows a class only, and the numbers of the other rows."""
    rng, y = np.random.default_rng(seed), frame["label"].to_numpy()
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:shots] for c in np.unique(y)])
    given = np.full(len(y), None, dtype=object)
    given[rows] = y[rows]
    return frame.drop(columns="label"), given, np.setdiff1d(np.arange(len(y)), rows)


def test_a_source_of_shared_columns_beats_none_at_few_shots(sites, cache):
    y, gains = sites["va"]["label"].to_numpy(), []
    for seed in range(12):
        x, given, rest = few(sites["va"], 5, seed)
        models = TransferClassifier(sites["hungarian"], cache=cache), TransferClassifier()
        right, alone = (balanced_accuracy_score(y[rest], model.fit(x, given).predict(x.iloc[rest])) for model in models)
        gains.append(right - alone)
    assert np.mean(gains) > 0.05 and sum(models[0].members_.values()) == pytest.approx(1)
    assert {m["target"] for m in models[0].matches_["source 1"]} == set(x)


def test_it_is_the_combination_whose_gain_validation_measures(heart):
    source, target = Source(in_order(heart["hungarian"])), Encoded(heart["va"])
    rows = np.arange(0, 200, 4)
    rest = np.setdiff1d(np.arange(200), rows)
    measured = by_combination([source], target, [Split(rows, rest, 0)], rest, 0).with_and_without[0][COMBINATION][0][0]
    given = np.full(200, None, dtype=object)
    given[rows] = heart["va"].labels[rows]
    model = TransferClassifier(heart["hungarian"]).fit(heart["va"].features, given)
    np.testing.assert_allclose(model.predict_proba(heart["va"].features.iloc[rest]), measured, atol=1e-6)


def test_several_sources_are_better_than_none_and_than_the_worst_of_them(root, sites):
    names = ("hungarian", "cleveland", "statlog")
    sources = {n: str(root / f"data/tabular/heart_{n}.csv") for n in names}
    y, right = sites["va"]["label"].to_numpy(), []
    for seed in range(12):
        x, given, rest = few(sites["va"], 5, seed)
        models = [TransferClassifier(chosen) for chosen in (sources, *sources.values(), None)]
        right.append([balanced_accuracy_score(y[rest], m.fit(x, given).predict(x.iloc[rest])) for m in models])
    together, *single, alone = np.mean(right, axis=0)
    assert together > alone + 0.03 and together > min(single) + 0.01 and together > np.mean(single)
    assert list(models[0].matches_) == list(names)
    assert all(any(name in member for member in models[0].members_) for name in names)


@pytest.mark.parametrize("source", ["hungarian", None])
def test_it_is_saved_without_pickle_and_predicts_the_same(source, frame, sites, cache, tmp_path):
    x, y = frame.drop(columns="label"), frame["label"]
    if source:
        x, y = (
            sites["va"].drop(columns="label").assign(town=[None, "Seoul", "Busan", "Ulsan"] * 50),
            sites["va"]["label"],
        )
    model = TransferClassifier(source and sites[source], cache=cache).fit(x, y)
    model.save(tmp_path / "m")
    assert {f.name for f in (tmp_path / "m").iterdir()} == {"classifier.safetensors", "classifier.json"}
    again = TransferClassifier.load(tmp_path / "m")
    unknown = x.assign(town="Rome")
    assert np.array_equal(again.predict_proba(unknown), model.predict_proba(unknown))
    assert np.array_equal(again.predict(x), model.predict(x)) and again.predict(x).dtype == model.predict(x).dtype
    assert again.members_ == model.members_ and again.matches_ == model.matches_
    with pytest.raises(ValueError, match="exists already"):
        model.save(tmp_path / "m")


def test_what_is_no_saved_classifier_is_refused(sites, tmp_path):
    with pytest.raises(ValueError, match="is not a saved classifier: it lacks"):
        TransferClassifier.load(tmp_path)
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    TransferClassifier().fit(x, y).save(tmp_path / "m")
    file = tmp_path / "m/classifier.json"
    about = json.loads(file.read_text())
    other = [{**about, name: None} for name in ("readings", "texts", "members", "matches", "encoder")]
    for broken in ({**about, "format": 1}, {**about, "classes": [1, 2, 3]}, {"format": 2}, [], *other):
        file.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="is not a saved classifier"):
            TransferClassifier.load(tmp_path / "m")
    assert all(v.dtype.kind in "fi" for v in load_file(tmp_path / "m/classifier.safetensors").values())


def test_a_saved_one_can_be_fitted_again_where_its_source_is_a_path(root, sites, cache, tmp_path):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    path = str(root / "data/tabular/heart_hungarian.csv")
    model = TransferClassifier(path, cache=cache).fit(x, y)
    model.save(tmp_path / "m")
    again = TransferClassifier.load(tmp_path / "m").fit(x, y)
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))


def test_labels_keep_their_type_and_meet_the_source_as_text(sites, cache):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    as_float = y.astype(float).where(y.index % 2 == 0)  # what a column with gaps is in pandas
    model = TransferClassifier(sites["hungarian"], cache=cache).fit(x, as_float)
    assert model.classes_.tolist() == [0.0, 1.0] and model.predict(x).dtype == np.float64
    words = TransferClassifier().fit(x, y.map({0: "well", 1: "ill"}))
    assert words.classes_.tolist() == ["ill", "well"] and set(words.predict(x)) <= {"ill", "well"}


def test_keys_let_a_source_of_other_columns_teach(sites):
    ours, theirs = ["chol", "trestbps", "label"], ["age", "cp", "exang", "oldpeak", "slope", "label"]
    keys = np.arange(len(sites["hungarian"]))
    source = sites["hungarian"][theirs].assign(id=keys)
    model, right = TransferClassifier(source, key="id", match="name"), []
    for seed in range(8):
        x, given, rest = few(sites["hungarian"][ours], 5, seed)
        y = sites["hungarian"]["label"].to_numpy()[rest]
        with warnings.catch_warnings(action="ignore"):  # without keys nothing is in common, which is said
            right.append(
                [balanced_accuracy_score(y, model.fit(x, given, keys=k).predict(x.iloc[rest])) for k in (keys, None)]
            )
        alone = TransferClassifier().fit(x, given)
        assert np.array_equal(alone.predict_proba(x), model.predict_proba(x))
    taught, plain = np.mean(right, axis=0)
    assert taught > plain + 0.03


def test_training_leaves_the_global_random_state_alone(sites):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    found = [TransferClassifier(random_state=s).fit(x, y).predict_proba(x) for s in (0, 0)]
    assert np.array_equal(*found) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x.drop(columns="age"), "age"),
        (lambda x: x[list(reversed(x.columns))], "order"),
        (lambda x: x.assign(age="old"), "column 'age' of X holds 'old', but was learned as numbers"),
    ],
)
def test_other_columns_are_refused_at_prediction(change, message, sites):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    model = TransferClassifier().fit(x, y)
    with pytest.raises(ValueError, match=message):
        model.predict(change(x))


@pytest.mark.parametrize(
    "x, y, message",
    [
        (pd.DataFrame({"a": [1, 2]}), [0, 0], "y has 1 class, '0': two classes are needed"),
        (pd.DataFrame({"a": [1, 2]}), [None, None], "y holds no label"),
        (pd.DataFrame({"a": [1, 2]}), [0, 1, 1], "X has 2 rows and y 3"),
        (pd.DataFrame({"a": [1, 1]}), [0, 1], "no column that varies"),
    ],
)
def test_what_cannot_be_learned_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        TransferClassifier().fit(x, y)


def test_a_bad_source_is_refused(sites):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    with pytest.raises(ValueError, match="none.csv does not exist"):
        TransferClassifier("none.csv").fit(x, y)
    with pytest.raises(ValueError, match="no label column 'lable', did you mean 'label'"):
        TransferClassifier(sites["hungarian"], label="lable").fit(x, y)


@pytest.mark.parametrize("by", ["encoder", "tfidf"])
def test_texts_are_read_as_the_ranking_reads_them(by, encoder, tokenizer, tmp_path):
    copy.deepcopy(encoder).save_pretrained(tmp_path)  # it writes to its config
    tokenizer.save_pretrained(tmp_path)
    x = pd.DataFrame({"t": [f"number {i} is {'even' if i % 2 else 'odd'} they say" for i in range(30)], "n": range(30)})
    y = np.arange(30) % 2
    source = (x.rename(columns={"t": "words"}), y)
    model = TransferClassifier(source, encoder=tmp_path if by == "encoder" else None).fit(x[:20], y[:20])
    assert model.text_columns_ == ["t"] and len(model.matches_["source 1"]) > 3
    if by == "tfidf":
        assert (model.predict(x[20:]) == y[20:]).mean() > 0.6
    model.save(tmp_path / "m")
    assert np.array_equal(TransferClassifier.load(tmp_path / "m").predict_proba(x), model.predict_proba(x))


def test_a_source_without_a_column_in_common_is_said(sites):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    strange = sites["hungarian"].rename(columns={c: f"zq{i}" for i, c in enumerate(x.columns)})
    with pytest.warns(
        UserWarning, match="source 1: no column matches one of the target: give its columns the same names"
    ):
        TransferClassifier(strange, match="name").fit(x, y)


def test_classes_are_matched_by_hand(sites):
    coded = sites["hungarian"].assign(label=sites["hungarian"]["label"].map({0: "b", 1: "a"}))
    right = []
    for seed in range(6):
        x, given, rest = few(sites["va"], 5, seed)
        y = sites["va"]["label"].to_numpy()[rest]
        for classes in ({"a": "1", "b": "0"}, {"a": "0", "b": "1"}):
            model = TransferClassifier(coded, classes=classes).fit(x, given)
            right.append(balanced_accuracy_score(y, model.predict(x.iloc[rest])))
    by_hand, turned = np.reshape(right, (6, 2)).mean(0)
    assert by_hand > turned + 0.05


def test_classes_of_several_sources_are_named_by_source(sites):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    two = {"one": sites["hungarian"], "two": sites["hungarian"]}
    with pytest.raises(ValueError, match="classes are of 2 sources: give them by name of the source"):
        TransferClassifier(two, classes={"1": "1"}).fit(x, y)
    TransferClassifier(two, classes={"one": {"1": "1", "0": "0"}}).fit(x, y)


def numbers(rows, seed, unit=1.0):
    """X, y of a quantity."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    return pd.DataFrame(x, columns=list("abcd")), unit * (x @ [1.0, 2.0, 0.0, -1.0] + 1.5 * rng.normal(size=rows) + 5)


@pytest.mark.filterwarnings("ignore:.*the label is a quantity")
def test_a_regressor_is_better_with_a_source_and_the_same_after_saving(tmp_path):
    (x, y), (new, right) = numbers(12, 0), numbers(300, 1)
    source = numbers(200, 2, unit=-7.0)
    found, alone = TransferRegressor(source).fit(x, y), TransferRegressor().fit(x, y)
    assert found.score(new, right) > alone.score(new, right) + 0.03
    assert list(found.matches_) == ["source 1"] and sum(found.members_.values()) == pytest.approx(1)
    found.save(tmp_path / "m")
    again = TransferRegressor.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(new), found.predict(new))
    assert list(again.predictions(new)) == ["prediction"]
    with pytest.raises(ValueError, match="is not a saved classifier: it lacks classifier.safetensors or"):
        TransferClassifier.load(tmp_path / "m")


@pytest.mark.filterwarnings("ignore:.*the label is a quantity")
def test_odd_numbers_to_predict():
    x, y = numbers(30, 0)
    given = np.array([*y[:20], *[None] * 10], dtype=object)
    np.testing.assert_allclose(
        TransferRegressor().fit(x, given).predict(x),
        few := TransferRegressor().fit(x, np.where(np.arange(30) < 20, y, np.nan)).predict(x),
    )
    assert np.isfinite(few).all()
    np.testing.assert_allclose(TransferRegressor().fit(x, np.full(30, 3.0)).predict(x), 3, atol=1e-6)
    three = TransferRegressor().fit(x, np.arange(30) % 3).predict(x)
    assert three.min() > -1 and three.max() < 3
    for labels, message in (
        (np.array(["p", "q"] * 15), "y holds labels that are not numbers: use TransferClassifier"),
        (np.r_[y[:1], np.full(29, np.nan)], "y has 1 number: two labelled rows are needed"),
        (y[:20], "X has 30 rows and y 20"),
    ):
        with pytest.raises(ValueError, match=message):
            TransferRegressor().fit(x, labels)
    with pytest.raises(ValueError, match="source 1 has 3 classes, not numbers"):
        TransferRegressor((x, np.array(["p", "q", "r"] * 10))).fit(x, y)


def test_a_source_is_read_as_its_file_is_written(sites, tmp_path):
    sites["hungarian"].to_csv(tmp_path / "h.csv", index=False, sep=":", decimal=",", encoding="utf-16-le")
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    plain = TransferClassifier(sites["hungarian"]).fit(x, y)
    written = {"sep": ":", "decimal": ",", "encoding": "utf-16-le"}
    found = TransferClassifier(tmp_path / "h.csv", **written).fit(x, y)
    np.testing.assert_allclose(found.predict_proba(x), plain.predict_proba(x), atol=1e-6)
    found.save(tmp_path / "c")
    assert TransferClassifier.load(tmp_path / "c").get_params()["decimal"] == ","
    amounts = pd.DataFrame({"a": ["1,234", "5,678"] * 4})
    assert TransferClassifier(decimal=",").fit(amounts, [0, 1] * 4).encoder_.numeric == ["a"]
    with pytest.raises(ValueError, match="decimal 'x' is unknown"):
        TransferClassifier(decimal="x").fit(x, y)


def test_rows_that_stand_in_two_tables_are_said(sites):
    x, y = sites["va"].drop(columns="label"), sites["va"]["label"]
    with pytest.warns(UserWarning, match="200 of 200 rows of the target stand in copy too: its gain is overstated"):
        TransferClassifier({"copy": sites["va"]}).fit(x, y)
    with pytest.warns(UserWarning, match="294 of 294 rows of b stand in a too: they count twice"):
        TransferClassifier({"a": sites["hungarian"], "b": sites["hungarian"]}).fit(x, y)


def test_fewer_classes_of_other_names_are_said_to_be_of_no_use(sites):
    x, y = sites["va"].drop(columns="label"), np.arange(200) % 3
    source = sites["hungarian"].replace({"label": {0: "sick", 1: "well", "0": "sick", "1": "well"}})
    with pytest.warns(UserWarning, match="other: no class is called as one of the target, which has more"):
        model = TransferClassifier({"other": source}).fit(x, y)
    assert all(name.startswith("target alone") for name in model.members_)
