"""Models larger than memory: the weights of the transformer blocks stay in files, one block at a time is read.

Embeddings, norms outside the blocks and the head are in memory, and so are layers whose weights are packed in few bits,
which take a fraction of what they did. `module.weight` of a module inside a block reads the
tensor from its file and keeps it until another block is touched; what was put in its place is then written to a
scratch file. So whatever touches weights a block at a time - the walk, `set_parameter`, `remove` - works
as on a model in memory. What only asks for names and sizes (`parameters()`, `state_dict()`) sees tensors on the meta
device; `model.get_parameter(name)` reads. The idea is that of DeepSpeed's ZeRO stage 3 (Rajbhandari et al., SC 2021,
arXiv 2104.07857): a parameter dictionary that fetches what it is asked for.

Under autograd a block is run anew by the backward pass, which reads its weights again instead of keeping them. A hook
inside a block is then called twice a batch, and has to be there until the gradients are taken.
"""

import copy
import json
import os
import tempfile
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import accelerate
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from compress.model import layers, modeling
from compress.model.architectures import blocks_path
from compress.model.gguf import reading as gguf_reading
from transmeter.util import writing
from transmeter.util.checkpoint import FLOATS, Stored

ALIGNED = 64  # bytes of which torch's own addresses are multiples: on others sums differ in their last bit


class _Scratch:
    """A file for changed weights, removed when no model refers to it any more."""

    def __init__(self, folder: Path | None):
        handle, self.path = tempfile.mkstemp(".scratch", "transmeter-", folder)
        os.close(handle)
        weakref.finalize(self, Path(self.path).unlink, missing_ok=True)


@dataclass(frozen=True)
class _Place:
    """Where a weight is: under `key` in a file, as it is, transposed, or as the bitmask and the values of a layer."""

    file: str
    key: str
    form: str = "plain"  # or "transposed", "bitmask" or "gguf"
    scratch: _Scratch | None = None


class Store:
    """Where the weights of a model's blocks are, and those of the one block that is at work.

    A copy of a model has a copy of its store: both know the same files, each writes its own changes.

    Parameters
    ----------
    places
        Where each weight is, by name.
    types
        What a weight is cast to, one after the other, when it is read.
    device
        What it is read to.
    scratch
        Folder for changed weights; None: the system's for temporary files.
    """

    def __init__(self, places: dict[str, _Place], types: list[torch.dtype], device: torch.device, scratch: Path | None):
        self.places, self.types, self.device, self.scratch = places, types, device, scratch
        self.block: int | None = None
        self.held: dict[str, nn.Parameter] = {}
        self.changed: set[str] = set()

    def get(self, block: int, name: str, like: Tensor) -> nn.Parameter:
        """The weight `name` of `block`, of the size of `like`."""
        self._work_on(block)
        if name not in self.held:
            value = _read(self.places[name], like.shape, self.device)
            for dtype in self.types:
                value = value.to(dtype)
            self.held[name] = nn.Parameter(value)
        return self.held[name].requires_grad_(like.requires_grad)

    def put(self, block: int, name: str, value: nn.Parameter) -> None:
        """Replace the weight `name` of `block`."""
        self._work_on(block)
        self.held[name] = value
        self.changed.add(name)

    def let_go(self) -> None:
        """Write what changed and hold nothing."""
        if self.changed:
            scratch = _Scratch(self.scratch)
            with writing.naming(scratch.path):
                save_file({name: self.held[name].detach().contiguous() for name in self.changed}, scratch.path)
            self.places |= {name: _Place(scratch.path, name, scratch=scratch) for name in self.changed}
        self.held, self.changed = {}, set()

    def _work_on(self, block: int) -> None:
        if block != self.block:
            self.let_go()
            self.block = block

    def __deepcopy__(self, memo: dict) -> "Store":
        self.let_go()
        return Store(dict(self.places), list(self.types), self.device, self.scratch)


class _Weights(dict):
    """The parameters of a module in a block: asked for by name they come from the store, listed they are on meta."""

    def __init__(self, store: Store, block: int, path: str, shapes: Mapping[str, nn.Parameter | None]):
        super().__init__(shapes)
        self.store, self.block, self.path = store, block, path

    def __getitem__(self, name: str) -> nn.Parameter | None:
        shape = super().__getitem__(name)
        return None if shape is None else self.store.get(self.block, f"{self.path}.{name}", shape)

    def __setitem__(self, name: str, value: nn.Parameter | None) -> None:
        if value is not None and not value.is_meta:
            self.store.put(self.block, f"{self.path}.{name}", value)
        super().__setitem__(name, _on_meta(value))

    def __deepcopy__(self, memo: dict) -> "_Weights":
        shapes = {name: copy.deepcopy(shape, memo) for name, shape in self.items()}
        return _Weights(copy.deepcopy(self.store, memo), self.block, self.path, shapes)


def _on_meta(parameter: nn.Parameter | None) -> nn.Parameter | None:
    if parameter is None or parameter.is_meta:
        return parameter
    return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)


