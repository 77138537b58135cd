"""From a source's classifier to a network for the target: where weights go, what keys teach, and who is independent."""

import numpy as np
import pandas as pd
import pytest
import torch

from transmeter.gain.metrics import accuracies
from transmeter.network import transfer
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables import data
from transmeter.tables.splits import make_splits


def views(n=240, labelled=8, seed=0):
    """(target, source) of the same things: two faint columns with few labels, and five telling ones with all labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    keys = np.array([f"patient {i}" for i in range(n)], dtype=object)
    labels = np.array(["ill", "well"], dtype=object)[y]
    faint = rng.normal(size=(n, 12)) + 0.45 * np.outer(2 * y - 1, np.ones(12))
    telling = rng.normal(size=(n, 5)) + np.outer(2 * y - 1, np.ones(5))
    order = rng.permutation(n)
    few = np.where(np.arange(n) < labelled, labels, None)
    target = data.table("target", pd.DataFrame(faint).add_prefix("t"), few, keys)
    source = data.table("source", pd.DataFrame(telling[order]).add_prefix("s"), labels[order], keys[order])
    return target, source, y


def test_keys_teach_what_the_source_knows_of_the_same_rows():
    target, table, y = views()
    source = Source(table)
    taught = transfer._taught([source], target)
    assert taught.shape == (2, 232, 2) and (taught[1] == 0).all()  # the last arm is the target alone
    assert (taught[0].sum(1) - 1).abs().max() < 1e-5
    assert (taught[0].argmax(1).numpy() == y[8:]).mean() > 0.9  # ill, well by name; rows by key, not by place


def test_keys_are_no_use_without_class_names_in_common_or_keys_on_both_sides():
    target, table, _ = views()
    other = data.table("other", table.features, np.where(table.labels == "ill", "x", "y"), table.keys)
    plain = data.table("plain", table.features, table.labels)
    strangers = data.table("strangers", table.features, table.labels, np.char.add("z", np.arange(240).astype(str)))
    for lacking in (other, plain, strangers):
        assert transfer._taught([Source(lacking)], target) is None
    assert transfer._taught([Source(table)], data.table("t", target.features, target.labels)) is None


def test_a_class_that_only_one_side_has_is_left_out():
    target, table, _ = views()
    three = np.where(np.arange(240) % 3 == 0, "unknown", table.labels)
    taught = transfer._taught([Source(data.table("three", table.features, three, table.keys))], target)
    assert taught.shape == (2, 232, 2) and (taught[0].sum(1) - 1).abs().max() < 1e-5


def test_a_source_of_other_columns_helps_through_keys_alone():
    target, table, y = views()
    plain = data.table("without keys", table.features, table.labels)
    splits = make_splits(target, 3, 6, seed=0)
    trained = train([Source(table), Source(plain)], Encoded(target), splits, Terms(), Schedule(steps=60), seed=0)
    guess = trained.probabilities(Encoded(target).x).argmax(3).numpy()[:, :, 8:]
    keyed, without, alone = (guess == y[8:]).mean((1, 2))
    assert keyed > without + 0.03 and keyed > alone + 0.03


def test_networks_start_from_the_source_where_columns_and_classes_match(heart):
    source, target = Source(heart["cleveland"]), Encoded(heart["hungarian"])
    splits = make_splits(heart["hungarian"], 5, 3, seed=0)
    generator = torch.Generator().manual_seed(0)
    stack = transfer._fresh(2, 3, target.x.shape[1], source.x.shape[1], 2, generator)
    fresh = stack.target.transform.weight.detach().clone()
    mapping = transfer._place(stack, 0, source, target, splits)
    pairs = transfer.shared_features(source.encoder.names, target.encoder.names)
    assert len(pairs) >= 13 and mapping.tolist() == [[0, 1]] * 3
    branch, trunk = source.classifier.branch, source.classifier.trunk
    pace = stack.pace[stack.target.transform.weight]
    for i, j in pairs:
        assert torch.equal(stack.target.transform.weight[2, j], branch.transform.weight[0, i])
        assert (pace[:3, j] == transfer.PACE).all()
    assert torch.equal(stack.trunk.head.weight[1], trunk.head.weight[0])
    assert torch.equal(stack.target.transform.weight[3:], fresh[3:]) and (pace[3:] == 1).all()  # the target alone
    assert (stack.trunk.head.weight[3:] == 0).all() and torch.equal(fresh[:3], fresh[3:])


def test_a_network_does_not_depend_on_the_company_nor_on_long_sources(heart, monkeypatch):
    target = Encoded(heart["va"])
    splits = make_splits(heart["va"], 5, 2, seed=0)
    sources = [Source(heart["cleveland"]), Source(heart["switzerland"])]

    def found(*chosen):
        return train(chosen, target, splits, Terms(), Schedule(steps=10), seed=4).probabilities(target.x)

    both, first = found(*sources), found(sources[0])
    torch.testing.assert_close(both[0], first[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(both[-1], found()[-1], rtol=0, atol=1e-4)
    assert accuracies(both, target.table.codes, splits, "accuracy").shape == (3, 2)
    monkeypatch.setattr(transfer, "SOURCE_ROWS", 50)
    assert len(transfer._kept(heart["cleveland"])) == 50
    chances = found(sources[0])
    torch.testing.assert_close(chances.sum(-1), torch.ones(chances.shape[:-1]))


@pytest.mark.parametrize("names, expected", [("pq", [0, 1]), ("qp", [0, 1]), ("xy", [0, 1]), ("yx", [1, 0])])
def test_classes_map_by_name_else_by_the_nearest_means(names, expected):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = pd.DataFrame(rng.normal(size=(120, 3)) + 4 * y[:, None]).add_prefix("c")
    source = Source(data.table("s", x, np.array(list(names), dtype=object)[y]))
    target = data.table("t", x, np.array(list("pq"), dtype=object)[y])
    splits = make_splits(target, 5, 2, seed=0)
    stack = transfer._fresh(2, 2, 3, 3, 2, torch.Generator().manual_seed(0))
    mapping = transfer._place(stack, 0, source, Encoded(target), splits)
    assert mapping.tolist() == [expected] * 2
