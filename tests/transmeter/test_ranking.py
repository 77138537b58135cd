"""Rankings end to end on real tables."""

import json
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from transmeter import ranking, result
from transmeter.gain.prior import PairFeatures
from transmeter.network import source
from transmeter.tables import data


@pytest.fixture(scope="module")
def found(heart, tmp_path_factory):
    """heart_hungarian from three sites, a shuffled one and one that cannot be read."""
    rng = np.random.default_rng(0)
    tables = [heart[n] for n in ("cleveland", "va", "switzerland")]
    broken = data.Unusable("broken", "no such thing")
    shuffled = data.table("shuffled", heart["cleveland"].features, rng.permutation(heart["cleveland"].labels))
    cache = tmp_path_factory.mktemp("cache")
    return ranking.rank(heart["hungarian"], [*tables, shuffled, broken], shots=10, repeats=8, cache=cache), cache


def test_rows_are_ordered_and_consistent(found):
    rows = found[0].rows
    assert [r.rank for r in rows] == [1, 2, 3, 4, None] and rows[-1].error == "no such thing"
    gains = [r.gain_pp for r in rows[:-1]]
    assert gains == sorted(gains, reverse=True) and rows[0].tie_group == 1
    for row in rows[:-1]:
        assert row.ci_low < row.gain_pp < row.ci_high and 0 <= row.p_negative <= 1
        unsure = "likely helps" if row.p_negative < 0.2 and row.repeats else "no evidence"
        expected = "helps" if row.ci_low > 0 else "hurts" if row.ci_high < 0 else unsure
        assert row.verdict == expected and row.score == row.gain_pp


def test_a_shuffled_source_never_helps(found):
    row = next(r for r in found[0].rows if r.source == "shuffled")
    assert row.verdict != "helps" and row.gain_pp < found[0].rows[0].gain_pp


def test_json_goes_out_and_comes_back(found, tmp_path):
    found[0].save(tmp_path / "r.json")
    assert result.load(tmp_path / "r.json") == found[0]
    content = json.loads((tmp_path / "r.json").read_text())
    settings = "target metric shots repeats budget seed scorer options encoder match rows command notes together"
    assert " ".join(content) == settings and content["budget"] is None and content["match"] == "meaning"
    assert set(content["rows"][0]["evidence"]) == set(PairFeatures.__dataclass_fields__)
    assert content["rows"][-1]["evidence"] is None
    first = content["rows"][0]
    expected = sum(v for k, v in first["terms"].items() if k not in ("trust", "measured"))
    weighed = first["terms"]["trust"] * first["terms"]["measured"] + (1 - first["terms"]["trust"]) * expected
    assert weighed == pytest.approx(first["gain_pp"]) and set(first["classes"]) <= {"0", "1"}
    for bad in ('{"rows": 3}', "[]", "null"):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(ValueError, match="is not a ranking"):
            result.load(tmp_path / "bad.json")


def test_source_classifiers_are_cached_and_reused(found, heart):
    files = sorted(f.suffix for f in found[1].iterdir())
    assert files == [".json"] * 4 + [".safetensors"] * 4
    about = json.loads(next(f for f in found[1].iterdir() if f.suffix == ".json").read_text())
    assert set(about) == {"source", "rows", "classes", "features"}
    times = {f: f.stat().st_mtime_ns for f in found[1].iterdir()}
    va = data.in_order(heart["va"])
    cached, fresh = source.Source(va, found[1]), source.Source(va)
    for a, b in zip(cached.classifier.trunk.parameters(), fresh.classifier.trunk.parameters()):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    assert times == {f: f.stat().st_mtime_ns for f in found[1].iterdir()}


def test_a_classifier_of_other_code_is_trained_anew(heart, tmp_path, monkeypatch):
    path = source.Source(heart["va"], tmp_path)._key()
    assert source.Source(heart["va"], tmp_path)._key() == path
    monkeypatch.setattr(source, "code_version", lambda *_: "of other code")
    assert source.Source(heart["va"], tmp_path)._key() != path


def test_a_crafted_classifier_file_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04evil pickle")
    with pytest.raises(ValueError, match="holds no source classifier"):
        source.load_classifier(tmp_path / "x.safetensors")


def test_one_failing_source_does_not_end_the_run(heart):
    other = data.table("other", pd.DataFrame({"zz": range(20)}), np.arange(20) % 2)
    found = ranking.rank(heart["va"], [heart["cleveland"], other], "alignment")
    assert found.rows[0].source == "heart_cleveland" and "shares no feature" in found.rows[1].error
    assert found.rows[0].gain_pp is None and found.rows[0].verdict is None
    with pytest.raises(ValueError, match="shares no feature"):
        ranking.rank(heart["va"], [other], "alignment")


