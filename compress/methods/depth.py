"""Depth pruning: whole blocks go, those that change the hidden states least.

Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024, arXiv 2403.03853:
block _influence 1 - cos(h_in, h_out), the mean over tokens (their equation 1). What is left is a plain model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.algorithms.budget import budget
from compress.algorithms.options import Limits
from compress.algorithms.traits import Needs, Traits
from compress.model.structure import keep_blocks, sublayers
from compress.model.walk import Batch, drop_padding, mean_length, run
from transmeter.util.progress import track

TRAITS = Traits(Needs(models=1, gradients=False, matrices=0, copies=0, shrinks=True), changes="blocks")


@torch.no_grad()
def compress(model: nn.Module, batches: Sequence[Batch], *, limits: Limits = Limits()) -> nn.Module:
    """Remove blocks until the rest keeps a limit.

    Up to one block more goes than was asked for.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    limits
        What may stay, one of: share of the FLOPs of heads and neurons that goes, and size or seconds of the whole
        model.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For a limit that no single block would keep.
    RuntimeError
        What is reached misses the request.

    References
    ----------
    arXiv 2403.03853
    """
    limit = budget(model, mean_length(batches), limits, "block")
    if limit.allowed >= limit.dense:
        return model
    parts = list(zip(limit.found, limit.costs))
    kept = list(range(model.config.num_hidden_layers))
    costs = {i: sum(s.units * c for s, c in parts if s.block == i) for i in kept}
    least = min(costs.values())
    if limit.allowed < least:
        what = f"{limit.allowed:.6g} of {limit.dense:.6g} {limit.unit} are allowed, a block takes {least:.6g}"
        raise ValueError(f"no block would be left: {what}: allow more, or remove heads and neurons")
    for block in _influence(model, batches).argsort(stable=True).tolist():
        if sum(costs[i] for i in kept) > limit.allowed * (1 + 1e-9) and len(kept) > 1:
            kept.remove(block)
    keep_blocks(model, kept)
    stayed = [c for s, c in parts if s.block in kept]
    limit.require(model, sum(s.units * c for s, c in zip(sublayers(model), stayed)))
    return model


def _influence(model: nn.Module, batches: Sequence[Batch]) -> Tensor:
    """1 - cos(h_in, h_out) of every block, (blocks,): the mean over real tokens."""
    stream, found = [run(model, b, stop=0) for b in batches], []
    tokens = sum(int(b["attention_mask"].sum()) for b in batches)
    for block in track(range(model.config.num_hidden_layers), "Block _influence"):
        after = [run(model, b, block, block + 1, h) for b, h in zip(batches, stream)]
        pairs = ((drop_padding(b, x).double(), drop_padding(b, y).double()) for b, x, y in zip(batches, stream, after))
        found.append(sum(float((1 - F.cosine_similarity(x, y)).sum()) for x, y in pairs) / tokens)
        stream = after
    return torch.tensor(found, dtype=torch.float64)
