"""What `import compress` offers: one method on one model, in memory."""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from compress import hub, pipeline
from compress.calibration import sampling
from compress.calibration.texts import Text, batches, check_texts
from compress.methods import check
from compress.model import io
from compress.model.reading import adopt, check_pair
from compress.model.storage import round_weights
from compress.model.structure import vocabulary
from compress.report.card import GIVEN, write_card
from transmeter.util.arguments import seed_number, shown, whole_number


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
    length: int | None = None,
    pack: bool = False,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
) -> nn.Module:
    """A smaller model by one method; what is given stays as it is. `compress.save` writes it with its tokenizer.

    Its weights have the values that the file will hold: those of the type that the given model is stored in
    (`config.dtype`), in the type that it computes in.

    What was done stands in its attribute `compression`, a dict, of which `compress.save` makes the model card.

    Parameters
    ----------
    model
        Folder, GGUF file, hub name, or (model, tokenizer).
    method
        Name of a method; `transmeter methods` lists them.
    ratio, parameters, bytes, latency, multiple
        What is to go or may stay, of methods that remove units: as of compress.algorithms.options.UnitLimits; all
        None: half of the FLOPs.
    options
        The method's own options, by name.
    calibration
        Texts or pairs of texts, or what --calibration takes (a file, a folder of `transmeter calibrate`, "self");
        None for methods that look at none.
    tokens
        Number of tokens that are sampled from the calibration.
    length
        Largest number of tokens of a sequence; None: 512 for models that predict next tokens, 128 for others, and no
        more than the context.
    pack
        Fill sequences to their full length with texts one behind the other, an end token between them; for models that
        predict next tokens.
    batch_size
        Number of sequences that run at once; of those beyond 128 tokens fewer.
    seed
        Of sampling and of the method.
    device
        Where a folder or hub name is loaded to.

    Returns
    -------
    nn.Module
        The smaller model.

    Raises
    ------
    ValueError
        For what is unknown, of another type, out of range or cannot be read.
    RuntimeError
        What is reached misses the request.
    """
    tokens, batch_size = whole_number("tokens", tokens, 1), whole_number("batch_size", batch_size, 1)
    seed = seed_number("seed", seed)
    limits = {"ratio": ratio, "parameters": parameters, "bytes": bytes, "latency": latency, "multiple": multiple}
    own = check(method, {name: value for name, value in limits.items() if value is not None})
    step = pipeline.Step(method, {**own, **check(method, options)})
    if not (calibration is None or isinstance(calibration, str | Path)):
        check_texts("calibration", calibration)
    pipeline.check_steps([step], calibration is not None)
    if isinstance(calibration, str | Path):
        sampling.parse(str(calibration))
    if isinstance(model, str | Path):
        net, tokenizer = io.load(model, device)
    else:
        net, tokenizer = copy.deepcopy(_checked_pair(model))
        net = adopt(net, tokenizer)
    pipeline.check_fit([step], net, tokenizer)
    if isinstance(calibration, str | Path):
        sequences, used = sampling.sample(
            str(calibration), net, tokenizer, tokens, seed, lambda: net, length=length, pack=pack
        )
    else:
        kind = sampling.sequences_of(net, tokenizer, length, pack)
        sequences = kind.cut(tokenizer, calibration or [], tokens, seed)
        used = {"texts": GIVEN, "tokens": sum(map(len, sequences)), "seed": seed, **kind.about()}
        if calibration is not None and not sequences:
            least = f"fewer than {kind.length} tokens, a packed sequence" if pack else "no text of two tokens or more"
            raise ValueError(f"calibration holds {least}: give longer texts")
        sampling.warn_of_special_tokens("calibration", sequences, tokenizer)
    parts = batches(tokenizer, sequences, batch_size, vocabulary(net))
    data = [{k: v.to(net.device) for k, v in batch.items()} for batch in parts]
    noted = getattr(net, "compression", None) or _origin(net, tokenizer)
    start = time.perf_counter()
    found = pipeline.apply(net, data, step, seed)
    round_weights(found, net.dtype)
    noted = {**noted, **pipeline.about_embedding(found)}
    done = {**asdict(step), "seconds": time.perf_counter() - start, "after": pipeline.sizes_of(found)}
    both = _both(noted.get("calibration"), used if calibration is not None else None)
    found.compression = {**noted, "steps": [*noted["steps"], done], "calibration": both, "versions": hub.versions()}
    return found


def save(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    card: Mapping[str, object] | None = None,
    *,
    push_to_hub: str | None = None,
) -> Path:
    """Write a model folder that reloads exactly, with its model card, and compare it before it gets its name.

    Parameters
    ----------
    model
        Of `compress.load` or `compress.compress`, or one of transformers. Its weights take the type that they were
        stored in (`config.dtype`).
    tokenizer
        Its own.
    out
        A new folder, or an empty one.
    card
        What was done with which data, for compression.json, of which README.md is made; None: what
        `compress.compress` noted in the model.
    push_to_hub
        The name that the folder is uploaded as when it is written, [USER/]REPO; a repository that is new is private.
        None: it is not uploaded.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        Something is of another type, the folder cannot be made, or the upload cannot work with the name, the network
        or the token; then nothing is written.
    RuntimeError
        The reloaded model differs in a logit, and nothing is left; or the upload failed, and the folder is there.
    OSError
        It cannot be written (a full disk); then nothing is left.
    """
    if card is not None and not isinstance(card, Mapping):
        raise ValueError(f"card is {shown(card)}: give a dict of what is to stand in the model card, or leave it out")
    if push_to_hub is not None and not isinstance(push_to_hub, str):
        raise ValueError(f"push_to_hub is {shown(push_to_hub)}: give a name, [USER/]REPO")
    if push_to_hub:
        hub.check(push_to_hub)
    folder = io.save(model, tokenizer, out, card, write_card)
    if push_to_hub:
        hub.push(folder, push_to_hub)
    return folder


def _checked_pair(model: object) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """`model`. Raises ValueError for what is no (model, tokenizer) of transformers."""
    if not isinstance(model, tuple | list) or len(model) != 2:
        raise ValueError(f"model is {shown(model)}: give a folder, a hub name, or (model, tokenizer) of transformers")
    check_pair(*model)
    return model[0], model[1]


def _both(earlier: dict[str, Any] | None, now: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the model card says of the calibration of one step after another."""
    if not (earlier and now):
        return now or earlier
    parts = [part for used in (earlier, now) for part in used.get("parts", [used])]
    return {"texts": "one step after another", "tokens": sum(p["tokens"] for p in parts), "parts": parts}


def _origin(net: nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What is known of a model that nothing was done to."""
    name = net.config._name_or_path
    about = {"base_model": name, "base": hub.about_base(name)} if name else {}
    return {**about, "before": pipeline.sizes_of(net), "steps": []}