def test_equal_scores_tie(heart):
    twin = data.table("twin", heart["cleveland"].features, heart["cleveland"].labels)
    rows = ranking.rank(heart["hungarian"], [heart["cleveland"], heart["va"], twin], "source_size").rows
    assert [(r.source, r.tie_group) for r in rows] == [("heart_cleveland", 1), ("twin", 1), ("heart_va", 2)]


def test_twenty_labels_give_a_wide_interval_that_labels_narrow(heart):
    full = heart["hungarian"]
    few = np.zeros(len(full), dtype=bool)
    for c in range(2):
        few[np.flatnonzero(full.codes == c)[:10]] = True

    def width(table):
        row = ranking.rank(table, [heart["cleveland"]], repeats=6).rows[0]
        return row.ci_high - row.ci_low

    alone = width(full.take(np.flatnonzero(few)))
    assert alone > 8
    assert width(full) < 0.7 * alone
    assert width(data.table("few", full.features, np.where(few, full.labels, None))) < 1.25 * alone


def test_bad_settings_are_refused(heart):
    va, cleveland = heart["va"], heart["cleveland"]
    with pytest.raises(ValueError, match="scorer 'logmee' is unknown, did you mean 'logme'.: give one of alignment"):
        ranking.rank(va, [cleveland], "logmee")
    with pytest.raises(ValueError, match="option 'x' is unknown to scorer logme: give one of steps"):
        ranking.rank(va, [cleveland], "logme", options={"x": 1})
    with pytest.raises(ValueError, match="no source is given"):
        ranking.rank(va, [])
    with pytest.raises(ValueError, match=re.escape("class '0' of heart_va has 51 labelled rows: at least 61")):
        ranking.rank(va, [cleveland], shots=60)


def test_rows_that_stand_in_both_are_told(heart):
    with pytest.warns(UserWarning, match="rows of heart_va stand in copy too"):
        ranking.rank(heart["va"], [data.table("copy", heart["va"].features, heart["va"].labels)], repeats=2)


def test_columns_of_the_target_that_mislead_are_told(heart):
    features = heart["va"].features.assign(patient=[f"P{i}" for i in range(len(heart["va"]))], chol=-9.0)
    features.loc[5:, "chol"] = np.linspace(150, 300, len(features) - 5)
    target = data.table("va", features, heart["va"].labels)
    lines = [
        "va: columns with another value in every row, perhaps ids, which are better left out: patient",
        "va: column 'chol' holds -9 in 5 rows, far from its other values: leave these cells empty if they are missing",
    ]
    with pytest.warns(UserWarning, match=re.escape(lines[0])):
        found = ranking.rank(target, [heart["cleveland"]], "hscore")
    assert [note for note in found.notes if note in lines] == lines


def test_switching_every_alignment_term_of_the_network_off_changes_figures(heart):
    def gain(**options):
        options["learner"] = "network"
        return ranking.rank(heart["hungarian"], [heart["va"]], shots=5, repeats=4, options=options).rows[0].gain_pp

    full = gain(variant="paper")
    for term in ("discriminator", "mean_distance", "reconstruction", "source_loss"):
        assert gain(variant="paper", **{term: 0.0}) != full
    off = {"discriminator": 0.0, "mean_distance": 0.0, "reconstruction": 0.0}
    assert gain(variant="paper", **off) == gain(variant="plain") == gain()
    assert gain(variant="paper", discriminator=0.0) == gain(variant="fast")


def test_same_seed_same_ranking(heart):
    a, b = (asdict(ranking.rank(heart["va"], [heart["cleveland"]], shots=5, repeats=3, seed=7)) for _ in range(2))
    for row in (*a["rows"], *b["rows"]):
        row["seconds"] = 0
    assert a == b


def test_the_order_of_a_source_s_rows_moves_nothing(heart):
    """Forests draw rows by their numbers: seen were changes of 0.7 points by sorting a file."""
    source = heart["cleveland"]
    shuffled = source.take(np.random.default_rng(0).permutation(len(source)))
    a, b = (ranking.rank(heart["va"], [t], shots=5, repeats=3, seed=7).rows[0] for t in (source, shuffled))
    assert (b.gain_pp, b.ci_low, b.ci_high) == (a.gain_pp, a.ci_low, a.ci_high)