def _read(place: _Place, shape: torch.Size, device: torch.device) -> Tensor:
    if place.form == "gguf":
        return gguf_reading.read(Path(place.file), place.key).to(device)
    with safe_open(place.file, "pt", device=str(device)) as file:
        if place.form != "bitmask":
            value = file.get_tensor(place.key)  # mapped, not copied, on a CPU
            if place.form == "transposed":
                return value.T.contiguous()
            return value.clone() if value.data_ptr() % ALIGNED else value
        path = place.key.removesuffix("weight")
        values = file.get_tensor(path + "packed.values")
        packed = layers.Bitmask(*shape, len(values))
        packed.mask.data, packed.values.data = file.get_tensor(path + "packed.mask"), values
        return packed.unpack()


def store_of(model: nn.Module) -> Store | None:
    """The store of a model that streams.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    Store or None
        None for a model in memory.
    """
    held = (m._parameters for m in model.modules())
    return next((p.store for p in held if isinstance(p, _Weights)), None)


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another one.

    Parameters
    ----------
    model
        In memory or streaming; then the weights of the linear layers in `module` go to a file like those of the block.
    path
        Of the module that goes.
    module
        The one that comes.
    """
    before = model.get_submodule(path)._parameters
    model.set_submodule(path, module)
    if isinstance(before, _Weights):
        for name, part in module.named_modules(prefix=path):
            if isinstance(part, nn.Linear):
                own = part._parameters
                part._parameters = _Weights(before.store, before.block, name, {})
                for kind, value in own.items():
                    part._parameters[kind] = value


def has_shared_blocks(model: nn.Module) -> bool:
    """Whether blocks share weights or are no list, so that they cannot be read one at a time.

    Parameters
    ----------
    model
        In memory.

    Returns
    -------
    bool
        True where a weight stands in the blocks twice, and for a model whose blocks form no list.
    """
    try:
        blocks = model.get_submodule(blocks_path(model))
    except ValueError:
        return True
    return len(list(blocks.named_parameters(remove_duplicate=False))) > len(list(blocks.parameters()))


def refuse(model: nn.Module, why: str) -> None:
    """Refuse a model that streams.

    Parameters
    ----------
    model
        Any.
    why
        What needs it in memory, such as "latency is measured".

    Raises
    ------
    ValueError
        It streams.
    """
    if store_of(model):
        raise ValueError(f"{why}, which a model that streams from files does not allow: give more memory")


def build(cls: type, config: PretrainedConfig) -> nn.Module:
    """The model that a config asks for, without its weights: it takes next to no time and memory, and knows every size.

    Parameters
    ----------
    cls
        Its transformers class.
    config
        Its config.

    Returns
    -------
    nn.Module
        Parameters are on the meta device; buffers are real.
    """
    with accelerate.init_empty_weights(include_buffers=False):
        model = cls(config)
    model.tie_weights()
    return model


def flatten(model: nn.Module) -> dict[str, str]:
    """Make the layers of what `build` gives linear.

    Parameters
    ----------
    model
        Changed in place.

    Returns
    -------
    dict
        The form that weights have in the files where that is not plain, by name.
    """
    forms = {f"{p}.weight": "transposed" for p, m in model.named_modules() if isinstance(m, Conv1D)}
    modeling.linearise(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, layers.PackedLinear) and isinstance(module.packed, layers.Bitmask):
            forms[f"{path}.weight"] = "bitmask"
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            model.set_submodule(path, linear)
        for name, parameter in module._parameters.items():
            module._parameters[name] = _on_meta(parameter)
    model.eval()
    return forms


def load(
    model: nn.Module,
    keys: Mapping[str, str],
    tensors: Mapping[str, Stored],
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    scratch: Path | None = None,
) -> nn.Module:
    """Give a model its weights; the blocks stay in their safetensors files.

    Parameters
    ----------
    model
        As `build` gives it; changed in place.
    keys
        The names of its weights in the files.
    tensors
        What the files hold.
    dtype
        The type that it computes in.
    device
        What blocks are read to.
    scratch
        Folder for what is put in the place of weights, as large as the blocks in `dtype`; None: the system's for
        temporary files.

    Returns
    -------
    nn.Module
        The model.

    Raises
    ------
    ValueError
        The files hold weights in a form that is not read a block at a time.
    """
    forms = flatten(model)
    kinds = (layers.PackedLinear, layers.PackedEmbedding)
    packed = {id(part) for module in model.modules() if isinstance(module, kinds) for part in module.modules()}
    held = {f"{p}.{n}" for p, m in model.named_modules() if id(m) in packed for n in m._parameters}
    places = _places(model, keys, tensors, forms, held)
    path = blocks_path(model)
    inside = {n: p for n, p in places.items() if n.startswith(f"{path}.") and n not in held}
    store = Store(inside, [dtype], torch.device("cpu"), scratch)
    for name in places.keys() - store.places.keys():
        holder, _, kind = name.rpartition(".")
        shape = model.get_parameter(name)
        value = _read(places[name], shape.shape, store.device)
        value = value.to(dtype) if value.is_floating_point() else value
        setattr(model.get_submodule(holder), kind, nn.Parameter(value, shape.requires_grad))
    names = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    model.tie_weights(missing_keys={n for n in names if n not in places})
    for i, block in enumerate(model.get_submodule(path)):
        for name, module in block.named_modules(prefix=f"{path}.{i}"):
            if id(module) not in packed:
                module._parameters = _Weights(store, i, name, module._parameters)
        block.__class__ = _run_anew(type(block))
    lost = [n for n, p in model.named_parameters(remove_duplicate=False) if p.is_meta and n not in store.places]
    if lost:
        raise ValueError(f"'{lost[0]}' is stored in a form that cannot be streamed: give more memory")
    return move(model, device)


def broken(model: nn.Module) -> str | None:
    """The first weight of the blocks of a model that streams that holds NaN or infinity.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    str or None
        Its name; None where there is none, or the model is in memory.
    """
    store = store_of(model)
    shapes = dict(model.named_parameters(remove_duplicate=False))
    for name, place in store.places.items() if store else ():
        if not is_finite(_read(place, shapes[name].shape, torch.device("cpu"))):
            return name
    return None


def is_finite(weight: Tensor) -> bool:
    """Whether all numbers are finite.

    Parameters
    ----------
    weight
        Of any shape.

    Returns
    -------
    bool
        False for NaN or infinity.
    """
    return bool(weight.sum().isfinite() or weight.isfinite().all())  # the sum is ten times as fast, but may overflow


def _places(
    model: nn.Module,
    keys: Mapping[str, str],
    tensors: Mapping[str, Stored],
    forms: Mapping[str, str],
    packed: Collection[str],
) -> dict[str, _Place]:
    """Where the weights of a flat `model` are in the files, those that are there; packed: names of those packed"""
    found = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        form = forms.get(name, "plain")
        key = keys.get(name.removesuffix("weight") + "packed.values" if form == "bitmask" else name)
        if key is not None:
            file, kind = str(tensors[key].file), tensors[key].dtype
            form = "gguf" if file.endswith(".gguf") else form
            if kind not in FLOATS and name not in packed:
                raise ValueError(f"'{key}' is packed ({kind}), and such a model cannot be streamed: give more memory")
            found[name] = _Place(file, key.removesuffix("packed.values") + "weight" if form == "bitmask" else key, form)
    return found


@cache
def _run_anew(cls: type) -> type:
    """The class of a block whose forward the backward pass repeats instead of keeping weights and activations."""

    def forward(self, *args, **kwargs):
        if torch.is_grad_enabled():
            return checkpoint(cls.forward, self, *args, use_reentrant=False, **kwargs)
        return cls.forward(self, *args, **kwargs)

    return type(cls.__name__, (cls,), {"forward": forward})


def move(model: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a model to a device, which the weights of its blocks are read to from now on if it streams.

    Parameters
    ----------
    model
        Changed in place.
    device
        Of torch.

    Returns
    -------
    nn.Module
        The model.
    """
    store = store_of(model)
    if store is None:
        return model.to(device)
    store.let_go()
    store.device = torch.device(device)
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_meta:
            tensor.data = tensor.data.to(device)
    return model


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Let a model that streams convert what it reads from now on, after the types that it had before.

    Parameters
    ----------
    model
        Changed in place.
    dtype
        Of the weights.
    """
    store = store_of(model)
    store.let_go()
    store.types.append(dtype)


def write(model: nn.Module, transposed: Collection[str], folder: Path) -> None:
    """Save a model that streams as `save_pretrained` does, block by block: one file per block, one for all else.

    Parameters
    ----------
    model
        Streaming.
    transposed
        Paths of linear layers to store as Conv1D.
    folder
        An existing one.
    """
    changed = getattr(model.config, "compressed", {"layers": {}})["layers"]
    packed = {path for path, (_, spec) in changed.items() if "packed" in spec}
    held = {n: t for n, t in model.state_dict().items() if not t.is_meta}
    model.save_pretrained(folder, state_dict=held, save_original_format=not changed)  # as compress.model.saving
    blocks = model.get_submodule(blocks_path(model))
    files = [folder / f"model-{i + 1:05d}-of-{len(blocks) + 1:05d}.safetensors" for i in range(len(blocks) + 1)]
    (folder / "model.safetensors").rename(files[0])
    for i, block in enumerate(blocks):
        tensors = {}
        for path, module in block.named_modules(prefix=f"{blocks_path(model)}.{i}"):
            if not isinstance(module._parameters, _Weights):
                continue  # in memory, so that it is in the first file
            read = {n: getattr(module, n).detach() for n, shape in module._parameters.items() if shape is not None}
            if path in packed:
                kept = layers.Bitmask.pack(read.pop("weight")).state_dict(prefix="packed.")
                read |= kept
            elif path in transposed:
                read["weight"] = read["weight"].T
            tensors |= {f"{path}.{n}": t.contiguous() for n, t in read.items()}
        save_file(tensors, files[i + 1], metadata={"format": "pt"})
    where, size = {}, 0
    for path in files:
        with safe_open(path, "pt") as file:
            where |= dict.fromkeys(file.keys(), path.name)
            size += sum(file.get_tensor(key).nbytes for key in file.keys())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
