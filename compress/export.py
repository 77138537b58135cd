"""Models in formats that other tools read, each reread before it gets its name, all but gguf in another process.

compressed-tensors: weights of 4 or 8 bits as vLLM and plain transformers read them. torchao: weights of 8 bits;
torchao-dynamic rounds activations too, which makes large models faster on a CPU. onnx: encoders for onnxruntime. gguf:
decoders for llama.cpp and what is built on it.
"""

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from compress import gguf_files, hub
from compress.model import io, layers, modeling
from compress.model.architectures import blocks_path
from compress.model.embedding import Companions, has_head
from compress.model.storage import stored_type
from compress.model.structure import experts
from compress.model.tokenizers import write_tokenizer
from compress.report.card import write_card
from transmeter.util import writing

LOG = logging.getLogger(__name__)
NEEDED = {
    "compressed-tensors": ("compressed_tensors",),
    "torchao": ("torchao",),
    "torchao-dynamic": ("torchao",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "gguf": ("gguf",),
}
EXTRAS = {"gguf": "gguf"}  # that bring the libraries; of others "export"
TOLERANCE = 1e-4  # of ONNX and GGUF, relative to the largest logit; the other formats give equal logits
OUTPUTS = ("logits", "start_logits", "end_logits", "last_hidden_state")  # that are compared, each where there is one
_PROBE = 'It\'s 1,234 times "more" \u2014\n\n\tna\u00efve \u65e5\u672c; if (x == 10) {\n  y++;\n}'  # for tokenizers
# what a user of the folder would do; argv: folder, class, file for the logits
_REREAD = f"""
import json, sys
import numpy as np, torch, transformers
folder, name, out = sys.argv[1:]
model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
ids = (torch.arange(32) * 37 % model.config.vocab_size).view(2, 16)
with torch.no_grad():
    found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
np.save(out, torch.cat([found[k].flatten() for k in {OUTPUTS} if k in found]).numpy())
"""
_REREAD_ONNX = """
import sys
import numpy as np, onnxruntime
file, size, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
ids = (np.arange(32) * 37 % size).reshape(2, 16)
known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
found = session.run(None, {x.name: known[x.name] for x in session.get_inputs()})
np.save(out, np.concatenate([x.flatten() for x in found]))
"""


@torch.no_grad()
def export(
    source: str, format: str, out: Path, weights: str | None = None, tell: Callable[[str], None] | None = None
) -> int:
    """Write a model in a format that other tools read.

    Parameters
    ----------
    source
        A folder, a GGUF file or a hub name.
    format
        One of `NEEDED`.
    out
        A new folder.
    weights
        Type of the weights of gguf, one of `gguf_files.TYPES`; None: f16. Other formats have one type.
    tell
        Is given a line on the types that the weights of gguf have.

    Returns
    -------
    int
        Bytes of its files of weights.

    Raises
    ------
    ValueError
        The format cannot express the model, or a library is missing.
    RuntimeError
        What was written gives other logits when it is reread; then nothing is left.
    """
    writing.check_new_folder(out)
    missing = [name for name in NEEDED[format] if find_spec(name) is None]
    if missing:
        extra = EXTRAS.get(format, "export")
        raise ValueError(f"{format} needs {', '.join(missing)}: pip install 'transmeter[{extra}]'")
    if weights is not None and format != "gguf":
        raise ValueError(f"weights of {weights} are of gguf, {format} has one type: leave them out")
    model, tokenizer = io.load(source)
    if getattr(model, "exits", None) is not None:
        raise ValueError(f"{source} has early exits, which {format} cannot say: export the model that it was made from")
    if experts(model):
        what = f"{source} is a mixture of experts, which {format} as it is written here cannot say"
        raise ValueError(f"{what}: use the folder itself, or export a model without experts")
    if format == "gguf" and not has_head(model):
        raise ValueError(f"{source} has no head, gguf is for decoders that predict next tokens: give another format")
    convert: dict[str, Callable[[nn.Module, Path], str | None]] = {
        "compressed-tensors": _compressed_tensors,
        "torchao": partial(_torchao, "Int8WeightOnlyConfig"),
        "torchao-dynamic": partial(_torchao, "Int8DynamicActivationInt8WeightConfig"),
        "onnx": _onnx,
        "gguf": partial(_gguf, source, tokenizer, weights or gguf_files.TYPES[0]),
    }
    with writing.new_folder(out) as folder:
        with contextlib.redirect_stderr(StringIO()), warnings.catch_warnings():  # the libraries' bars and notices
            warnings.simplefilter("ignore")
            note = convert[format](model, folder)
        write_tokenizer(tokenizer, folder)
        getattr(model, "companions", Companions()).write(folder)
        size = sum(f.stat().st_size for f in folder.iterdir() if f.name.startswith("model"))
        record = {"base_model": source, **getattr(model, "compression", {})}
        record.setdefault("base", hub.about_base(source))
        record |= {"exported": source, "format": format, "bytes": size}
        if format == "gguf":
            record["weights"] = weights or gguf_files.TYPES[0]
        (folder / "export.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        write_card(folder)
    if note:
        (tell or LOG.debug)(note)
    return size


def _compressed_tensors(model: nn.Module, folder: Path) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    packed = _uniform(model)
    form = next(iter(packed.values()))
    grouped = {"strategy": "group", "group_size": form.group} if form.group < form.columns else {"strategy": "channel"}
    kept = [p for p, m in model.named_modules() if isinstance(m, nn.Linear)]
    for path, module in list(model.named_modules()):
        if isinstance(module, layers.PackedLinear | layers.PackedEmbedding):
            model.set_submodule(path, _dense(module))
            if path not in packed:  # the format holds no embeddings: they are written in the type of all else
                new = model.get_submodule(path)
                new.weight.data = new.weight.data.to(stored_type(model)).float()
                kept.append(path)
    model = _of_base_class(model)
    reference = _logits(model)
    weights = QuantizationArgs(num_bits=form.bits, type="int", symmetric=True, **grouped)
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=kept,
        quantization_status="compressed",
        format="pack-quantized",
    )
    apply_quantization_config(model, config)
    for path, form in packed.items():
        model.get_submodule(path).weight_scale.data = form.scale.data
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(stored_type(model))
    model.save_pretrained(folder)
    compressor.update_config(folder)
    _reread(model, folder, reference, 0.0)


def _uniform(model: nn.Module) -> dict[str, layers.Uniform]:
    """The packed weights of the blocks, by path, if the format can say them, else ValueError."""
    changed = modeling.changes(model).get("layers", {})
    inner = blocks_path(model) + "."
    packed = {p: model.get_submodule(p).packed for p in changed if hasattr(model.get_submodule(p), "packed")}
    packed = {p: f for p, f in packed.items() if p.startswith(inner)}
    others = [p for p in changed if p.startswith(inner) and not isinstance(packed.get(p), layers.Uniform)]
    quantized = "quantize with round_to_nearest or gptq, --set symmetric=true and 4 or 8 bits"
    if not packed or others:
        what = f"{others[0]} is none" if others else "there is none"
        raise ValueError(f"compressed-tensors holds layers on a uniform grid, {what}: {quantized}")
    for path, form in packed.items():
        module = model.get_submodule(path)
        if not form.symmetric or form.bits not in (4, 8):
            kind = f"{form.bits} bits, {'symmetric' if form.symmetric else 'asymmetric'}"
            raise ValueError(f"compressed-tensors cannot hold {path} ({kind}): {quantized}")
        if module.smooth is not None or module.activations is not None:
            what = f"scale the inputs of {path}, as awq and smoothquant do"
            raise ValueError(f"compressed-tensors cannot {what}: {quantized}")
    if len({(f.bits, f.group < f.columns and f.group) for f in packed.values()}) > 1:
        raise ValueError(f"compressed-tensors holds one width of bits, the layers have several: {quantized}")
    return packed


def _of_base_class(model: nn.Module) -> nn.Module:
    """A model whose layers are dense again as transformers knows it, with the same weights."""
    base = modeling.base_class(model)
    settings = model.config.to_dict()
    for ours in ("compressed", "auto_map", "architectures", "model_type"):
        settings.pop(ours, None)
    with torch.device("meta"):
        plain = _without_pooler(base(base.config_class(**settings)), model)
    plain.load_state_dict(model.state_dict(), assign=True)
    for (name, new), old in zip(plain.named_buffers(), model.buffers(), strict=True):  # rotary frequencies, not stored
        if new.is_meta:
            holder, _, kind = name.rpartition(".")
            setattr(plain.get_submodule(holder), kind, old)
    plain.tie_weights()
    plain.config.dtype = stored_type(model)
    return plain.eval()


def _without_pooler(new: nn.Module, model: nn.Module) -> nn.Module:
    """`new`, in place without what transformers puts behind the first token where `model` has none."""
    if getattr(new, "pooler", None) is not None and model.pooler is None:
        new.pooler = None
    return new


def _dense(module: layers.PackedLinear | layers.PackedEmbedding) -> nn.Linear | nn.Embedding:
    rows, columns = module.weight.shape
    if isinstance(module, layers.PackedEmbedding):
        return nn.Embedding(rows, columns, _weight=module.weight.clone())
    linear = nn.utils.skip_init(nn.Linear, columns, rows, bias=False)
    linear.weight, linear.bias = nn.Parameter(module.weight.clone()), module.bias
    return linear


def _torchao(kind: str, model: nn.Module, folder: Path) -> None:
    """Write in 8 bits; kind: the name of torchao's config."""
    import torchao.quantization
    from transformers import TorchAoConfig

    config = TorchAoConfig(getattr(torchao.quantization, kind)(version=2))
    changed = modeling.changes(model)
    if changed:
        path = next(iter(changed["layers"]), None) or next(iter(changed["tied"]))
        remedy = "give a model of uniform widths, not quantized"
        raise ValueError(f"torchao holds plain models, {path} is changed: {remedy}")
    if modeling.convolutions(model):
        name = type(model).__name__
        raise ValueError(f"torchao quantizes linear layers, {name} has convolutions: give another format")
    plain = folder / "plain"
    try:
        model.save_pretrained(plain)  # transformers quantizes while it loads
        quantized = type(model).from_pretrained(plain, dtype=torch.float32, quantization_config=config)
    finally:
        shutil.rmtree(plain, ignore_errors=True)
    reference = _logits(_without_pooler(quantized, model).eval())
    quantized.save_pretrained(folder)
    _reread(quantized, folder, reference, 0.0)


def _onnx(model: nn.Module, folder: Path) -> None:
    if model.can_generate():
        raise ValueError(f"onnx is for encoders, {type(model).__name__} generates: give another format")
    for path, module in list(model.named_modules()):
        if isinstance(module, layers.PackedLinear) and (module.smooth is not None or module.activations is not None):
            raise ValueError(f"onnx would lose how {path} scales and rounds its inputs: export before it is quantized")
        if isinstance(module, layers.PackedLinear | layers.PackedEmbedding):
            model.set_submodule(path, _dense(module))
    ids = (torch.arange(32) * 37 % model.config.vocab_size).view(2, 16)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = torch.zeros_like(ids)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    if not has_head(model):  # the states of the tokens alone, as others export such models
        model.pooler = None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model.config.use_cache = False
    program = torch.onnx.export(
        model, (), kwargs=given, dynamo=True, dynamic_shapes=dict.fromkeys(given, sizes), verbose=False
    )
    program.save(str(folder / "model.onnx"))
    model.config.save_pretrained(folder)
    reference = _logits(model)
    limit = TOLERANCE * float(np.abs(reference).max())
    _compare(_REREAD_ONNX, folder, [str(folder / "model.onnx"), str(model.config.vocab_size)], reference, limit)


def _gguf(source: str, tokenizer: PreTrainedTokenizerBase, weights: str, model: nn.Module, folder: Path) -> str:
    """Returns which types the weights have."""
    gguf_files.check(source, model, tokenizer)
    for path, module in list(model.named_modules()):
        if isinstance(module, layers.PackedLinear | layers.PackedEmbedding):
            model.set_submodule(path, _dense(module))
    model = _of_base_class(model)
    numbers = gguf_files.write(model, tokenizer, folder / "model.gguf", weights)
    model.config.save_pretrained(folder)
    reread, again = io.load(folder / "model.gguf")
    reference = _logits(model)
    _judge(_logits(reread), reference, TOLERANCE * float(np.abs(reference).max()))
    if again(_PROBE)["input_ids"] != tokenizer(_PROBE)["input_ids"]:
        raise RuntimeError("what was written gives other tokens when it is reread")
    return f"gguf: {gguf_files.describe(numbers, weights)}"


def _logits(model: nn.Module) -> np.ndarray:
    """All logits of the tokens that `_REREAD` gives, flat."""
    ids = (torch.arange(32) * 37 % model.config.vocab_size).view(2, 16)
    found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return torch.cat([found[k].flatten() for k in OUTPUTS if k in found]).numpy()


def _reread(model: nn.Module, folder: Path, reference: np.ndarray, limit: float) -> None:
    base = modeling.base_class(model)
    _compare(_REREAD, folder, [str(folder), base.__name__], reference, limit)


def _compare(script: str, folder: Path, arguments: list[str], reference: np.ndarray, limit: float) -> None:
    """Raise RuntimeError unless a new process that runs `script` gives the reference logits, within `limit`."""
    found = folder / "logits.npy"
    done = subprocess.run([sys.executable, "-c", script, *arguments, str(found)], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"what was written cannot be reread: {reason}")
    _judge(np.load(found), reference, limit)
    found.unlink()


def _judge(found: np.ndarray, reference: np.ndarray, limit: float) -> None:
    """Raise RuntimeError unless these are the reference logits, within `limit`."""
    difference = float(np.abs(found - reference).max())
    if not difference <= limit:
        raise RuntimeError(f"what was written differs when it is reread (largest logit difference {difference:.3g})")
