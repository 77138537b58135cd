"""What may stay of a model: FLOPs, parameters, bytes or seconds (options.Limits), and the choice of units that fits."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from compress.algorithms.options import Limits
from compress.algorithms.resume import Progress
from compress.model import latency, layers
from compress.model.architectures import architecture, blocks_path
from compress.model.shapes import head_counts
from compress.model.structure import Sublayer, experts, sublayers

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """What the units of each sublayer cost and what all that stay may cost together, in one currency.

    Attributes
    ----------
    unit
        "FLOPs", "parameters", "bytes" or "seconds".
    found
        The sublayers.
    costs
        Of one unit, one a sublayer.
    allowed
        For all units together.
    dense
        The cost of all units now.
    multiples
        Number of units that stay together, one a sublayer.
    piece
        What goes at once: a unit (or a multiple of them), a sublayer or a block.
    clock
        What seconds are measured by; None: another currency.
    shapes
        Where every layer keeps as many: the numbers of heads and of neurons that keep the limit; else empty.
    """

    unit: str
    found: list[Sublayer]
    costs: list[float]
    allowed: float
    dense: float
    multiples: list[int]
    piece: latency.Piece
    clock: latency.Clock | None = None
    shapes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def step(self) -> float:
        """The cost of the largest piece."""
        if self.shapes:
            return max(self.layers("attention"), self.layers("ffn"))
        if self.piece == "unit":
            return max(c * m for c, m in zip(self.costs, self.multiples))
        pieces: dict[object, float] = {}
        for s, c in zip(self.found, self.costs):
            key = s.block if self.piece == "block" else s.output
            pieces[key] = pieces.get(key, 0.0) + s.units * c
        return max(pieces.values())

    def layers(self, kind: str) -> float:
        """The cost of what goes at once where it goes in every layer of a kind."""
        return sum(c * m for s, c, m in zip(self.found, self.costs, self.multiples) if s.kind == kind)

    def left(self, model: nn.Module) -> float:
        """The cost of the units that `model` has left, all its blocks still being there."""
        costs = {s.output: c for s, c in zip(self.found, self.costs)}
        return sum(s.units * costs[s.output] for s in sublayers(model))

    def require(self, model: nn.Module, left: float | None = None) -> None:
        """Raise RuntimeError unless what is left of `model` fits, and no more is gone than asked for.

        Within 0.5 % of what there was, or within the largest piece where that is more. left: the cost of what is left,
        where blocks are gone. Seconds are measured once more: warns where they are a tenth over the request.
        """
        left = self.left(model) if left is None else left
        if not self.allowed - max(0.005 * self.dense, self.step) <= left <= self.allowed + 0.005 * self.dense:
            raise RuntimeError(f"{self.unit} left: {left:.6g} reached, {self.allowed:.6g} requested")
        if self.clock:
            self.clock.check(model)


def budget(
    model: nn.Module, tokens: float, limits: Limits, piece: latency.Piece = "unit", progress: Progress | None = None
) -> Budget:
    """The budget that a structured method has to keep.

    Parameters
    ----------
    model
        The model.
    tokens
        Length of a sequence, in tokens.
    limits
        What may stay.
    piece
        What goes at once.
    progress
        Where finished parts are kept; None: nowhere.

    Returns
    -------
    Budget
        What units cost, and what they may cost together.

    Raises
    ------
    ValueError
        A limit that cannot be reached by removing heads and neurons, or with shape=uniform by no one shape.

    Warns
    -----
    UserWarning
        As compress.model.shapes.head_counts, and where there are experts, which stay whole.
    """
    found = sublayers(model)
    if experts(model) and piece != "block":
        warnings.warn("experts keep their neurons: a ratio is one of what else can go, heads above all", stacklevel=3)
    elif experts(model) and (limits.parameters or limits.bytes):
        raise ValueError("a size counts heads and neurons, a block with experts is more than them: give a ratio")
    multiples = [min(limits.multiple, s.units) if s.kind == "ffn" else 1 for s in found]
    clock = None
    rest = 0.0  # what is no unit's: embeddings, norms, head
    if limits.parameters or limits.bytes:
        size = 1 if limits.parameters else (model.config.dtype or torch.float32).itemsize
        unit, limit = ("parameters", limits.parameters) if limits.parameters else ("bytes", limits.bytes)
        costs = [float(size * _unit_parameters(model, s)) for s in found]
        rest = size * sum(p.numel() for p in model.parameters()) - sum(s.units * c for s, c in zip(found, costs))
    elif limits.latency:
        unit, limit = "seconds", limits.latency
        clock = latency.Clock(model, round(tokens), limit)
        measure = partial(latency.table, clock, found, piece)
        rest, costs = progress.once("latency", measure) if progress else measure()
    else:
        unit, limit = "FLOPs", None
        costs = [s.unit_flops(tokens) for s in found]
    dense = sum(s.units * c for s, c in zip(found, costs))
    allowed = (1 - limits.share) * dense if limit is None else limit - rest
    if allowed < 0:
        raise ValueError(
            f"{unit} {limit:.6g} cannot be reached by removing heads and neurons: give more than {rest:.6g}"
        )
    LOG.info("budget: %.4g of %.4g %s of heads and neurons may stay", allowed, dense, unit)
    limit = Budget(unit, found, costs, min(allowed, dense), dense, multiples, piece, clock)
    uniform = getattr(limits, "shape", "free") == "uniform" and limit.allowed < dense
    return replace(limit, shapes=_shapes(model, limit)) if uniform else limit


def _shapes(model: nn.Module, limit: Budget) -> list[tuple[int, int]]:
    """Numbers of heads and of neurons, the same in every layer, that keep a limit. Raises ValueError for none."""
    heads = head_counts(model)
    multiple, neurons = next((m, s.units) for m, s in zip(limit.multiples, limit.found) if s.kind == "ffn")
    head_cost, bundle_cost = limit.layers("attention"), limit.layers("ffn")
    slack, shapes = max(0.005 * limit.dense, head_cost, bundle_cost), []
    for head in heads:
        left = limit.allowed * (1 + 1e-12) - head * head_cost
        room = left / bundle_cost * multiple
        count = neurons if room >= neurons else int(room // multiple) * multiple  # a short bundle only as the last
        if count > 0 and left - count / multiple * bundle_cost <= slack:
            shapes.append((head, count))
    if not shapes:
        what = f"{limit.allowed:.4g} of {limit.dense:.4g} {limit.unit} may stay, which layers of one size miss"
        least = heads[-1] * head_cost + bundle_cost
        raise ValueError(f"{what}: give another limit (they take {least:.4g} at least), or shape=free")
    return shapes


def flops(model: nn.Module, tokens: float) -> float:
    """FLOPs of the blocks on one sequence; embeddings, norms, biases and head are left out.

    Parameters
    ----------
    model
        The model.
    tokens
        Length of a sequence, in tokens.

    Returns
    -------
    float
        2 n a weight of every linear layer, of experts the share of them that a token goes through, and 4 n^2 an
        attention input of its output projection.
    """
    blocks = model.get_submodule(blocks_path(model))
    size = _linear_size(blocks)
    for mixture in experts(blocks):
        size -= _linear_size(mixture) * (1 - model.config.num_experts_per_tok / len(mixture))
    heads = [b for b in blocks if not any(isinstance(m, layers.NoAttention) for m in b.modules())]
    output = architecture(model).attention.output
    attended = [b.get_submodule(output).in_features for b in heads]
    return 2 * tokens * size + 4 * tokens**2 * sum(attended)


def _linear_size(model: nn.Module) -> float:
    """Weights of all linear layers."""
    linears = [m for m in model.modules() if isinstance(m, nn.Linear | layers.PackedLinear)]
    return sum(m.in_features * m.out_features for m in linears)


def _unit_parameters(model: nn.Module, sublayer: Sublayer) -> int:
    """Parameters of one unit: its rows of the producers, with their biases and norms, and its columns of the output."""
    made = sum(
        sum(parts) * (sublayer.width + (model.get_submodule(path).bias is not None))
        for path, parts in sublayer.producers.items()
    )
    vectors = sum(sum(sublayer.producers[path]) for path in sublayer.vectors)
    return made + vectors + sublayer.columns * sublayer.width


def uniform_counts(scores: Sequence[Tensor], limit: Budget) -> list[int]:
    """How many units every sublayer keeps where all of a kind keep as many: those of least loss that a budget allows.

    Parameters
    ----------
    scores
        What is lost with a unit over what it costs, (units,) a sublayer.
    limit
        The budget, of shapes.

    Returns
    -------
    list of int
        Units that stay, one a sublayer.
    """
    lost = {}  # by the number of units that stay
    for kind in ("attention", "ffn"):
        each = [s.double() * c for s, c, sub in zip(scores, limit.costs, limit.found) if sub.kind == kind]
        totals = torch.stack([values.sort().values.cumsum(0) for values in each]).sum(0)
        lost[kind] = [*totals.flip(0).tolist(), 0.0]
    head, count = min(limit.shapes, key=lambda shape: lost["attention"][shape[0]] + lost["ffn"][shape[1]])
    heads, neurons = len(lost["attention"]) - 1, len(lost["ffn"]) - 1
    LOG.info("every layer keeps %d of %d heads and %d of %d neurons", head, heads, count, neurons)
    return [head if s.kind == "attention" else count for s in limit.found]


def best(scores: Tensor, count: int) -> Tensor:
    """The units of highest score.

    Parameters
    ----------
    scores
        (units,).
    count
        How many.

    Returns
    -------
    Tensor
        Boolean (units,).
    """
    keep = torch.zeros(len(scores), dtype=torch.bool)
    keep[scores.double().argsort(descending=True, stable=True)[:count].cpu()] = True
    return keep


def select(
    scores: Sequence[Tensor], costs: Sequence[float], allowed: float, multiples: Sequence[int] | None = None
) -> list[Tensor]:
    """Keep the units of highest score whose costs fit.

    Parameters
    ----------
    scores
        (units,) a sublayer.
    costs
        Of one unit, one a sublayer.
    allowed
        What they may cost together.
    multiples
        Number of units, one a sublayer, that stay together, by their mean score; None: 1.

    Returns
    -------
    list of Tensor
        Boolean (units,) a sublayer. Units that no longer fit are passed over, so that smaller ones use up what is left.
    """
    orders = [torch.argsort(s.double(), descending=True, stable=True) for s in scores]
    bundles = [torch.arange(len(s)) // m for s, m in zip(scores, multiples or [1] * len(scores))]  # kept together
    sizes = [torch.bincount(b) for b in bundles]
    means = [
        torch.zeros(len(n), dtype=torch.float64).index_add(0, b, s.double()[o]) / n
        for s, o, b, n in zip(scores, orders, bundles, sizes)
    ]
    pooled, cost = torch.cat(means), torch.cat([c * n.double() for c, n in zip(costs, sizes)])
    order = torch.argsort(pooled, descending=True, stable=True)
    total = cost[order].cumsum(0)
    fits = int((total <= allowed * (1 + 1e-12)).sum())
    chosen = torch.zeros(len(pooled), dtype=torch.bool)
    chosen[order[:fits]] = True
    left = allowed * (1 + 1e-12) - (float(total[fits - 1]) if fits else 0.0)
    for i in order[fits:].tolist():
        if cost[i] <= left:
            chosen[i] = True
            left -= float(cost[i])
        if left < cost.min():
            break
    kept = []
    for picked, o, b, n in zip(chosen.split([len(n) for n in sizes]), orders, bundles, sizes):
        if not picked.all():
            picked = picked & (n == n[0])  # the short bundle at the end only with all others
        keep = torch.zeros(len(o), dtype=torch.bool)
        keep[o] = picked[b]
        kept.append(keep)
    return kept
