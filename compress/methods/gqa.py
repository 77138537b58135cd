"""Grouped-query attention: neighbouring key-value heads become one, which their queries share.

Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", EMNLP 2023,
arXiv 2305.13245, take the mean of the heads (merge=mean). Here (merge=fit) a group's heads are the best least-squares
factors of one: values V_h = V M_h for any matrices M_h, which the output projection takes over; keys, whose positions
are rotations of pairs of features, K_h = K c_h for complex numbers c_h, one a pair, which the queries take over. Both
are the leading singular vectors of the group's heads side by side, seen through the calibration inputs. Keys and
queries that go through a norm (Qwen3, Gemma 3) cannot take such numbers over: there merge=fit takes the mean of keys.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.algorithms.hessian import blocks, gram, inverse_factor
from compress.algorithms.traits import Needs, Traits
from compress.model.architectures import architecture, blocks_path, kind_of
from compress.model.structure import set_parameter, sublayers
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=1, states=1, gradients=False, matrices=5), changes="heads", streams=False)
DAMPING = 1e-4  # of the inputs' Gram matrix, relative to its mean diagonal


@torch.no_grad()
def compress(
    model: nn.Module, batches: Sequence[Batch], *, heads: int | None = None, merge: Literal["fit", "mean"] = "fit"
) -> nn.Module:
    """Merge key-value heads; a plain model is left.

    The key-value cache shrinks with them. Distil afterwards: what the merge loses, training wins back.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    heads
        Number of key-value heads that stay in every block; None: half of them.
    merge
        fit: least-squares factors of the heads; mean: their mean.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For a model without key-value groups, with pruned heads, or a number that does not divide its own.

    References
    ----------
    arXiv 2305.13245
    """
    before, head_dim = _check(model, heads)
    heads = before // 2 if heads is None else heads
    if heads == before:
        return model
    entry = architecture(model).attention
    path = list(entry.producers)
    for block, shared in enumerate(blocks(model, batches, _affine, "Merging heads")):
        prefix = f"{blocks_path(model)}.{block}."
        query, key, value = (model.get_submodule(prefix + p) for p in path)
        moment = next(moment for paths, moment in shared if prefix + path[0] in paths)
        output = model.get_submodule(prefix + entry.output)
        queries = query.out_features // key.out_features  # that share a key now
        keys = _with_bias(key).view(heads, before // heads, head_dim, -1)
        values = _with_bias(value).view(heads, before // heads, head_dim, -1)
        if merge == "mean":
            _put(model, prefix + path[1], keys.mean(1).flatten(0, 1))
            _put(model, prefix + path[2], values.mean(1).flatten(0, 1))
        else:
            root = torch.linalg.inv(inverse_factor(moment, DAMPING)).T  # root root^T = the moment
            if entry.head_norms:  # of which no number gets through
                _put(model, prefix + path[1], keys.mean(1).flatten(0, 1))
            else:
                new, turns = _fit_keys(keys, root)
                _put(model, prefix + path[1], new)
                _put(model, prefix + path[0], _turned(_with_bias(query), turns, queries))
            new, maps = _fit_values(values, root)
            _put(model, prefix + path[2], new)
            columns = output.weight.double().view(len(output.weight), before, queries, head_dim)
            mapped = torch.einsum("ohqd,hde->ohqe", columns, maps.flatten(0, 1))
            set_parameter(model, f"{prefix}{entry.output}.weight", mapped.flatten(1).to(output.weight.dtype))
        model.get_submodule(prefix + path[1].rpartition(".")[0]).num_key_value_groups = query.out_features // (
            heads * head_dim
        )
    model.config.num_key_value_heads = heads
    return model


def _check(model: nn.Module, heads: int | None) -> tuple[int, int]:
    """Key-value heads of every block, and their width."""
    found = [s for s in sublayers(model) if s.kind == "attention"]
    entry, kind = architecture(model).attention, kind_of(model)
    before = getattr(model.config, "num_key_value_heads", None)
    if before is None:
        raise ValueError(f"model type '{kind}' has no key-value groups: gqa merges those of decoders such as llama")
    if len(entry.producers) != 3 or entry.vectors:
        what = "a norm over all heads" if entry.vectors else "one projection for queries, keys and values"
        raise ValueError(f"model type '{kind}' has {what}, so that gqa cannot merge heads: prune it with kprune")
    if len(found) < model.config.num_hidden_layers or any(s.units != before for s in found):
        raise ValueError(f"some blocks have fewer than the {before} key-value heads of the config: gqa comes first")
    if heads is not None and (heads < 1 or before % heads) or heads is None and before % 2:
        fits = ", ".join(str(n) for n in range(1, before + 1) if before % n == 0)
        raise ValueError(f"heads {heads} does not divide the {before} key-value heads of the model: give one of {fits}")
    key = model.get_submodule(f"{blocks_path(model)}.0.{list(entry.producers)[1]}")
    return before, key.out_features // before


def _affine(states: Tensor) -> Tensor:
    """Gram matrix of states (tokens, features) and a column of ones, for the biases."""
    return gram(nn.functional.pad(states, (0, 1), value=1.0))


def _with_bias(linear: nn.Linear) -> Tensor:
    """Weight and bias side by side, (out, in + 1), float64."""
    bias = linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
    return torch.cat([linear.weight, bias[:, None]], 1).double()


def _put(model: nn.Module, path: str, both: Tensor) -> None:
    linear = model.get_submodule(path)
    both = both.to(linear.weight.dtype)
    if linear.bias is not None:
        set_parameter(model, f"{path}.bias", both[:, -1].clone())
    set_parameter(model, f"{path}.weight", both[:, :-1].clone())


def _fit_keys(keys: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """One head for every group, (groups * head_dim, in), and the numbers c, (groups, members, head_dim / 2) complex.

    keys (groups, members, head_dim, in); root (in, in) of the inputs' moment.
    """
    half = keys.shape[2] // 2
    pairs = torch.complex(keys[:, :, :half], keys[:, :, half:])  # rotary positions turn features i and i + half
    left, _, right = torch.linalg.svd((pairs @ root.to(pairs.dtype)).transpose(1, 2), full_matrices=False)
    turns = left[..., 0] * (pairs.shape[1] ** 0.5)  # (groups, half, members), of mean square 1
    best = torch.einsum("gfm,gmfi->gfi", turns.conj(), pairs) / pairs.shape[1]
    return torch.cat([best.real, best.imag], 1).flatten(0, 1), turns.transpose(1, 2)


def _turned(query: Tensor, turns: Tensor, queries: int) -> Tensor:
    """Queries (heads * queries * head_dim, in) times the conjugates of c, so that q conj(K c) = (q conj(c)) conj(K)."""
    half = turns.shape[-1]
    found = query.view(-1, queries, 2, half, query.shape[1])
    found = torch.complex(found[:, :, 0], found[:, :, 1]) * turns.flatten(0, 1).conj()[:, None, :, None]
    return torch.stack([found.real, found.imag], 2).view_as(query)


def _fit_values(values: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """One head for every group, (groups * head_dim, in), and the maps M, (groups, members, head_dim, head_dim).

    values (groups, members, head_dim, in); value_h is about M_h value, so that the output's columns take over M_h.
    """
    groups, members, width, _ = values.shape
    stacked = values.flatten(1, 2)  # (groups, members * head_dim, in)
    left = torch.linalg.svd(stacked @ root, full_matrices=False).U[..., :width]
    best = left.transpose(1, 2) @ stacked
    return best.flatten(0, 1), left.view(groups, members, width, width)
