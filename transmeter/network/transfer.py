"""From pre-trained sources to networks for a target: where each starts, and their training as one stack."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transmeter.network.losses import class_means
from transmeter.network.modules import Branch, Discriminators, StackedLinear, Trunk, represent
from transmeter.network.source import HIDDEN, WIDTH, Encoded, Source
from transmeter.network.training import Data, Schedule, Stack, Terms, fit
from transmeter.tables.data import Table
from transmeter.tables.matching import match_classes, shared_features
from transmeter.tables.splits import Split

PACE = 1 / 3  # of the learning rate for weights that come from a source
SOURCE_ROWS = 2000  # of a source that a transfer draws from, so that memory is flat in the sources' sizes


@dataclass(frozen=True)
class Trained:
    """Networks after training, arms x splits, the last arm being the target alone.

    Attributes
    ----------
    stack : Stack
        The networks.
    arms, splits : int
        Their numbers.
    """

    stack: Stack
    arms: int
    splits: int

    @torch.no_grad()
    def represent(self, x: Tensor) -> Tensor:
        """z (arms, splits, n, hidden) of target rows x (n, d)."""
        z = represent(self.stack.target, self.stack.trunk, x.expand(self.arms * self.splits, -1, -1))
        return z.unflatten(0, (self.arms, self.splits))

    @torch.no_grad()
    def represent_source(self, a: int, x: Tensor) -> Tensor:
        """z (splits, n, hidden) of rows x (n, d) of the source of arm `a`, by the same networks."""
        own = slice(a * self.splits, (a + 1) * self.splits)
        first, then = self.stack.source.transform, self.stack.trunk.encode
        hidden = F.relu(x @ first.weight[own, : x.shape[1]] + first.bias[own])
        return F.relu(hidden @ then.weight[own] + then.bias[own])

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """(arms, splits, n, classes) of target rows x (n, d)."""
        logits = self.stack.trunk.head(self.represent(x).flatten(0, 1))
        return logits.softmax(2).unflatten(0, (self.arms, self.splits))

    def weights(self, arm: int, split: int) -> dict[str, Tensor]:
        """What one network needs for a target row: weight (inputs, outputs) and bias (outputs,) of each layer."""
        layers = {"transform": self.stack.target.transform} | dict(self.stack.trunk.named_children())
        own = arm * self.splits + split
        found = {f"{n}.weight": layer.weight[own].detach().clone() for n, layer in layers.items()}
        return found | {f"{n}.bias": layer.bias[own, 0].detach().clone() for n, layer in layers.items()}


def train(
    sources: Sequence[Source], target: Encoded, splits: Sequence[Split], terms: Terms, schedule: Schedule, seed: int
) -> Trained:
    """One network for every source and split, and a last arm for the target alone, trained as one stack.

    All arms of a split start from the same fresh layers, which `seed` and the number of splits determine, and use the
    same target rows: a network does not depend on the other sources.

    Parameters
    ----------
    sources : sequence of Source
        May be empty.
    target : Encoded
        Target.
    splits : sequence of Split
        Of the target; their `train` rows are learned from.
    terms : Terms
        Weights of the loss.
    schedule : Schedule
        Steps and rates.
    seed : int
        Seed of fresh layers and batches.

    Returns
    -------
    Trained
        Arms in the order of `sources`.
    """
    classes, codes = len(target.table.classes), torch.from_numpy(target.table.codes)
    arms, generator = len(sources) + 1, torch.Generator().manual_seed(seed)
    features = torch.tensor([s.x.shape[1] for s in sources] + [0])
    kept = [_kept(s.table) for s in sources]
    rows = torch.tensor([len(k) for k in kept] + [0])
    x_s = torch.zeros(arms, int(rows.max()), int(features.max()))
    codes_s = torch.full((arms, int(rows.max())), -1)
    stack = _fresh(arms, len(splits), target.x.shape[1], int(features.max()), classes, generator)
    mapping = torch.full((arms, len(splits), classes), -1)
    for a, (source, k) in enumerate(zip(sources, kept)):
        x_s[a, : len(k), : features[a]] = source.x[k]
        codes_s[a, : len(k)] = torch.from_numpy(source.table.codes)[k]
        mapping[a] = _place(stack, a, source, target, splits)
    shots = max(len(s.train) for s in splits)
    data = Data(
        x_t=target.x,
        q_t=F.one_hot(codes.clamp_min(0), classes).float(),
        train=torch.stack([torch.from_numpy(np.resize(s.train, shots)) for s in splits]),
        x_u=target.x[codes < 0],
        rows=rows,
        x_s=x_s if sources else None,
        features=features,
        codes_s=codes_s,
        mapping=mapping.flatten(0, 1),
        taught=_taught(sources, target.table),
    )
    fit(stack, data, terms, schedule, seed)
    return Trained(stack, arms, len(splits))


@torch.no_grad()
def _taught(sources: Sequence[Source], target: Table) -> Tensor | None:
    """(arms, unlabelled rows, classes) probabilities by the sources' classifiers of rows of the same key and classes of
    the same name; None where no row is."""
    if target.keys is None or all(s.table.keys is None for s in sources):
        return None
    unlabelled = np.flatnonzero(target.codes < 0)
    taught = torch.zeros(len(sources) + 1, len(unlabelled), len(target.classes))
    for a, source in enumerate(sources):
        mapping = torch.from_numpy(match_classes(source.table.classes, target.classes, None, None))
        if source.table.keys is None or (mapping < 0).all():
            continue
        place = {key: i for i, key in enumerate(source.table.keys) if key is not None}
        pairs = [(i, place[key]) for i, key in enumerate(target.keys[unlabelled]) if key in place]
        if pairs:
            mine, theirs = (torch.tensor(k) for k in zip(*pairs))
            logits = source.classifier.trunk.head(
                represent(source.classifier.branch, source.classifier.trunk, source.x[theirs][None])
            )[0]
            known = mapping >= 0
            values = torch.zeros(len(mine), len(target.classes))
            values[:, known] = logits[:, mapping[known]].softmax(1)
            taught[a, mine] = values
    return taught if taught.any() else None


def _kept(table: Table) -> Tensor:
    """Row numbers of a source that a transfer draws from: labelled ones, at most SOURCE_ROWS."""
    rows = np.flatnonzero(table.codes >= 0)
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(rows)[:SOURCE_ROWS]))


def _fresh(arms: int, splits: int, features_t: int, features_s: int, classes: int, generator: torch.Generator) -> Stack:
    """A stack in which all arms of a split have the same layers, small ones on the target's side: few rows are
    learned best from a function near zero."""
    target = Branch(splits, features_t, WIDTH, HIDDEN, generator)
    trunk = Trunk(splits, WIDTH, HIDDEN, classes, generator)
    discriminators = Discriminators(splits, HIDDEN, classes, generator)
    with torch.no_grad():
        target.transform.weight *= 0.3
        trunk.head.weight.zero_()
        for module in (target, trunk, discriminators):
            for parameter in module.parameters():
                parameter.data = parameter.data.repeat(arms, *[1] * (parameter.dim() - 1))
    source = Branch(arms * splits, features_s, WIDTH, HIDDEN, generator)
    stack = Stack(target, trunk, source, discriminators)
    stack.pace = {p: torch.ones_like(p) for p in (*target.transform.parameters(), *trunk.parameters())}
    return stack


@torch.no_grad()
def _place(stack: Stack, a: int, source: Source, target: Encoded, splits: Sequence[Split]) -> Tensor:
    """Give the networks of arm `a` their starting weights; returns the source class of every target class, or -1,
    (splits, classes)."""
    branch, trunk, d = source.classifier.branch, source.classifier.trunk, source.x.shape[1]
    own = slice(a * len(splits), (a + 1) * len(splits))
    stack.source.transform.weight[own, :d] = branch.transform.weight
    stack.source.transform.bias[own] = branch.transform.bias
    stack.source.decode.weight[own, :, :d] = branch.decode.weight
    stack.source.decode.bias[own, :, :d] = branch.decode.bias
    pace = stack.pace
    _copy(stack.trunk.encode, own, trunk.encode)
    pace[stack.trunk.encode.weight][own] = pace[stack.trunk.encode.bias][own] = PACE
    shared = shared_features(source.encoder.names, target.encoder.names)
    if shared:
        i, j = (torch.tensor(k) for k in zip(*shared))
        stack.target.transform.weight[own, j] = branch.transform.weight[:, i]
        stack.target.transform.bias[own] = branch.transform.bias
        pace[stack.target.transform.weight][own, j] = pace[stack.target.transform.bias][own] = PACE
        stack.target.decode.weight[own, :, j] = branch.decode.weight[:, :, i]
    mapping = _map_classes(stack, own, source, target, splits, bool(shared))
    for p, classes in zip(range(own.start, own.stop), mapping):
        there = classes >= 0
        stack.trunk.head.weight[p, :, there] = trunk.head.weight[0][:, classes[there]]
        stack.trunk.head.bias[p, :, there] = trunk.head.bias[0][:, classes[there]]
        pace[stack.trunk.head.weight][p, :, there] = pace[stack.trunk.head.bias][p, :, there] = PACE
    return torch.from_numpy(mapping)


def _map_classes(
    stack: Stack, own: slice, source: Source, target: Encoded, splits: Sequence[Split], shared: bool
) -> np.ndarray:
    """(splits, classes) by name, else by the distance of class means in the source's representation."""
    names = source.table.classes, target.table.classes
    if not shared or set(names[0]) & set(names[1]):
        return np.tile(match_classes(*names, None, None), (len(splits), 1))
    means_s = table_means(represent(source.classifier.branch, source.classifier.trunk, source.x[None]), source.table)
    first = stack.target.transform
    found = []
    for p, split in zip(range(own.start, own.stop), splits):
        rows = target.table.take(split.train)
        hidden = F.relu(target.x[split.train] @ first.weight[p] + first.bias[p])
        z = F.relu(source.classifier.trunk.encode(hidden[None]))
        found.append(match_classes(*names, means_s, table_means(z, rows)))
    return np.stack(found)


def table_means(z: Tensor, table: Table) -> np.ndarray:
    """Means of representations over the labelled rows of each class.

    Parameters
    ----------
    z : Tensor of shape (1, n, h)
        Representations of the table's rows.
    table : Table
        The table.

    Returns
    -------
    ndarray of shape (classes, h)
        Zero for a class without rows.
    """
    codes = torch.from_numpy(table.codes)
    q = F.one_hot(codes.clamp_min(0), len(table.classes)).float() * (codes >= 0)[:, None]
    return class_means(z, q[None])[0].numpy()


def _copy(into: StackedLinear, own: slice, layer: StackedLinear) -> None:
    into.weight[own] = layer.weight
    into.bias[own] = layer.bias
