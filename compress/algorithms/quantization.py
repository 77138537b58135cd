"""What quantizers share: the uniform grid, which layers are quantized, and putting packed weights in their place."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.model import layers
from compress.model.architectures import blocks_path
from compress.model.storage import stored_type
from compress.model.structure import refuse_changed

BITS = range(2, 9)
# Tried by `Grid.fit`: shares of the whole range, then what is added to the best of them.
OFFSETS = ((1.0, 0.85, 0.7, 0.55, 0.4), (-0.05, 0.05))
FINER = ((1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4), (-0.05, 0.05), (-0.025, 0.025))
CHUNK = 2**17  # weights that `Grid.fit` looks at together, so that they stay in the cache
SLACK = 1.05  # what is stored may take so much more than codes, scales and zeros need


@dataclass(frozen=True)
class Grid:
    """2^bits levels, evenly spaced, for groups of columns of a row.

    Attributes
    ----------
    bits
        Bits of a level.
    group
        Number of columns of a row that share a scale; None: the whole row.
    symmetric
        Whether zero is the middle level; else the levels span a group's smallest to its largest number.

    Raises
    ------
    ValueError
        For what is out of range.
    """

    bits: int
    group: int | None
    symmetric: bool

    def __post_init__(self):
        if self.bits not in BITS:
            raise ValueError(f"bits {self.bits}: give {BITS[0]} to {BITS[-1]}")
        if self.group is not None and self.group < 1:
            raise ValueError(f"group {self.group}: give 1 or more inputs, for example 64, or 'none' for a whole row")

    def split(self, weight: Tensor) -> Tensor:
        """weight (rows, columns) as (rows, groups, columns of a group)."""
        return weight.reshape(len(weight), -1, self.group or weight.shape[1])

    def fit(self, weight: Tensor, dtype: torch.dtype, importance: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Scale (rows, groups), exact in `dtype`, and zero (rows, groups) uint8 or None, for weight (rows, columns).

        importance (columns,): the range of every group shrinks to where the sum of the errors' squares, weighted by it,
        is smallest; (groups, columns of a group, columns of a group): to where e G e^T is, for the errors e and the
        group's matrix G; None: the levels span the whole range.
        """
        groups = weight.T.reshape(-1, self.group or weight.shape[1], len(weight))  # rows last: they share what is done
        scale, zero = self._levels(groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0), dtype)
        if importance is not None:
            below = torch.full_like(scale, 2 ** (self.bits - 1)) if zero is None else zero.to(scale.dtype)
            weights = (importance.view(groups.shape[:2]) if importance.dim() == 1 else importance).to(groups.dtype)
            parts = zip(*(t.split(max(CHUNK // groups[0].numel(), 1)) for t in (groups, scale, below, weights)))
            scale = torch.cat([self._shrunk(*part, dtype) for part in parts])
        return scale.T.contiguous(), None if zero is None else zero.T.contiguous()

    def _levels(self, low: Tensor, high: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Scale and zero of levels that span low <= 0 to high >= 0, all of one shape."""
        top = 2**self.bits - 1
        if self.symmetric:
            return _usable(torch.maximum(-low, high) * 2 / top, dtype), None
        scale = _usable((high - low) / top, dtype)
        return scale, (-low / scale).round().clamp(0, top).to(torch.uint8)

    def _shrunk(self, groups: Tensor, widest: Tensor, below: Tensor, importance: Tensor, dtype: torch.dtype) -> Tensor:
        """The scale (groups, rows) of least error for groups (groups, columns of a group, rows).

        With t the steps that w is rounded to at some scale, and e = s t - w for any other scale s, e G e^T is w G w^T
        less s (2 t G w^T - s t G t^T), least at s = t G w^T / t G t^T. For a diagonal G every scale that is tried gives
        way to that s: rounding anew can only lower the error. For another G it may not, and more are tried as they are.

        widest: the scale of the whole range, (groups, rows); below: the number of levels under zero, (groups, rows);
        importance: G, (groups, columns of a group, columns of a group), or its diagonal.
        """
        groups, full = groups.contiguous(), importance.dim() == 3
        weighted = importance @ groups if full else importance[:, :, None] * groups
        steps, spare = torch.empty_like(groups), torch.empty_like(groups)
        least, highest = -below[:, None], 2**self.bits - 1 - below[:, None]
        best, centre, most = widest, torch.zeros_like(widest), torch.full_like(widest, -torch.inf)
        for offsets in FINER if full else OFFSETS:
            around = centre
            for offset in offsets:
                scale = at = _usable(around + offset * widest, dtype)
                torch.clamp(torch.div(groups, at[:, None], out=steps).round_(), least, highest, out=steps)
                along = torch.mul(steps, weighted, out=spare).sum(1)
                if full:
                    curved = (importance @ steps).mul_(steps).sum(1)
                else:
                    curved = (importance[:, None] @ torch.mul(steps, steps, out=spare)).squeeze(1)
                    scale = torch.where(along > 0, torch.minimum(along / curved, 2 * widest), at)
                    scale = _usable(scale, dtype)
                gain = scale * (2 * along - scale * curved)
                better = gain > most
                best = torch.where(better, scale, best)
                centre = torch.where(better, at, centre)
                most = torch.where(better, gain, most)
        return best

    def codes(self, weight: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """The nearest levels, (rows, columns) uint8, of weight (rows, columns)."""
        middle = 2 ** (self.bits - 1) if zero is None else zero[:, :, None]
        found = (self.split(weight) / scale[:, :, None]).round() + middle
        return found.clamp(0, 2**self.bits - 1).to(torch.uint8).view_as(weight)

    def values(self, codes: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """What codes (rows, columns) stand for, (rows, columns)."""
        middle = 2 ** (self.bits - 1) if zero is None else zero[:, :, None].to(scale.dtype)
        return ((self.split(codes).to(scale.dtype) - middle) * scale[:, :, None]).view(codes.shape)

    def pack(self, codes: Tensor, scale: Tensor, zero: Tensor | None) -> layers.Uniform:
        """What is stored. Raises RuntimeError where it takes more than the bits that were asked for."""
        packed = layers.Uniform.pack(codes, scale, zero, self.bits)
        require(packed, self.bits + (0 if zero is None else self.bits) / packed.group)
        return packed

    def rounded(self, weight: Tensor, dtype: torch.dtype, importance: Tensor | None = None) -> Tensor:
        """What `nearest` stands for, (rows, columns)."""
        scale, zero = self.fit(weight, dtype, importance)
        return self.values(self.codes(weight, scale, zero), scale, zero)

    def nearest(self, weight: Tensor, dtype: torch.dtype, importance: Tensor | None = None) -> layers.Uniform:
        """weight (rows, columns) with every number at its nearest level."""
        scale, zero = self.fit(weight, dtype, importance)
        return self.pack(self.codes(weight, scale, zero), scale, zero)


def _usable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`scale` as it will be stored, 1 where it would be 0."""
    stored = scale.to(dtype).to(scale.dtype)
    return torch.where(stored > 0, stored, torch.ones_like(stored))


def chosen(model: nn.Module, embeddings: bool, head: bool) -> list[str]:
    """Paths of what is quantized; layers that pruning has left without a weight stay.

    Parameters
    ----------
    model
        The model.
    embeddings
        Whether all embeddings are.
    head
        Whether linear layers outside the blocks are.

    Returns
    -------
    list of str
        Linear layers of the blocks among them.

    Raises
    ------
    ValueError
        The model is quantized already, or an embedding is its head and only one is asked for.
    """
    refuse_changed(model, (layers.PackedLinear, layers.PackedEmbedding))
    inner, found = blocks_path(model) + ".", []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.numel() and (path.startswith(inner) or head):
            found.append(path)
        elif type(module) is nn.Embedding and embeddings:
            found.append(path)
    if embeddings != head and _tied_head(model):
        raise ValueError("the head of this model is its embedding: give embeddings and head both true, or neither")
    return found


def _tied_head(model: nn.Module) -> str | None:
    """Path of the linear layer whose weight is the embedding's, if there is one."""
    shared = model.get_input_embeddings().weight
    return next((p for p, m in model.named_modules() if isinstance(m, nn.Linear) and m.weight is shared), None)


def check_divides(model: nn.Module, paths: Sequence[str], size: int | None, what: str = "group") -> None:
    """Refuse a size that does not divide the inputs of every layer.

    Parameters
    ----------
    model
        The model.
    paths
        Paths of the layers in the model.
    size
        None: any will do.
    what
        Its name.

    Raises
    ------
    ValueError
        Names the nearest that does.
    """
    widths = {path: model.get_submodule(path).weight.shape[1] for path in paths}
    for path, width in widths.items():
        if size and width % size:
            fits = [n for n in range(1, min(widths.values()) + 1) if all(w % n == 0 for w in widths.values())]
            near = min(fits, key=lambda n: abs(n - size))
            raise ValueError(f"{what} {size} does not divide the {width} inputs of {path}: the nearest is {near}")


def put(
    model: nn.Module, path: str, packed: layers.Form, smooth: nn.Parameter | None = None, activations: int | None = None
) -> None:
    """Put a packed weight in the place of a linear layer or embedding; a head that is the embedding gets the same.

    Parameters
    ----------
    model
        The model.
    path
        Path of the layer in the model.
    packed
        The weight.
    smooth
        (in,), of layers.PackedLinear; layers of one input share it.
    activations
        Of layers.PackedLinear.
    """
    old = model.get_submodule(path)
    if isinstance(old, nn.Linear):
        new = layers.PackedLinear(packed, False, smooth is not None, activations)
        new.bias = old.bias
        new.smooth = smooth
        model.set_submodule(path, new)
        return
    head = _tied_head(model) if old is model.get_input_embeddings() else None
    model.set_submodule(path, layers.PackedEmbedding(packed))
    if head:
        put(model, head, packed)


def smoothing(wanted: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales as the `smooth` of a layer.

    Parameters
    ----------
    wanted
        (in,); a common factor does not matter.
    dtype
        That scales and values are stored in.

    Returns
    -------
    Tensor
        (in,): geometric mean 1, exact in `dtype`, 1 where it was 0 or infinite.
    """
    logs = wanted.log()
    known = logs.isfinite()
    return torch.where(known, logs - logs[known].mean(), 0.0).clamp(-7, 7).exp().to(dtype).to(wanted.dtype)


def weights(model: nn.Module, paths: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """The weights of layers in float32, a tied one once.

    Parameters
    ----------
    model
        The model.
    paths
        Paths of the layers in the model.

    Yields
    ------
    tuple
        Path and weight.
    """
    seen: set[int] = set()
    for path in paths:
        module = model.get_submodule(path)
        held = id(module._parameters.get("weight"))  # of a model that streams what stands for the weight
        if isinstance(module, nn.Linear | nn.Embedding) and held not in seen:
            seen.add(held)
            yield path, module.weight.detach().float()


def round_rest(model: nn.Module, paths: Sequence[str], grid: Grid) -> None:
    """Round to nearest, in place, what is not quantized yet; ranges shrink to the least squared error.

    Parameters
    ----------
    model
        The model.
    paths
        Paths of the layers in the model.
    grid
        The levels.
    """
    for path, weight in weights(model, paths):
        put(model, path, grid.nearest(weight, stored_type(model), weight.new_ones(weight.shape[1])))


def require(packed: layers.Form, bits: float) -> None:
    """Refuse a packed weight that is too large.

    Parameters
    ----------
    packed
        The weight.
    bits
        Requested for the codes of a weight.

    Raises
    ------
    RuntimeError
        Codes take more than that and `SLACK`.
    """
    codes = sum(p.nbytes for p in packed.parameters() if not p.is_floating_point())
    reached = 8 * codes / (packed.rows * packed.columns)
    if reached > bits * SLACK + 8 / (packed.rows * packed.columns):
        raise RuntimeError(f"bits: {reached:.3f} a weight reached, {bits:.3f} requested")
