"""Use of every source as the ground truth: paired, reproducible, with controls, and with its own noise measured."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transmeter.gain import ground_truth
from transmeter.gain.metrics import accuracies
from transmeter.network.source import Encoded, Source
from transmeter.tables import data
from transmeter.tables.splits import Split


def easy(name, rows, seed, flip=0.0, columns=10):
    """Rows of two classes, told apart only by several columns together; `flip`: share of wrong labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.normal(size=(rows, columns)) + 0.6 * np.outer(2 * y - 1, np.ones(columns))
    y = np.where(rng.random(rows) < flip, 1 - y, y)
    return data.table(name, pd.DataFrame(x).add_prefix("c"), np.array(["no", "yes"], dtype=object)[y])


@pytest.fixture(scope="module")
def measured(heart):
    """(ground truth, sources) of heart_va from a site and its copy with inverted labels, and another site."""
    turned = {"0": "1", "1": "0"}
    inverted = replace(
        heart["cleveland"],
        name="inverted",
        labels=np.array([turned[v] for v in heart["cleveland"].labels], dtype=object),
    )
    sources = [Source(heart["cleveland"]), Source(heart["hungarian"]), Source(inverted)]
    return ground_truth.measure(sources, heart["va"], shots=2, repeats=6, steps=40), sources


def test_every_source_and_control_has_a_gain_over_the_best_learner_of_the_target(measured):
    found, sources = measured
    assert [a.name for a in found.sources] == ["heart_cleveland", "heart_hungarian", "inverted"]
    ranked = {name: value for name, value in found.baselines.items() if name != "scratch network"}
    assert found.baseline == max(ranked, key=ranked.get) and len(found.baselines) == 5
    assert all(0 <= v <= 100 for v in found.baselines.values())
    assert (found.target, found.shots, found.repeats, found.steps) == ("heart_va", 2, 6, 40)
    for arm in (*found.sources, *found.controls):
        assert len(arm.by_repeat) == 6 and arm.gain_pp == pytest.approx(np.mean(arm.by_repeat), abs=1e-3)
        assert arm.ci_low <= arm.gain_pp <= arm.ci_high
        assert arm.error_pp == pytest.approx(np.std(arm.by_repeat, ddof=1) / 6**0.5, abs=1e-3)
    assert found.sources[2].gain_pp < min(a.gain_pp for a in found.sources[:2])


def test_other_ways_and_all_sources_together_stand_beside_the_combination(measured):
    found, _ = measured
    assert list(found.others) == ["pooled", "network"]
    for arms in found.others.values():
        assert [a.name for a in arms] == [a.name for a in found.sources]
        assert arms[2].gain_pp < min(a.gain_pp for a in arms[:2])  # the inverted one
    assert found.together.name == "all sources together" and found.together.gain_pp > found.sources[2].gain_pp


def test_pooling_is_scikit_learns_regression_of_both_tables(heart):
    source, target = Source(heart["hungarian"]), Encoded(heart["va"])
    rows = np.arange(0, 200, 4)
    split = Split(rows, np.setdiff1d(np.arange(200), rows), 0)
    found = torch.from_numpy(np.stack(ground_truth.pooled([source], target, [split])))
    reached = accuracies(found, target.table.codes, [split], "accuracy")[0, 0]
    codes, theirs = target.table.codes, source.table.codes
    x = np.concatenate([target.x.numpy()[rows], target.encoder(source.table.features[target.table.columns])])
    weights = np.concatenate([_balanced(codes[rows]), 0.3 * _balanced(theirs)])
    model = LogisticRegression(C=0.1, max_iter=5000).fit(x, np.r_[codes[rows], theirs], sample_weight=weights)
    right = model.predict(target.x.numpy()[split.test]) == codes[split.test]
    assert reached == pytest.approx(100 * right.mean(), abs=1.5)  # two rows of 150


def _balanced(codes):
    return len(codes) / (2 * np.bincount(codes)[codes])


def test_controls_are_named_and_do_not_help(measured):
    controls = measured[0].controls
    assert [a.name for a in controls] == ["heart_cleveland, labels shuffled", "Gaussian mixture"]
    assert all(a.ci_low < 3 for a in controls)


