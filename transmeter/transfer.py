"""From pre-trained sources to networks for a target: where each starts, and their training as one stack."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transmeter.data import Encoder, Table
from transmeter.estimate import Split
from transmeter.losses import class_means
from transmeter.matching import match_classes, shared_features
from transmeter.modules import Branch, Discriminators, StackedLinear, Trunk, represent
from transmeter.source import HIDDEN, WIDTH, Source
from transmeter.training import Data, Schedule, Stack, Terms, fit


class Start:
    """A split with the target as encoded in it and the fresh layers that all arms of the split start from."""

    def __init__(self, target: Table, split: Split, seed: int):
        unlabelled = np.flatnonzero(target.codes < 0)
        self.split = split
        self.encoder = Encoder(target.features.iloc[np.concatenate([split.train, unlabelled])])
        self.x = torch.from_numpy(self.encoder(target.features))  # (n, d)
        generator = torch.Generator().manual_seed(seed)
        classes = len(target.classes)
        self.branch = Branch(1, self.x.shape[1], WIDTH, HIDDEN, generator)
        self.trunk = Trunk(1, WIDTH, HIDDEN, classes, generator)
        self.discriminators = Discriminators(1, HIDDEN, classes, generator)
        with torch.no_grad():  # few rows are learned best from a function near zero
            self.branch.transform.weight *= 0.3
            self.trunk.head.weight.zero_()


def train(
    sources: Sequence[Source], target: Table, starts: Sequence[Start], terms: Terms, schedule: Schedule, seed: int
) -> tuple[Tensor, Tensor]:
    """(representations (arms, splits, n, hidden), probabilities (arms, splits, n, classes)) of every target row.

    One arm a source and a last one for the target alone; all arms of a split start from the same fresh layers.
    """
    classes, codes = len(target.classes), torch.from_numpy(target.codes)
    arms, width = len(sources) + 1, max(s.x.shape[1] for s in starts)
    x_t = torch.stack([F.pad(s.x, (0, width - s.x.shape[1])) for s in starts])
    shots = max(len(s.split.train) for s in starts)
    features = torch.tensor([s.encoded.shape[1] for s in sources] + [0])
    rows = torch.tensor([len(s.table) for s in sources] + [0])
    x_s = torch.zeros(arms, int(rows.max()), int(features.max()))
    q_s = torch.zeros(arms * len(starts), int(rows.max()), classes)
    stack = _empty_stack(arms * len(starts), width, int(features.max()), classes)
    for a, source in enumerate([*sources, None]):
        if source is not None:
            x_s[a, : rows[a], : features[a]] = source.encoded
        for p, start in enumerate(starts):
            b = a * len(starts) + p
            mapping = _place(stack, b, start, source, target)
            if source is not None:
                q_s[b, : rows[a]] = _as_target(source.table.codes, mapping)
    data = Data(
        x_t=x_t,
        features_t=torch.tensor([s.x.shape[1] for s in starts]),
        q_t=F.one_hot(codes.clamp_min(0), classes).float(),
        train=torch.stack([torch.from_numpy(np.resize(s.split.train, shots)) for s in starts]),
        x_u=x_t[:, codes < 0],
        rows=rows,
        x_s=x_s,
        features=features,
        q_s=q_s,
    )
    fit(stack, data, terms, schedule, seed)
    with torch.no_grad():
        z = represent(stack.target, stack.trunk, x_t.repeat(arms, 1, 1))
        chances = stack.trunk.head(z).softmax(2)
    return z.unflatten(0, (arms, len(starts))), chances.unflatten(0, (arms, len(starts)))


def _empty_stack(size: int, features_t: int, features_s: int, classes: int) -> Stack:
    generator = torch.Generator().manual_seed(0)
    return Stack(
        target=Branch(size, features_t, WIDTH, HIDDEN, generator),
        trunk=Trunk(size, WIDTH, HIDDEN, classes, generator),
        source=Branch(size, features_s, WIDTH, HIDDEN, generator),
        discriminators=Discriminators(size, HIDDEN, classes, generator),
    )


@torch.no_grad()
def _place(stack: Stack, b: int, start: Start, source: Source | None, target: Table) -> np.ndarray:
    """Give network `b` its starting weights; returns the source class of every target class, or -1."""
    d = start.x.shape[1]
    _copy(stack.target.transform, b, start.branch.transform, rows=d)
    _copy(stack.target.decode, b, start.branch.decode, columns=d)
    _copy(stack.trunk.encode, b, start.trunk.encode)
    _copy(stack.trunk.head, b, start.trunk.head)
    for name, parameter in stack.discriminators.named_parameters():
        parameter[b] = start.discriminators.get_parameter(name)[0]
    if source is None:
        return np.full(len(target.classes), -1)
    branch, trunk = source.classifier.branch, source.classifier.trunk
    _copy(stack.source.transform, b, branch.transform, rows=source.encoded.shape[1])
    _copy(stack.source.decode, b, branch.decode, columns=source.encoded.shape[1])
    _copy(stack.trunk.encode, b, trunk.encode)
    shared = shared_features(source.encoder.names, start.encoder.names)
    if shared:
        i, j = (torch.tensor(k) for k in zip(*shared))
        stack.target.transform.weight[b, j] = branch.transform.weight[0, i]
        stack.target.transform.bias[b] = branch.transform.bias[0]
        stack.target.decode.weight[b][:, j] = branch.decode.weight[0][:, i]
    mapping = match_classes(source.table.classes, target.classes, *_means(stack, b, start, source, target, shared))
    for c, s in enumerate(mapping):
        if s >= 0:
            stack.trunk.head.weight[b, :, c] = trunk.head.weight[0, :, s]
            stack.trunk.head.bias[b, :, c] = trunk.head.bias[0, :, s]
    return mapping


def _means(stack: Stack, b: int, start: Start, source: Source, target: Table, shared: list) -> tuple:
    """Means (classes, h) of source and target classes in the common representation; None without shared features."""
    if not shared:
        return None, None
    branch, trunk = source.classifier.branch, source.classifier.trunk
    source_q = F.one_hot(torch.from_numpy(source.table.codes).clamp_min(0), len(source.table.classes)).float()
    source_q[source.table.codes < 0] = 0
    train = torch.from_numpy(start.split.train)
    target_q = F.one_hot(torch.from_numpy(target.codes)[train], len(target.classes)).float()
    weight, bias = stack.target.transform.weight[b, : start.x.shape[1]], stack.target.transform.bias[b]
    z_t = F.relu(trunk.encode(F.relu(start.x[train] @ weight + bias)[None]))
    z_s = represent(branch, trunk, source.encoded[None])
    return class_means(z_s, source_q[None])[0].numpy(), class_means(z_t, target_q[None])[0].numpy()


def _copy(
    into: StackedLinear, b: int, layer: StackedLinear, rows: int | None = None, columns: int | None = None
) -> None:
    into.weight[b, :rows, :columns] = layer.weight[0]
    into.bias[b, :, :columns] = layer.bias[0]


def _as_target(codes: np.ndarray, mapping: np.ndarray) -> Tensor:
    """One-hot target classes (n, classes) of source rows; zero for a class that no target class maps to."""
    return torch.from_numpy((codes[:, None] == mapping[None]) & (mapping >= 0)[None]).float()
