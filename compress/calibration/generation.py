"""Text that a decoder writes by itself, to keep everything that it knows where there is no target."""

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration import hidden_states
from compress.calibration.texts import first
from compress.model.structure import context
from compress.model.walk import empty_cache
from transmeter.util.progress import track

KEPT = 0.8  # share of the sequences that are kept, those of the lowest perplexity
AT_ONCE = 32  # sequences


@torch.no_grad()
def generate(model: nn.Module, tokenizer: Tokenizer, tokens: int, length: int, seed: int = 0) -> list[list[int]]:
    """Sequences of at most `length` tokens, `tokens` in all, drawn from the model from its start token on.

    Of all that is drawn the fifth that surprises the model most is left out (arXiv 2410.17711). Raises ValueError for a
    model that does not predict next tokens, or whose tokenizer has no start token.
    """
    if model.get_output_embeddings() is None or not hasattr(model, "generate"):
        raise ValueError("only a model that predicts next tokens writes text by itself: give texts")
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise ValueError("the tokenizer has neither a start nor an end token to write from: give texts")
    length, drawn, found = context(model, length), torch.Generator().manual_seed(seed), []
    rounds = max(1, round(tokens / KEPT / length / AT_ONCE + 0.5))
    for _ in track(range(rounds), "Writing"):
        ids = torch.full((AT_ONCE, 1), start)
        fed, cache = ids, empty_cache(model)
        for _ in range(length - 1):
            out = model(input_ids=fed, **cache, use_cache=True)
            following = torch.multinomial(out.logits[:, -1].float().softmax(1), 1, generator=drawn)
            ids, fed = torch.cat([ids, following], 1), following
        found += [_until_end(row, tokenizer.eos_token_id) for row in ids.tolist()]
    view = hidden_states.collect(model, tokenizer, "self", [s for s in found if len(s) > 1], seed)
    likely = np.argsort(view.nll, kind="stable")[: max(1, round(KEPT * len(view.sequences)))]
    return first([view.sequences[i] for i in np.sort(likely)], tokens)


def _until_end(ids: list[int], end: int | None) -> list[int]:
    """Up to the first end token behind the start."""
    return ids[: ids.index(end, 1) + 1] if end is not None and end in ids[1:] else ids
