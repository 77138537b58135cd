"""The Pareto front, and sweeps that chart it."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import compress
from cli import main
from compress import sweep
from compress.commands.sweep import cells
from compress.evaluation import pareto
from compress.evaluation.pareto import Point
from compress.pipeline import Step
from tests.conftest import DATA

MODEL, TEXTS, HELD = str(DATA / "mixlm"), str(DATA / "text/math_sample.txt"), str(DATA / "text/math_heldout.txt")
points = st.lists(st.builds(Point, st.just("m"), st.floats(0.01, 1.5), st.floats(0, 1.2)), max_size=8)


@settings(deadline=None)
@given(points)
def test_area_is_the_mean_over_sizes_of_what_can_be_had(found):
    steps = 4000
    total = 0.0
    for i in range(steps):
        size = (i + 0.5) / steps
        total += max([p.quality for p in found if p.size <= size and p.size < 1], default=0.0)
    assert pareto.area(found) == pytest.approx(total / steps, abs=0.01)


@settings(deadline=None)
@given(points)
def test_no_point_beats_the_front(found):
    best = pareto.best(found)
    assert all(any(b.size <= p.size and b.quality >= p.quality for b in best) for p in found)
    assert [b.quality for b in best] == sorted({b.quality for b in best})


def test_perplexity_counts_the_other_way_round():
    before, after = {"perplexity": {"value": 10.0}, "bytes": 100}, {"perplexity": {"value": 20.0}, "bytes": 25}
    assert pareto.point("m", before, after, "perplexity") == Point("m", 0.25, 0.5)
    before, after = {"accuracy": {"value": 0.8}, "bytes": 100}, {"accuracy": {"value": 0.6}, "bytes": 25}
    assert pareto.point("m", before, after, "accuracy").quality == pytest.approx(0.75)


def test_every_combination_is_a_cell():
    found = cells([("a", print, ("x=1,2", "y=3,4")), ("b", print, ())])
    assert [f[2] for f in found] == [("x=1", "y=3"), ("x=1", "y=4"), ("x=2", "y=3"), ("x=2", "y=4"), ()]
    assert sweep.name(Step("a", {"x": 1, "y": "z"})) == "a__x_1__y_z"


def test_a_sweep_charts_the_pareto_front_and_goes_on(tmp_path, monkeypatch):
    command = ["sweep", MODEL, "--calibration", TEXTS, "--tokens", "300", "--data", HELD, "--out", str(tmp_path / "s")]
    command += ["--method", "magnitude", "--set", "ratio=0.1,0.3", "--method", "round_to_nearest", "--set", "bits=4,8"]
    command += ["--set", "group=64,100", "--latency"]
    monkeypatch.setattr("compress.commands.options.PERPLEXITY_TOKENS", 1000)
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    found = json.loads((tmp_path / "s/sweep.json").read_text())
    assert [r["method"] for r in found["rows"]] == ["magnitude"] * 2 + ["round_to_nearest"] * 4
    assert sum("error" in r for r in found["rows"]) == 2 and "group 100 does not divide" in first.stdout
    assert 0 < found["areas"]["magnitude"] < found["area"] < 1 and "<svg" in (tmp_path / "s/front.svg").read_text()
    assert "area under the Pareto front of perplexity by bytes" in first.stdout
    assert "tried and failed: round_to_nearest bits=4 group=100: group 100 does not divide" in first.stdout
    whole = [r for r in found["rows"] if "error" not in r]
    same = {"window": found["window"], "tokens": 1000}
    alone = compress.evaluate([str(tmp_path / "s" / r["folder"]) for r in whole], HELD, baseline=MODEL, **same)
    for row, result in zip(whole, alone):  # the change is that of an evaluation of the folder beside the dense model
        own, other = (r["loss_change_nats"] for r in (row["after"], result))
        assert all(own[k] == pytest.approx(other[k], rel=1e-3, abs=1e-5) for k in ("value", "ci_low", "ci_high"))
    dense = found["before"]["latency_seconds"]["median"], found["before"]["perplexity"]["value"]
    timed = [(r["after"]["latency_seconds"]["median"], r["after"]["perplexity"]["value"]) for r in whole]
    for row, (time, value) in zip(whole, timed):  # on the front by time: nothing else is as fast and as good
        others = [*(other for other in timed if other != (time, value)), dense]
        assert row["front_latency"] == (not any(t <= time and v <= value for t, v in others))
    svg = (tmp_path / "s/front_latency.svg").read_text()
    assert "latency of one forward, ms" in svg and "perplexity" in svg and "latency ms (quartiles)" in first.stdout
    page = CliRunner().invoke(main, ["report", str(tmp_path / "s"), "--out", str(tmp_path / "r.html")])
    assert page.exit_code == 0 and "Tried and failed" in (tmp_path / "r.html").read_text()
    ran = []
    monkeypatch.setattr(
        "compress.pipeline.run", lambda *a, **k: ran.append(a) or (_ for _ in ()).throw(ValueError("again"))
    )
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0 and len(ran) == 2  # those that failed are tried again
    other = CliRunner().invoke(main, [*command, "--seed", "3"])
    assert other.exit_code == 2 and "holds a sweep of another seed (0)" in other.output
