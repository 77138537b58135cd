"""Finished steps of a method in files, so that a killed run goes on where it stood."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.model.architectures import blocks_path
from compress.model.layers import CHANGED, make
from compress.model.offload import replace
from compress.model.structure import set_parameter
from transmeter.util import writing

T = TypeVar("T")


class Progress:
    """A folder with one file a finished step: all weights of the blocks that the step changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, measure: Callable[[], T]) -> T:
        """What `measure` gave the first time: plain data that a second measurement might not give again."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            writing.write_text(file, json.dumps(measure()))
        return json.loads(file.read_text(encoding="utf-8"))

    def restore(self, model: nn.Module) -> int:
        """Give `model` what the finished steps left, and return their number."""
        steps = sorted(self.folder.glob("*.safetensors"))
        for file in steps:
            _read(model, file)
        return len(steps)

    def keep(self, step: int, model: nn.Module, blocks: Sequence[int]) -> None:
        """Note that `step`, counted from 0, is finished and changed these blocks of `model`."""
        _write(model, blocks, self.folder / f"{step:05d}.safetensors")


def _write(model: nn.Module, blocks: Sequence[int], file: Path) -> None:
    """Write all weights of some blocks, under their full names; the file gets its name when it is complete."""
    tensors: dict[str, Tensor] = {}
    changed: dict[str, list] = {}  # modules that the blocks did not begin with, and what makes them
    first: dict[int, str] = {}  # of a parameter that several modules of a block share, its first name
    same: dict[str, str] = {}  # its other names
    for block in blocks:
        path = f"{blocks_path(model)}.{block}"
        for name, module in model.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, CHANGED):
                changed[name] = [type(module).__name__, module.spec()]
        for name, known in model.get_submodule(path).named_parameters(prefix=path, remove_duplicate=False):
            if first.setdefault(id(known), name) == name:
                tensors[name] = model.get_parameter(name).detach().contiguous()
            else:
                same[name] = first[id(known)]
    with writing.replacing(file) as partial:
        save_file(tensors, partial, metadata={"changed": json.dumps(changed), "same": json.dumps(same)})


@torch.no_grad()
def _read(model: nn.Module, file: Path) -> None:
    """Give `model` the weights that `_write` wrote; layers are of their class and size."""
    with safe_open(file, "pt", device=str(model.device)) as stored:
        about = {name: json.loads(text) for name, text in stored.metadata().items()}
        for path, (kind, spec) in about["changed"].items():
            replace(model, path, make(kind, spec))
        for name in stored.keys():
            set_parameter(model, name, stored.get_tensor(name))
        for name, known in about["same"].items():
            path, _, kind = name.rpartition(".")
            setattr(model.get_submodule(path), kind, model.get_parameter(known))
