"""The table of closeness."""

import pytest

from compress.report.candidates import format_closeness, format_targets, sureness

SCORES = {"math": 3.44, "a-candidate-of-a-long-name": 2.26, "closeness": 3.5512}
INTERVALS = {"math": (2.97, 3.98), "a-candidate-of-a-long-name": None, "closeness": (3.11, 4.06)}


def test_the_table_has_every_closeness_with_its_interval_and_unit():
    text = format_closeness(SCORES, INTERVALS, {"math": 1.0}, "math", ["closeness"])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and "a ratio without a unit, higher is closer" in text.replace("\n", " ")
    assert [line.split() for line in lines[1:4]] == [
        ["closeness", "3.55", "3.11", "to", "4.06", "tied"],
        ["math", "3.44", "2.97", "to", "3.98", "taken", "100%"],
        ["a-candidate-of-a-long-name", "2.26", "not", "known"],
    ]
    assert lines[-1] == "any of these, whose closeness cannot be told apart: math, closeness"


@pytest.mark.parametrize(
    "scores, tied, said",
    [
        ({"a": 2.0, "b": 1.9}, ["b"], "any of them will do"),
        ({"a": 2.0, "b": 1.0}, [], "a is the closest, also over other samples"),
        ({"a": 2.0, "b": 2.2}, [], None),
        ({"a": 2.0}, [], None),
    ],
)
def test_it_is_told_whether_the_choice_matters(scores, tied, said):
    lines = sureness(scores, dict.fromkeys(scores, (1.0, 3.0)), "a", tied)
    assert lines == [] if said is None else said in lines[0]
    assert sureness(scores, dict.fromkeys(scores), "a", tied) == []


def test_every_target_has_a_column():
    scores = {"uniform": 3.0, **{f"s{i}": 2.0 - i / 10 for i in range(7)}, "t6": 1.0}
    by_target = {f"t{i}": dict.fromkeys(scores, 1.0 + i) for i in range(7)}
    text = format_targets(by_target, scores, "s5")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["closeness", "to", "t0", "t1", "t2", "t3", "t4"]
    assert lines[2].split() == ["uniform", "1", "2", "3", "4", "5"]
    names = [line.split()[0] for line in lines[2:9]]
    assert names == ["uniform", "s0", "s1", "s2", "s3", "s5", "t6"] and "s5 (taken)" in text
    assert lines[10].split() == ["closeness", "to", "t5", "t6"]
    assert format_targets({"t": scores}, scores, "s5") == ""
