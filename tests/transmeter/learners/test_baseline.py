"""Learners of the target alone: what is random in them differs from split to split, and knows of no other split."""

import numpy as np
import torch

from tests.transmeter.learners.problems import table
from transmeter.learners.baseline import target_only
from transmeter.learners.combination import target_members
from transmeter.learners.task import task_of
from transmeter.network.source import Encoded
from transmeter.tables.splits import Split

ROWS = np.arange(60)


def predicted(target, training, seed=0):
    """Probabilities by gradient boosting."""
    splits = [Split(rows, ROWS, i) for i, rows in enumerate(training)]
    return target_only(target, splits, ROWS, seed)["gradient boosting"]


def test_boosting_of_a_split_does_not_depend_on_the_others():
    target = Encoded(table("target", 60, 0))
    first, then = np.arange(12), np.arange(20, 32)
    both = predicted(target, [first, then])
    assert torch.equal(both[1:], predicted(target, [then])) and torch.equal(both[:1], predicted(target, [first]))
    assert not torch.equal(both[:1], predicted(target, [first], seed=1))


def test_the_chance_of_one_split_is_not_that_of_the_next():
    """Ten splits of the same values at other places: with one seed for all, forests and boosting would be the same."""
    part = table("part", 12, 0)
    tiled = part.take(np.tile(np.arange(12), 5))
    target = Encoded(tiled)
    training = [np.arange(12) + 12 * i for i in range(5)]
    boosted = predicted(target, training)
    assert all(not torch.equal(boosted[0], other) for other in boosted[1:])
    task = task_of(target, training, 0)
    (forest,) = target_members(task)["target_forest"]
    found = forest.probabilities(task.x)
    assert all(not np.array_equal(found[0], other) for other in found[1:])
