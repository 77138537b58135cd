"""Finished steps of a method in files, so that a killed run goes on where it stood."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.layers import NoAttention
from compress.structure import blocks_path, place

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
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(measure()), encoding="utf-8")
            os.replace(partial, file)
        return json.loads(file.read_text(encoding="utf-8"))

    def restore(self, model: nn.Module) -> int:
        """Give `model` what the finished steps left, and return their number."""
        steps = sorted(self.folder.glob("*.safetensors"))
        for file in steps:
            read(model, file)
        return len(steps)

    def keep(self, step: int, model: nn.Module, blocks: Sequence[int]) -> None:
        """Note that `step`, counted from 0, is finished and changed these blocks of `model`."""
        write(model, blocks, self.folder / f"{step:05d}.safetensors")


def write(model: nn.Module, blocks: Sequence[int], file: Path) -> None:
    """Write all weights of some blocks, under their full names; the file gets its name when it is complete."""
    tensors: dict[str, Tensor] = {}
    empty: dict[str, list] = {}  # where every head was removed
    for block in blocks:
        path = f"{blocks_path(model)}.{block}"
        for name, module in model.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, NoAttention):
                empty[name] = [module.features, module.bias is not None, module.layer_idx]
        for name, _ in model.get_submodule(path).named_parameters(prefix=path):
            tensors[name] = model.get_parameter(name).detach().contiguous()
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, metadata={"no_attention": json.dumps(empty)})
    os.replace(partial, file)


@torch.no_grad()
def read(model: nn.Module, file: Path) -> None:
    """Give `model` the weights that `write` wrote; layers take the sizes of their weights."""
    with safe_open(file, "pt", device=str(model.device)) as stored:
        for path, (features, bias, layer_idx) in json.loads(stored.metadata()["no_attention"]).items():
            model.set_submodule(path, NoAttention(features, bias, layer_idx))
        for name in stored.keys():
            place(model, name, stored.get_tensor(name))
