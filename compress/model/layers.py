"""Storage and forward of changed layers.

This file is copied into every folder that needs it, so that transformers alone can reload the model
(`trust_remote_code=True`); it imports nothing but torch.

A layer that is stored in fewer bits is a `PackedLinear` or a `PackedEmbedding` around a form of storage: `Bitmask`,
`Uniform` or `Codebook`. It saves disk and download; from its first use on the dense weight is in memory.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NoAttention(nn.Module):
    """Stands where every head was removed: gives zeros of width `features`, plus a bias where there was one.

    In a cache it holds one zero a token, since a cache counts the tokens that it has seen layer by layer.
    """

    def __init__(self, features: int, bias: bool, layer_idx: int | None):
        super().__init__()
        self.features, self.layer_idx = features, layer_idx
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module."""
        return {"features": self.features, "bias": self.bias is not None, "layer_idx": self.layer_idx}

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, None]:
        """hidden_states (batch, tokens, width); architectures pass much else to their attention, not needed here."""
        shape = hidden_states.shape[:-1]
        cache = find_cache([*args, *kwargs.values()])
        if cache is not None:
            heads, width = _allocated(cache, self.layer_idx)
            seen = hidden_states.new_zeros(shape[0], heads, shape[1], width)
            cache.update(seen, seen, self.layer_idx)
        output = hidden_states.new_zeros(*shape, self.features)
        return (output if self.bias is None else output + self.bias), None


def find_cache(values: Iterable[object]) -> Any:
    """The cache of keys and values among arguments.

    Told by what it can do, not by the name of the argument: transformers called it `past_key_values`, then `cache`.

    Parameters
    ----------
    values
        Arguments of any kind.

    Returns
    -------
    object
        The first cache; None where there is none.
    """
    for value in values:
        value = getattr(value, "self_attention_cache", value)  # of a decoder that also looks at an encoder
        if hasattr(value, "update") and hasattr(value, "get_seq_length"):
            return value
    return None


def _allocated(cache: Any, layer: int | None) -> tuple[int, int]:
    """Heads, and numbers a head, that a static cache has room for in a layer already; else one of one."""
    layers = getattr(cache, "layers", [])
    keys = getattr(layers[layer], "keys", None) if layer is not None and layer < len(layers) else None
    return (keys.shape[1], keys.shape[3]) if keys is not None and keys.dim() == 4 else (1, 1)


class LowRankLinear(nn.Module):
    """A linear layer whose weight is the product of two, up (out, rank) and down (rank, in)."""

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.down = nn.utils.skip_init(nn.Linear, in_features, rank, bias=False)
        self.up = nn.utils.skip_init(nn.Linear, rank, out_features, bias=bias)

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module; `up` and `down` may be packed and have their own."""
        sizes = {"in_features": self.in_features, "out_features": self.out_features, "rank": self.down.out_features}
        return sizes | {"bias": self.up.bias is not None}

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self.up(self.down(x))


class Expert(nn.Module):
    """An expert of a mixture: output(activation(gate(x)) * up(x)), three linear layers without biases.

    Parameters
    ----------
    weights
        Of the gate and of what it multiplies, (neurons, width), and of the output, (width, neurons).
    names
        Those that the three layers have in the files of the model.
    activation
        A module.
    """

    def __init__(self, weights: Sequence[Tensor], names: Sequence[str], activation: nn.Module):
        super().__init__()
        self.names, self.activation = tuple(names), activation
        for name, weight in zip(names, weights):
            linear = nn.utils.skip_init(nn.Linear, *weight.shape[::-1], bias=False, device=weight.device)
            linear.weight = nn.Parameter(weight)
            self.add_module(name, linear)

    def forward(self, tokens: Tensor, hidden_states: Tensor) -> Tensor:
        """tokens (n,): the numbers of those that it is for, of hidden_states (tokens, width) -> (n, width)."""
        gate, up, output = (self.get_submodule(name) for name in self.names)
        x = hidden_states[tokens]
        return output(self.activation(gate(x)) * up(x))


class Experts(nn.ModuleList):
    """The experts of a mixture, each of layers of its own, where transformers has two tensors of all experts."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden_states (tokens, width); the experts of a token and their weights (tokens, k) -> (tokens, width)."""
        output = torch.zeros_like(hidden_states)
        for number in top_k_index.unique().tolist():
            tokens, place = torch.where(top_k_index == number)
            given = self[number](tokens, hidden_states) * top_k_weights[tokens, place, None]
            output.index_add_(0, tokens, given.to(output.dtype))
        return output


