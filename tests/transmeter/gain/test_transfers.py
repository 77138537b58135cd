"""What learners predict with a source stands beside what they predict without it."""

import numpy as np
import pytest

from tests.transmeter.learners.problems import table
from transmeter.gain.transfers import NETWORK, Network, by_combination, by_network
from transmeter.learners.combination import COMBINATION, average
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.tables.splits import make_splits

LEARNERS = [COMBINATION, "pooled_linear", "source_forest", "source_linear"]


@pytest.fixture(scope="module")
def problem():
    """Sources, of which the second has nothing in common with the target, the target, and splits."""
    mine = table("target", 60, 0)
    sources = [Source(table("good", 120, 1)), Source(table("strange", 80, 2, columns="wxyz"))]
    return sources, Encoded(mine), make_splits(mine, 4, 3, 0)


def test_every_learner_stands_beside_its_counterpart(problem):
    sources, target, splits = problem
    found = by_combination(sources, target, splits, np.arange(60), 0)
    good, strange = found.with_and_without
    assert list(good) == LEARNERS and list(strange) == [COMBINATION]
    assert (good["pooled_linear"][1] == good["source_linear"][1]).all()
    assert not (good["pooled_linear"][1] == good["source_forest"][1]).all()
    for ways in (good, strange):
        for with_source, without in ways.values():
            assert with_source.shape == without.shape == (3, 60, 2)
            np.testing.assert_allclose(without.sum(2), 1, atol=1e-6)
    assert (strange[COMBINATION][0] == strange[COMBINATION][1]).all()  # nothing in common: nothing changes
    assert (good[COMBINATION][1] == found.alone.probabilities).all()
    both = average([found.alone, found.given[0]]).probabilities
    assert (good[COMBINATION][0] == both).all() and np.abs(both - found.alone.probabilities).max() > 0.1


def test_a_source_is_used_alike_in_any_company_and_without_company(problem):
    sources, target, splits = problem
    found = by_combination(sources, target, splits, np.arange(60), 0)
    single = by_combination(sources[:1], target, splits, np.arange(60), 0)
    assert (single.given[0].probabilities == found.given[0].probabilities).all()
    assert by_combination([], target, splits, np.arange(60), 0).given == []


def test_networks_of_several_sources_are_averaged(problem):
    sources, target, splits = problem
    network = Network(Terms(), Schedule(steps=5), 0)
    found = by_network(sources, target, splits, np.arange(60), network)
    both = average([found.alone, *found.given]).probabilities
    mean = np.mean([ways[NETWORK][0] for ways in found.with_and_without], axis=0)
    np.testing.assert_allclose(both, mean, atol=1e-6)  # the network without a source has no weight
    assert (found.with_and_without[0][NETWORK][1] == found.alone.probabilities).all()