def test_controls_leave_the_source_as_it_is(heart):
    source = Source(heart["switzerland"])
    labels = source.table.labels.copy()
    shuffled, mixture = ground_truth._controls(source, 0)
    assert (source.table.labels == labels).all() and sorted(shuffled.table.labels) == sorted(labels)
    assert (shuffled.table.labels != labels).any() and mixture.table.columns == source.table.columns
    assert mixture.table.classes == source.table.classes
    for column in mixture.table.columns:  # drawn anew from the source's moments
        one, other = (pd.to_numeric(t.features[column]) for t in (mixture.table, source.table))
        assert abs(one.mean() - other.mean()) <= other.std(), column


def test_arms_of_a_repeat_are_paired_and_do_not_depend_on_the_company(measured, heart):
    found, sources = measured
    alone = ground_truth.measure(sources[1:2], heart["va"], shots=2, repeats=6, steps=40, controls=False)
    assert alone.controls == [] and alone.reliability is None and alone.baselines == found.baselines
    np.testing.assert_allclose(alone.sources[0].by_repeat, found.sources[1].by_repeat, atol=1e-3)


def test_same_seed_same_truth_and_another_seed_another(heart):
    source = Source(heart["switzerland"])

    def run(seed, controls):
        return ground_truth.measure([source], heart["va"], shots=2, repeats=2, steps=10, seed=seed, controls=controls)

    assert run(3, True) == run(3, True)
    assert run(3, False).sources[0].by_repeat != run(4, False).sources[0].by_repeat


def test_the_targets_other_half_helps_and_wrong_labels_hurt_at_few_shots():
    whole = easy("whole", 400, seed=0)
    target, half = whole.take(np.arange(0, 200)), replace(whole.take(np.arange(200, 400)), name="other half")
    wrong = [easy("half wrong", 200, seed=1, flip=0.5), easy("inverted", 200, seed=2, flip=1.0)]
    sources = [Source(t) for t in (half, *wrong)]
    found = ground_truth.measure(sources, target, shots=1, repeats=16, steps=40, controls=False)
    helpful, noise, inverted = found.sources
    assert helpful.ci_low > 0 and helpful.gain_pp > max(noise.gain_pp, 3) and inverted.ci_high < 0
    assert found.reliability > 0.9


def test_all_labels_are_cross_fitted_by_accuracy_too():
    found = ground_truth.measure(
        [Source(easy("s", 60, 1))], easy("t", 40, 2), repeats=2, steps=5, metric="accuracy", controls=False
    )
    assert found.shots is None and found.metric == "accuracy" and len(found.sources[0].by_repeat) == 2
    with pytest.raises(ValueError, match="metric 'f1' is unknown"):
        ground_truth.measure([Source(easy("s", 60, 1))], easy("t", 40, 2), metric="f1")


def test_reliability_is_high_where_sources_differ_and_low_where_repeats_do():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 24))
    assert ground_truth.reliability(noise + 10 * np.arange(6)[:, None]) > 0.98
    assert -1 <= ground_truth.reliability(noise) < 0.8
    assert ground_truth.reliability(noise[:2]) is ground_truth.reliability(noise[:, :3]) is None
    assert ground_truth.reliability(np.zeros((5, 8))) is None


def test_networks_can_be_left_out(heart):
    found = ground_truth.measure([Source(heart["cleveland"])], heart["va"], shots=2, repeats=2, network=False)
    assert list(found.others) == ["pooled"] and "scratch network" not in found.baselines


def test_json_holds_the_whole_truth(measured, tmp_path):
    measured[0].save(tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["sources"][0]["name"] == "heart_cleveland" and len(content["controls"]) == 2
    for name in ("sources", "controls"):
        content[name] = [ground_truth.Arm(**arm) for arm in content[name]]
    content["others"] = {way: [ground_truth.Arm(**arm) for arm in arms] for way, arms in content["others"].items()}
    content["together"] = ground_truth.Arm(**content["together"])
    rebuilt = ground_truth.GroundTruth(**content)
    assert rebuilt == measured[0]
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
