"""What `import compress` offers: one method on one model, in memory."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from compress import draw, job, models
from compress.methods import check
from compress.structure import context
from compress.texts import MAX_LENGTH, Text, batches, cut


def compress(
    model: str | Path | tuple[nn.Module, PreTrainedTokenizerBase],
    method: str = "kprune",
    *,
    ratio: float | None = None,
    parameters: int | None = None,
    bytes: int | None = None,
    latency: float | None = None,
    multiple: int | None = None,
    options: Mapping[str, object] | None = None,
    calibration: str | Path | Sequence[Text] | None = None,
    tokens: int = 20_000,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
) -> nn.Module:
    """A smaller model by one method; what is given stays as it is. `compress.save` writes it with its tokenizer.

    model: folder, hub name, or (model, tokenizer); ratio, parameters, bytes, latency, multiple: what is to go or may
    stay, of methods that remove units (see compress.budget; none: half of the FLOPs); options: the method's own (see
    `transmeter methods`); calibration: texts (pairs of texts), or what --calibration takes (a file, a folder of
    `transmeter calibrate`, "self"), of which `tokens` tokens are drawn; None for methods that look at none; device:
    where a folder or hub name is loaded to.
    Raises ValueError for what is unknown, out of range or not to be read, RuntimeError where the request is missed.
    """
    limits = {"ratio": ratio, "parameters": parameters, "bytes": bytes, "latency": latency, "multiple": multiple}
    step = job.Step(method, {k: v for k, v in limits.items() if v is not None} | dict(options or {}))
    check(method, step.options, job.SHARED)
    job.check_steps([step], calibration is not None)
    if isinstance(calibration, str | Path):
        draw.parse(str(calibration))
    if isinstance(model, str | Path):
        net, tokenizer = models.load(model, device)
    else:
        net, tokenizer = copy.deepcopy(model)
        net = models.adopt(net, tokenizer)
    job.check_fit([step], net, tokenizer)
    if isinstance(calibration, str | Path):
        sequences = draw.draw(str(calibration), net, tokenizer, tokens, seed, lambda: net)[0]
    else:
        sequences = cut(tokenizer, calibration or [], tokens, context(net, MAX_LENGTH), seed)
        if calibration is not None and not sequences:
            raise ValueError("calibration holds no text of two tokens or more: give longer texts")
    data = [{k: v.to(net.device) for k, v in b.items()} for b in batches(tokenizer, sequences, batch_size)]
    return job.apply(net, data, step, seed)