def _stored(*size: int, dtype: torch.dtype | None = None) -> nn.Parameter:
    """A tensor of packed weights; not zeros, since memory that nobody wrote to costs nothing.

    A parameter, codes too: transformers does not tie buffers.
    """
    return nn.Parameter(torch.empty(size, dtype=dtype), requires_grad=False)


class Bitmask(nn.Module):
    """A weight (rows, columns) as one bit a number and the values that are not zero."""

    def __init__(self, rows: int, columns: int, nonzeros: int):
        super().__init__()
        self.rows, self.columns = rows, columns
        self.mask = _stored(-(-rows * columns // 8), dtype=torch.uint8)
        self.values = _stored(nonzeros)

    @classmethod
    def pack(cls, weight: Tensor) -> "Bitmask":
        """`weight` with its zeros left out."""
        keep = weight.flatten() != 0
        packed = cls(*weight.shape, int(keep.sum()))
        packed.mask.data, packed.values.data = pack_bits(keep.to(torch.uint8), 1), weight.detach().flatten()[keep]
        return packed

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module."""
        return {"rows": self.rows, "columns": self.columns, "nonzeros": len(self.values)}

    def unpack(self) -> Tensor:
        """The dense weight (rows, columns)."""
        keep = unpack_bits(self.mask, 1, self.rows * self.columns).bool()
        weight = self.values.new_zeros(len(keep))
        weight[keep] = self.values
        return weight.view(self.rows, self.columns)


class Uniform(nn.Module):
    """A weight (rows, columns) as scale * (code - zero), a scale and a zero for every `group` columns of a row.

    Parameters
    ----------
    rows, columns
        Sizes of the weight.
    bits
        Of a code; codes are packed.
    group
        Columns of a row that share a scale, (rows, columns / group) in all.
    symmetric
        Whether zero is 2^(bits - 1) throughout; else zeros are packed codes too.
    """

    def __init__(self, rows: int, columns: int, bits: int, group: int, symmetric: bool):
        super().__init__()
        self.rows, self.columns, self.bits, self.group, self.symmetric = rows, columns, bits, group, symmetric
        groups = columns // group
        self.codes = _stored(-(-rows * columns * bits // 8), dtype=torch.uint8)
        self.scale = _stored(rows, groups)
        self.zero = None if symmetric else _stored(-(-rows * groups * bits // 8), dtype=torch.uint8)

    @classmethod
    def pack(cls, codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> "Uniform":
        """codes (rows, columns) of 0..2^bits - 1; scale, and zero unless symmetric, (rows, groups)."""
        group = codes.shape[1] // scale.shape[1]
        packed = cls(*codes.shape, bits, group, zero is None)
        packed.codes.data, packed.scale.data = pack_bits(codes.flatten(), bits), scale
        if zero is not None:
            packed.zero.data = pack_bits(zero.flatten(), bits)
        return packed

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module."""
        return {name: getattr(self, name) for name in ("rows", "columns", "bits", "group", "symmetric")}

    def integers(self) -> tuple[Tensor, Tensor]:
        """codes (rows, columns) and zeros (rows, groups), uint8."""
        codes = unpack_bits(self.codes, self.bits, self.rows * self.columns).view(self.rows, self.columns)
        if self.zero is None:
            return codes, torch.full(self.scale.shape, 2 ** (self.bits - 1), dtype=torch.uint8, device=codes.device)
        return codes, unpack_bits(self.zero, self.bits, self.scale.numel()).view(self.scale.shape)

    def unpack(self) -> Tensor:
        """The dense weight (rows, columns)."""
        codes, zero = self.integers()
        steps = codes.view(self.rows, -1, self.group).to(self.scale.dtype) - zero[:, :, None].to(self.scale.dtype)
        return (steps * self.scale[:, :, None]).view(self.rows, self.columns)


class Codebook(nn.Module):
    """A weight (rows, columns) as codes, and what they stand for.

    Parameters
    ----------
    rows, columns
        Sizes of the weight.
    bits
        Of a code.
    width
        Columns of a row that one code stands for.
    books
        Tables of values, (books, 2^bits, width); book b is that of the rows b * rows / books and after.
    """

    def __init__(self, rows: int, columns: int, bits: int, width: int, books: int):
        super().__init__()
        self.rows, self.columns, self.bits, self.width, self.books = rows, columns, bits, width, books
        count = rows * columns // width
        self.codes = _stored(-(-count * bits // 8), dtype=torch.uint8)
        self.values = _stored(books, 2**bits, width)

    @classmethod
    def pack(cls, codes: Tensor, values: Tensor) -> "Codebook":
        """codes (rows, columns / width) of 0..2^bits - 1; values (books, 2^bits, width)."""
        books, size, width = values.shape
        bits = size.bit_length() - 1
        packed = cls(len(codes), codes.shape[1] * width, bits, width, books)
        packed.codes.data, packed.values.data = pack_bits(codes.flatten(), bits), values
        return packed

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module."""
        return {name: getattr(self, name) for name in ("rows", "columns", "bits", "width", "books")}

    def unpack(self) -> Tensor:
        """The dense weight (rows, columns)."""
        codes = unpack_bits(self.codes, self.bits, self.rows * self.columns // self.width).view(self.books, -1).long()
        each = [values[index] for values, index in zip(self.values, codes)]
        return torch.stack(each).view(self.rows, self.columns)


Form = Bitmask | Uniform | Codebook
FORMS = (Bitmask, Uniform, Codebook)


class _Packed(nn.Module):
    """What linear layers and embeddings have in common: a packed weight that is dense from its first use on."""

    def __init__(self, packed: Form):
        super().__init__()
        self.packed = packed
        self._dense: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The dense weight (rows, columns), in the type of the packed one's numbers."""
        number = self.packed.scale if isinstance(self.packed, Uniform) else self.packed.values
        if self._dense is None or (self._dense.dtype, self._dense.device) != (number.dtype, number.device):
            self._dense = self.packed.unpack().detach()
        return self._dense

    def forget(self) -> None:
        """Unpack anew, since the packed weight has changed."""
        self._dense = None

    def __getstate__(self) -> dict:
        """A copy unpacks anew."""
        return self.__dict__ | {"_dense": None}


class PackedLinear(_Packed):
    """A linear layer with a packed weight (out, in).

    Parameters
    ----------
    packed
        The weight.
    bias
        Whether there is one.
    smooth
        Whether its input is divided by the numbers `smooth` (in,) first.
    activations
        Bits to which every token's input is rounded, symmetric, its largest number on the grid; None: not at all.
    """

    def __init__(self, packed: Form, bias: bool, smooth: bool = False, activations: int | None = None):
        super().__init__(packed)
        self.in_features, self.out_features, self.activations = packed.columns, packed.rows, activations
        self.bias = nn.Parameter(torch.empty(packed.rows)) if bias else None
        self.smooth = _stored(packed.columns) if smooth else None

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module, with those of its form."""
        form = {"form": type(self.packed).__name__, **self.packed.spec()}
        own = {"bias": self.bias is not None, "smooth": self.smooth is not None, "activations": self.activations}
        return {"packed": form, **own}

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), of the same type: until a step is finished its numbers are not of the model's."""
        if self.smooth is not None:
            x = x / self.smooth.to(x.dtype)
        if self.activations is not None:
            x = rounded(x, self.activations)
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)


class PackedEmbedding(_Packed):
    """An embedding with a packed weight (tokens, width)."""

    def __init__(self, packed: Form):
        super().__init__(packed)
        self.num_embeddings, self.embedding_dim = packed.rows, packed.columns

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module, with those of its form."""
        return {"packed": {"form": type(self.packed).__name__, **self.packed.spec()}}

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> (..., width)."""
        return nn.functional.embedding(tokens, self.weight)


class Exits(nn.Module):
    """Where samples may leave a model before its last block, and when: an affine map per place.

    A map takes a token's state and the mean of its sequence's (.., 2 width) to what leaves the last block (.., width).
    `left` counts sequences that left by each exit, and by the end, since it was last set to zeros.

    Parameters
    ----------
    blocks
        Path of the model's list of blocks.
    width
        Features of a state.
    after
        Blocks that lie before each exit, rising.
    causal
        Whether the mean is of the tokens up to this one.
    temperatures
        What the logits of each exit are divided by.
    threshold
        The probability of the likeliest class with which a sample leaves; None: no exit is asked.
    """

    def __init__(
        self,
        blocks: str,
        width: int,
        after: Sequence[int],
        causal: bool,
        temperatures: Sequence[float],
        threshold: float | None,
    ):
        super().__init__()
        self.blocks, self.width, self.after, self.causal = blocks, width, list(after), causal
        self.temperatures, self.threshold, self.left = list(temperatures), threshold, [0] * (len(after) + 1)
        self.maps = nn.ModuleList(nn.utils.skip_init(nn.Linear, 2 * width, width) for _ in after)

    def spec(self) -> dict[str, object]:
        """Arguments that make such a module; the maps may be packed and have their own."""
        return {n: getattr(self, n) for n in ("blocks", "width", "after", "causal", "temperatures", "threshold")}

    def features(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """What enters a map, (batch, tokens, 2 width), of hidden (batch, tokens, width); mask: 1 for real tokens."""
        real = hidden.new_ones(hidden.shape[:2]) if mask is None or mask.dim() != 2 else mask.to(hidden.dtype)
        states, count = hidden * real[:, :, None], real[:, :, None]
        if self.causal:
            mean = states.cumsum(1) / count.cumsum(1).clamp(min=1)
        else:
            mean = (states.sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)).expand_as(hidden)
        return torch.cat([hidden, mean], -1)


CHANGED = (NoAttention, LowRankLinear, PackedLinear, PackedEmbedding, Exits)  # what `make` makes, beside nn.Linear


def rounded(x: Tensor, bits: int) -> Tensor:
    """Numbers on a symmetric grid, one scale per token.

    Parameters
    ----------
    x
        (..., features).
    bits
        Of the grid.

    Returns
    -------
    Tensor
        (..., features).
    """
    top = 2 ** (bits - 1) - 1
    scale = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) / top
    return (x / scale).round() * scale


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes as a stream of bits.

    Parameters
    ----------
    codes
        (n,) uint8 of 0..2^bits - 1.
    bits
        Of a code.

    Returns
    -------
    Tensor
        (ceil(n * bits / 8),) uint8, lowest bit first.
    """
    if 8 % bits:
        codes, bits = _split(codes, 1, bits), 1
    return _join(nn.functional.pad(codes, (0, -len(codes) % (8 // bits))).view(-1, 8 // bits), bits)


def unpack_bits(stream: Tensor, bits: int, count: int) -> Tensor:
    """The codes that `pack_bits` packed.

    Parameters
    ----------
    stream
        Its result.
    bits
        Of a code.
    count
        Number of codes.

    Returns
    -------
    Tensor
        (count,) uint8.
    """
    if 8 % bits:
        return _join(_split(stream, 1, 8)[: count * bits].view(count, bits), 1)
    return _split(stream, bits, 8 // bits)[:count]


def _split(numbers: Tensor, bits: int, count: int) -> Tensor:
    """The lowest `count` parts of every number, so many bits each, of numbers (n,) uint8; (n * count,)."""
    parts = numbers[:, None] >> torch.arange(0, bits * count, bits, dtype=torch.uint8, device=numbers.device)
    return parts.bitwise_and_(2**bits - 1).flatten()


def _join(parts: Tensor, bits: int) -> Tensor:
    """Numbers (n,) uint8 of parts (n, count), the lowest first, so many bits each."""
    numbers = parts[:, 0].clone()
    for i in range(1, parts.shape[1]):
        numbers |= parts[:, i] << i * bits
    return numbers


def make(kind: str, spec: dict[str, object]) -> nn.Module:
    """A module whose weights are yet to be loaded.

    Parameters
    ----------
    kind
        "Linear", "LayerNorm", or the name of one of the classes `CHANGED`.
    spec
        What its `spec` gave.

    Returns
    -------
    nn.Module
        The module.
    """
    spec = dict(spec)
    if kind == "Linear":
        with warnings.catch_warnings():  # all of a block may be removed: a layer without inputs or outputs
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            return nn.utils.skip_init(nn.Linear, **spec)
    if kind == "LayerNorm":
        return nn.utils.skip_init(nn.LayerNorm, **spec)
    if "packed" in spec:
        form = dict(spec["packed"])
        spec["packed"] = {f.__name__: f for f in FORMS}[form.pop("form")](**form)
    return {c.__name__: c for c in CHANGED}[kind](**spec)
