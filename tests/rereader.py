"""What a reader with transformers alone makes of a model folder; run as a script it knows nothing of this project.

As a script: a line in names a folder, a class, a file with the inputs of the forward, and a file for what came of it.
"""

import inspect
import json
import sys
from collections.abc import Sequence

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

NEW = 6  # tokens that are written


def padded(rows: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of token ids as a batch padded at `side`: ids, mask and positions, all (rows, tokens)."""
    ids, mask = torch.zeros(2, len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(len(row)) if side == "right" else slice(ids.shape[1] - len(row), None)
        ids[i, place], mask[i, place] = row, 1
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def first_position(model: transformers.PreTrainedModel) -> int:
    """RoBERTa counts its positions from behind the padding index."""
    return model.config.pad_token_id + 1 if model.config.model_type.endswith("roberta") else 0


def last_alone(model: transformers.PreTrainedModel, rows: Sequence[Tensor]) -> Tensor:
    """Logits behind the last token of every row, each read alone and without a cache, (rows, classes)."""
    return torch.stack([model(input_ids=row[None], use_cache=False).logits[0, -1] for row in rows])


def last_cached(
    model: transformers.PreTrainedModel, rows: Sequence[Tensor], side: str, cache: transformers.Cache
) -> Tensor:
    """The same of a padded batch, the last token of every row read in a step of its own with `cache`."""
    ids, mask, positions = padded([row[:-1] for row in rows], side)
    named = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    given = {named: cache, "use_cache": True}
    model(input_ids=ids, attention_mask=mask, position_ids=positions + first_position(model), **given)
    ids, positions = (torch.tensor(values)[:, None] for values in ([r[-1] for r in rows], [len(r) - 1 for r in rows]))
    mask = torch.cat([mask, torch.ones_like(ids)], 1)
    step = model(input_ids=ids, attention_mask=mask, position_ids=positions + first_position(model), **given)
    return step.logits[:, -1]


def written(model: transformers.PreTrainedModel, rows: Sequence[Tensor], use_cache: bool) -> Tensor:
    """The tokens that the model writes greedily behind the rows, padded on the left, (rows, NEW)."""
    ids, mask, _ = padded(rows, "left")
    asked = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=mask, use_cache=use_cache, **asked)[:, ids.shape[1] :]


def generation(model: transformers.PreTrainedModel, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """Whether what the model says of rows depends on the cache or on padding: what should be equal, by name."""
    found = {"alone": last_alone(model, rows), "written alone": torch.cat([written(model, [r], False) for r in rows])}
    for side in ("left", "right"):
        found[f"cached {side}"] = last_cached(model, rows, side, transformers.DynamicCache(config=model.config))
    return found | {"written": written(model, rows, False), "written cached": written(model, rows, True)}


def check_generation(found: dict[str, Tensor], sides: Sequence[str] = ("left", "right")) -> None:
    """Assert that what `generation` gives is equal where it should be, padded at these sides."""
    for side in sides:
        torch.testing.assert_close(found[f"cached {side}"], found["alone"], rtol=1e-4, atol=1e-4)
    assert found["written cached"].tolist() == found["written"].tolist() == found["written alone"].tolist()


def reread(folder: str, name: str, given: str) -> dict[str, Tensor]:
    """Logits of the model, and `generation` of the two longest and the shortest row where it writes text."""
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
    for parameter in model.parameters():  # off the mapped file, whose odd addresses change the last bit of sums
        parameter.data = parameter.data.clone()
    batch = load_file(given)
    found = {"logits": model(**batch).logits}
    if model.can_generate():
        if hasattr(model, "exits"):  # which are not asked where there is a cache
            model.exits.threshold = None
        for module in model.modules():  # rounded inputs turn a difference in the last bit into a whole step
            if hasattr(module, "activations"):
                module.activations = None
        rows = [ids[mask.bool()][:20] for ids, mask in zip(batch["input_ids"], batch["attention_mask"])]
        found |= generation(model, [rows[0], rows[-1][:9], rows[1][:14]])
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        *asked, out = json.loads(line)
        with torch.no_grad():
            save_file({k: v.contiguous() for k, v in reread(*asked).items()}, out)
        print("done", flush=True)
