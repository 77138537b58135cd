"""Text that a decoder writes by itself, to keep everything that it knows where there is no target."""

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration import hidden_states
from compress.calibration.texts import at_once, first
from compress.model.structure import context
from compress.model.walk import empty_cache
from transmeter.util.progress import track

KEPT = 0.8  # share of the sequences that stay, those of the lowest perplexity
AT_ONCE = 32  # sequences written at once, of long ones fewer


@torch.no_grad()
def generate(model: nn.Module, tokenizer: Tokenizer, tokens: int, length: int, seed: int = 0) -> list[list[int]]:
    """Sample sequences from a model, from its start token on.

    The fifth of all sequences that has the highest negative log-likelihood is left out.

    Parameters
    ----------
    model
        A decoder.
    tokenizer
        Of the model.
    tokens
        Number of tokens in all.
    length
        Largest number of tokens of a sequence.
    seed
        Of the sampling.

    Returns
    -------
    list
        Token ids of every sequence.

    Raises
    ------
    ValueError
        The model does not predict next tokens, or its tokenizer has no start token.

    References
    ----------
    arXiv 2410.17711.
    """
    if not model.can_generate():
        raise ValueError("only a model that predicts next tokens writes text by itself: give texts")
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise ValueError("the tokenizer has neither a start nor an end token to write from: give texts")
    length, generator, found = context(model, length), torch.Generator().manual_seed(seed), []
    count = at_once(AT_ONCE, length)
    rounds = max(1, round(tokens / KEPT / length / count + 0.5))
    for _ in track(range(rounds), "Writing"):
        ids = torch.full((count, 1), start)
        fed, cache = ids, empty_cache(model)
        for _ in range(length - 1):
            out = model(input_ids=fed, **cache, use_cache=True)
            following = torch.multinomial(out.logits[:, -1].float().softmax(1), 1, generator=generator)
            ids, fed = torch.cat([ids, following], 1), following
        found += [_until_end(row, tokenizer.eos_token_id) for row in ids.tolist()]
    states = hidden_states.collect(model, tokenizer, "self", [s for s in found if len(s) > 1], seed)
    likely = np.argsort(states.nll, kind="stable")[: max(1, round(KEPT * len(states.sequences)))]
    return first([states.sequences[i] for i in np.sort(likely)], tokens)


def _until_end(ids: list[int], end: int | None) -> list[int]:
    """Up to the first end token behind the start."""
    return ids[: ids.index(end, 1) + 1] if end is not None and end in ids[1:] else ids
