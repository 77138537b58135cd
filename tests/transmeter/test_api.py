"""`transmeter.rank` from Python: everything that a user may have at hand, and the result as frame, picture and HTML."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import datasets
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import transmeter
from transmeter.result import Row
from transmeter.tables import data
from transmeter.tables.inputs import as_table, as_tables

QUICK = {"shots": 3, "repeats": 4}


@pytest.fixture(scope="module")
def tables(root):
    """Two sites as data frames, labels in `label`."""
    return {n: pd.read_csv(root / f"data/tabular/heart_{n}.csv") for n in ("va", "hungarian")}


@pytest.fixture(scope="module")
def found(root, tables):
    """A ranking of a good, a plain and an unusable source."""
    sources = {
        "<b>good</b>": tables["hungarian"],
        "plain": str(root / "data/tabular/heart_cleveland.csv"),
        "one class": tables["hungarian"].assign(label="sick"),
    }
    return transmeter.rank(tables["va"], sources, **QUICK)


@pytest.mark.parametrize("kind", ["frame", "pair", "path", "text", "dataset", "table"])
def test_every_kind_of_data_gives_the_same_ranking(kind, root, tables):
    def as_kind(name):
        frame, path = tables[name], root / f"data/tabular/heart_{name}.csv"
        return {
            "frame": frame,
            "pair": (frame.drop(columns="label"), frame["label"]),
            "path": path,
            "text": f"{path}::label",
            "dataset": datasets.Dataset.from_pandas(frame),
            "table": data.load(str(path)),
        }[kind]

    reference = transmeter.rank(tables["va"], {"h": tables["hungarian"]}, **QUICK).rows[0]
    row = transmeter.rank(as_kind("va"), {"h": as_kind("hungarian")}, **QUICK).rows[0]
    assert row.source == "h" and (row.gain_pp, row.evidence) == (reference.gain_pp, reference.evidence)


def test_sources_in_a_list_are_named_by_file_table_or_place(root, tables):
    path = root / "data/tabular/heart_cleveland.csv"
    given = [tables["hungarian"], path, f"x={path}", data.load(str(path)), (np.eye(4), [0, 1, 0, 1])]
    with pytest.raises(ValueError, match="two sources are called 'heart_cleveland': name them apart"):
        as_tables(given)
    names = [t.name for t in as_tables([given[0], *given[2:]])]
    assert names == ["source 1", "x", "heart_cleveland", "source 4"]
    assert [t.name for t in as_tables(path)] == ["heart_cleveland"]


def test_arrays_match_by_place_and_lists_will_do():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 3)) + y[:, None]
    row = transmeter.rank((x, y), {"s": (x[::-1].tolist(), y[::-1].tolist())}, **QUICK).rows[0]
    assert row.evidence["shared"] == 1


@pytest.mark.parametrize(
    "given, message",
    [
        (None, "target is a NoneType: give a data frame"),
        ((np.ones(3), [1, 2, 3]), r"features of shape \(3,\)"),
        ((np.eye(3), [1, 2]), "has 3 rows and 2 labels"),
        (pd.DataFrame({"x": [1, 2], "labell": [0, 1]}), "no label column 'label', did you mean 'labell'?"),
        (pd.DataFrame([[1, 2, 0]], columns=["x", "x", "label"]), "two columns called 'x'"),
    ],
)
def test_what_is_no_table_is_refused(given, message, tables):
    with pytest.raises(ValueError, match=message):
        transmeter.rank(given, [tables["hungarian"]])


@pytest.fixture
def arrays():
    """(X, y) of 60 rows and two classes."""
    y = np.arange(60) % 2
    return np.random.default_rng(0).normal(size=(60, 3)) + y[:, None], y


def test_a_column_may_have_a_number_for_its_name(arrays):
    numbered = pd.DataFrame(arrays[0]).assign(label=arrays[1])
    named = transmeter.rank(numbered, {"s": numbered}, **QUICK).rows[0]
    numbered = numbered.rename(columns={"label": 3})
    for label in (3, np.int64(3), "3"):
        found = transmeter.rank(numbered, {"s": numbered}, label=label, **QUICK).rows[0]
        assert (found.gain_pp, found.evidence) == (named.gain_pp, named.evidence)
    keyed = numbered.assign(**{"9": np.arange(60)}).rename(columns={"9": 9})
    assert as_table(keyed, "t", 3, 9).columns == ["0", "1", "2"]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_array])
def test_a_sparse_matrix_is_made_dense_and_said_to_be(kind, arrays):
    x, y = arrays
    with pytest.warns(UserWarning, match="t: the sparse matrix of 60 x 3 cells is made dense"):
        found = as_table((kind(x), y), "t")
    pd.testing.assert_frame_equal(found.features, as_table((x, y), "t").features)
    wide = kind((100_000, 30_000))
    with pytest.raises(ValueError, match="sparse matrix of 100000 x 30000 cells, .* reduce its columns first"):
        as_table((wide, np.arange(100_000) % 2), "t")
    framed = pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(x)).assign(label=y)
    assert as_table(framed, "t").features.to_numpy().tolist() == x.tolist()


def test_a_source_alone_needs_no_list(arrays, tables):
    x, y = arrays
    for alone in ((x, y), (x, y.tolist()), (x, tuple(y)), (pd.DataFrame(x), pd.Series(y)), (x.tolist(), y)):
        assert [(t.name, len(t)) for t in as_tables(alone)] == [("source 1", 60)]
    assert [t.name for t in as_tables(tables["va"])] == ["source 1"]
    assert [t.name for t in as_tables((tables["va"], tables["hungarian"]))] == ["source 1", "source 2"]
    assert [t.name for t in as_tables(((x, y), (x, y)))] == ["source 1", "source 2"]
    assert [t.name for t in as_tables({1: (x, y)})] == ["1"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"label": (1, 2)}, "label is (1, 2): give the name of one column, a text or a number"),
        ({"key": ["a"]}, "key is ['a']: give the name of one column, a text or a number"),
        ({"label": 3}, "target has no label column '3': name it with --label"),
        ({"shots": "5"}, "shots is '5': give a whole number of at least 1"),
        ({"shots": True}, "shots is True: give a whole number of at least 1"),
        ({"shots": 0}, "shots is 0: give a whole number of at least 1"),
        ({"repeats": 1}, "repeats is 1: give a whole number of at least 2"),
        ({"repeats": 2.5}, "repeats is 2.5: give a whole number of at least 2"),
        ({"budget": "60s"}, "budget is '60s': give a number above 0"),
        ({"budget": float("nan")}, "budget is nan: give a number above 0"),
        ({"seed": 1.5}, "seed is 1.5: give a whole number from 0 to 2147483647"),
        ({"seed": 2**40}, "seed is 1099511627776: give a whole number from 0 to 2147483647"),
        ({"metric": "f1"}, "metric 'f1' is unknown: give one of balanced_accuracy, accuracy"),
        ({"match": None}, "match None is unknown: give one of meaning, name"),
        ({"scorer": 3}, "scorer 3 is unknown: give one of alignment, cls"),
        ({"encoder": 7}, "encoder is 7: give a path, a text or a pathlib.Path"),
        ({"cache": 3}, "cache is 3: give a path, a text or a pathlib.Path"),
        ({"cache": __file__}, "is a file: give a folder"),
        ({"options": [1]}, "options is [1]: give a dict of names and values"),
        ({"options": {"steps": "many"}}, "option steps of scorer transmeter is 'many': give a whole number or"),
        ({"scorer": "logme", "options": {"steps": None}}, "option steps of scorer logme is None: give a whole number"),
        ({"options": {"steps": 5}}, "steps is an option of the network: set learner=network too, or leave it out"),
        ({"options": {"learner": None}}, "option learner of scorer transmeter is None: give a text or a BaseEst"),
        ({"options": {"independent": 1}}, "option independent of scorer transmeter is 1: give True or False"),
        ({"options": {"variant": "x"}}, "option variant of scorer transmeter is 'x': give one of 'plain', 'fast'"),
        ({"options": {"source_loss": "x"}}, "option source_loss of scorer transmeter is 'x': give a number or None"),
        ({"options": {"stepz": 1}}, "option 'stepz' is unknown to scorer transmeter, did you mean 'steps'?: give one"),
        ({"scorer": "source_size", "options": {"steps": 1}}, "'steps' is unknown to scorer source_size: there are non"),
        ({"sources": np.eye(3)}, "sources is a ndarray: give a list of sources, or a dict of them by name"),
        ({"sources": None}, "sources is a NoneType: give a list of sources, or a dict of them by name"),
        ({"sources": [([[1, 2], [3]], [0, 1])]}, "source 1 has rows of different lengths: give (rows, columns)"),
        ({"sources": [("h", [[1, 2]])]}, "source 1 is a pair that begins with 'h': give a dict of names and data sets"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_one_line(given, message, tables):
    with pytest.raises(ValueError) as found:
        transmeter.rank(**{"target": tables["va"], "sources": [tables["hungarian"]], **given})
    assert message in str(found.value) and "\n" not in str(found.value)


def test_bad_sources_and_settings_are_refused(tables):
    with pytest.raises(ValueError, match="none.csv does not exist"):
        transmeter.rank(tables["va"], ["none.csv"])
    with pytest.raises(ValueError, match="'logmee' is unknown, did you mean 'logme'?"):
        transmeter.rank(tables["va"], [tables["hungarian"]], scorer="logmee")
    with pytest.raises(ValueError, match="no source is given"):
        transmeter.rank(tables["va"], [])


def test_the_frame_has_a_row_a_source(found):
    frame = found.to_frame()
    assert list(frame["source"]) == [row.source for row in found.rows] and frame.index.tolist() == [0, 1, 2]
    assert frame["gain_pp"].tolist()[:2] == [row.gain_pp for row in found.rows[:2]]
    assert "only the class 'sick'" in frame["error"][2]


@pytest.mark.parametrize("verdict, best", [("helps", "a"), ("no evidence", None), ("hurts", None), (None, "a")])
def test_best_is_none_where_no_source_helps(verdict, best, found):
    row = Row(rank=1, tie_group=1, source="a", score=1.0, verdict=verdict)
    failed = Row(source="b", error="broken")
    assert replace(found, rows=[row, failed]).best == best
    assert replace(found, rows=[failed]).best is None


def test_the_picture_shows_every_interval_and_tells_verdicts_apart_without_colour(found):
    verdicts = ("helps", "hurts")
    rows = [replace(row, verdict=v) for row, v in zip(found.rows, verdicts)]
    spec = replace(found, rows=[*rows, found.rows[2]]).plot().to_dict()
    drawn = next(iter(spec["datasets"].values())) if "datasets" in spec else spec["data"]["values"]
    assert [(v["low"], v["high"]) for v in drawn] == [(row.ci_low, row.ci_high) for row in rows]
    dots = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "point")
    assert dots["encoding"]["shape"]["scale"]["domain"] == list(verdicts)
    assert len(set(dots["encoding"]["shape"]["scale"]["range"])) == 2
    assert spec["title"] == f"sources for {found.target}"


def test_plain_scores_are_drawn_too(tables):
    spec = transmeter.rank(tables["va"], {"$h$": tables["hungarian"]}, scorer="source_size").plot().to_dict()
    dots = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "point")
    assert dots["encoding"]["x"]["title"] == "score by source size" and "scale" not in dots["encoding"]["shape"]


def test_html_is_escaped_and_closed(found):
    class Parser(HTMLParser):
        seen: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)

    page = found._repr_html_()
    parser = Parser()
    parser.feed(page)
    assert "b" not in parser.seen and parser.seen.count("tr") == 4
    assert "&lt;b&gt;good&lt;/b&gt;" in page and "nan" not in page.lower()


def test_validate_checks_a_ranking_and_refuses_other_settings(root, tables, tmp_path):
    sources = {"near": tables["hungarian"], "far": str(root / "data/tabular/heart_switzerland.csv")}
    ranking = transmeter.rank(tables["va"], sources, scorer="source_size")
    ranking.save(tmp_path / "r.json")
    settings = {"repeats": 2, "steps": 2}
    result = transmeter.validate(tables["va"], sources, tmp_path / "r.json", **settings)
    assert set(result.predicted) == set(sources) == {arm.name for arm in result.ground_truth.sources}
    assert (
        result.interval_coverage is None
        and result.agreement.regret_1 >= 0
        and result.ground_truth.metric == ranking.metric
    )
    for other, message in (
        ({"seed": 0}, "seed 0 is the ranking's own"),
        ({"shots": 3}, "shots 3 differs from the ranking's None"),
        ({"match": "name"}, "the ranking was made with match meaning: give the same"),
        ({"ranking": replace(ranking, target="another")}, "sources for 'another', not for 'target'"),
    ):
        with pytest.raises(ValueError, match=message):
            transmeter.validate(tables["va"], sources, **{"ranking": ranking, **settings, **other})


def test_transfer_trains_checks_and_predicts(tables, tmp_path):
    rows = tables["va"].drop(columns="label")[:5]
    result = transmeter.transfer(tables["va"], tables["hungarian"], repeats=2, predict=rows)
    assert list(result.predictions)[0] == "prediction" and len(result.predictions) == 5
    assert result.check.repeats == 2 and result.check.target == "target"
    result.save(tmp_path / "m")
    again = transmeter.TransferClassifier.load(tmp_path / "m")
    np.testing.assert_allclose(again.predict_proba(rows), result.predictions.iloc[:, 1:])


def test_transfer_and_validate_say_copied_rows(tables):
    said = "200 of 200 rows of target stand in copy too: its gain is overstated"
    with pytest.warns(UserWarning, match=said) as warned:
        result = transmeter.transfer(tables["va"], {"copy": tables["va"]}, repeats=2)
    assert said in result.notes and sum("too: its gain" in str(w.message) for w in warned) == 1
    with pytest.warns(UserWarning, match=said):
        transmeter.validate(tables["va"], {"copy": tables["va"]}, shots=5, repeats=2, steps=1)


def test_import_is_without_what_takes_seconds():
    code = (
        "import sys, transmeter, compress; assert 'rank' in dir(transmeter);"
        "assert not {'torch', 'pandas', 'numpy', 'click', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'rnak'"):
        transmeter.rnak  # noqa: B018


def test_a_table_keeps_its_own_name(heart):
    assert as_table(heart["va"]).name == "heart_va" and as_table(heart["va"], "mine").name == "mine"
