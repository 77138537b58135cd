"""Splits of labelled rows."""

import numpy as np
import pytest

from tests.transmeter.gain.test_estimate import table
from transmeter.tables.splits import make_splits, seed_of


def test_folds_measure_every_labelled_row_once_and_never_train_on_it():
    splits = make_splits(table([20, 13], unlabelled=7), None, 3, seed=0)
    for repeat in range(3):
        tests = np.concatenate([s.test for s in splits if s.repeat == repeat])
        assert sorted(tests) == list(range(33))
    assert all(not set(s.train) & set(s.test) for s in splits)


def test_shots_train_on_that_many_rows_a_class():
    t = table([20, 13], unlabelled=7)
    for split in make_splits(t, 5, 4, seed=0):
        assert list(np.bincount(t.codes[split.train])) == [5, 5]
        assert len(split.test) == 23 and not set(split.train) & set(split.test)


@pytest.mark.parametrize("counts, shots, repeats", [([20, 1], None, 2), ([20, 5], 5, 2), ([20, 20], 5, 1)])
def test_what_cannot_be_split_is_refused(counts, shots, repeats):
    with pytest.raises(ValueError, match="at least"):
        make_splits(table(counts), shots, repeats, seed=0)


def test_a_seed_is_that_of_the_rows_whatever_their_order():
    rows = np.array([5, 2, 9])
    assert seed_of(0, rows) == seed_of(0, rows[::-1]) != seed_of(1, rows)
    assert len({seed_of(0, np.arange(i, i + 10)) for i in range(50)}) == 50
