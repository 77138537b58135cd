"""Every feature by values that are known, and what it says of sources of a kind."""

import numpy as np
import pytest

from transmeter.zero_shot.features import agreement_of, consensus, skill_of, zero_shot_features
from transmeter.zero_shot.model import fit_source_model


@pytest.fixture(scope="module")
def features(encoded, sources):
    """Of every source by its name."""
    return {s.table.name: zero_shot_features(s, encoded, fit_source_model(s, encoded)) for s in sources}


def test_skill_is_balanced_and_zero_at_chance():
    codes = np.array([0, 0, 0, 0, 1, 1])
    assert skill_of(np.zeros(6, int), codes, 2) == 0
    assert skill_of(codes, codes, 2) == 1
    assert skill_of(1 - codes, codes, 2) == -1
    assert skill_of(np.array([0, 0, 0, 1, 1, 0]), codes, 2) == pytest.approx(0.25)  # 5 / 8 of 1 / 2
    assert skill_of(np.array([0, 0, 0, 1, 1, 0]), codes, 2, np.array([1, 1, 1, 0, 1, 0])) == 1
    assert skill_of(codes, codes, 3) == 1


def test_agreement_is_a_correlation():
    first, second = np.random.default_rng(0).random((2, 50))
    models = [np.column_stack([p, 1 - p]) for p in (first, second, 1 - first, np.full(50, 0.7))]
    agreement = agreement_of(models)
    assert agreement[0, 1] == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert agreement[0, 2] == pytest.approx(-1) and agreement[0, 0] == pytest.approx(1)
    assert (agreement[3] == 0).all()


def test_the_consensus_leaves_the_source_itself_out():
    agreement = np.array([[1, 0.5, 0.1], [0.5, 1, -0.2], [0.1, -0.2, 1]])
    found = consensus(agreement, np.array([0.5, 0.3, 0.1]))
    assert found[0] == pytest.approx([0.3, (0.5 * 0.3 + 0.1 * 0.1) / 0.4, 0.4])
    assert found[2] == pytest.approx([-0.05, (0.1 * 0.5 - 0.2 * 0.3) / 0.8, 0.8])


def test_features_tell_sources_apart(features, labelled, encoded, sources):
    good, far, noise = (features[name] for name in ("good", "far", "noise"))
    assert good.skill > 0.7 and noise.skill < 0.2 and far.skill > 0.7
    assert good.confidence > noise.confidence
    assert far.outside > 0.9 and good.outside < 0.15
    assert far.separation > 0.9 and good.separation < 0.2
    assert far.distance == pytest.approx(8 / np.sqrt(1.5), rel=0.2) and good.distance < 0.3
    assert far.misfit > 1 and abs(good.misfit) < 0.3
    assert good.classes == 2 and good.shared == 1 and good.size == pytest.approx(np.log10(200)) and good.rest == 0
    assert good.smoothness > 0.5 and abs(good.weighted_skill - good.skill) < 0.1
