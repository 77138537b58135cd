"""Low-rank updates of sparse layers, on the peft library: training sees what the merged layer will be.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685. A plain adapter adds
B A x beside the sparse layer, and its merge either fills the zeros or, masked, is another function than the one
trained. Here the layer is mask * (W0 + s B A) throughout, so that merging changes nothing.
"""

from collections.abc import Mapping

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F

from compress.model.structure import set_parameter
from compress.model.walk import frozen

_ADAPTER = "default"  # peft's name for an only adapter


class _MaskedLinear(Linear):
    """peft's layer with the weight mask * (W0 + s B A); mask (out, in) bool is set from outside."""

    mask: Tensor

    def dense(self) -> Tensor:
        """W0 + s B A, (out, in)."""
        return self.get_base_layer().weight + self.get_delta_weight(_ADAPTER)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return F.linear(x, self.mask * self.dense(), self.get_base_layer().bias)


def adapt(model: nn.Module, masks: Mapping[str, Tensor], rank: int, seed: int) -> dict[str, _MaskedLinear]:
    """Put an adapter on every linear layer that `masks` names, in place.

    Parameters
    ----------
    model
        The model.
    masks
        By path of a layer: (out, in), where weights may be other than 0.
    rank
        Of an adapter.
    seed
        Of random draws.

    Returns
    -------
    dict
        The adapters by path.
    """
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(masks))
    config._register_custom_module({nn.Linear: _MaskedLinear})
    # peft draws A from the global generator, and freezes all other weights for good
    with torch.random.fork_rng(), frozen(model):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, _ADAPTER)
    adapters = {path: model.get_submodule(path) for path in masks}
    for path, adapter in adapters.items():
        adapter.mask = masks[path]
    return adapters


@torch.no_grad()
def merge(model: nn.Module, adapters: Mapping[str, _MaskedLinear]) -> None:
    """Put plain linear layers with the merged, masked weights where the adapters are.

    Parameters
    ----------
    model
        The model.
    adapters
        By path, of `adapt`.
    """
    for path, adapter in adapters.items():
        model.set_submodule(path, adapter.get_base_layer())
        set_parameter(model, f"{path}.weight", adapter.mask * adapter.dense())
    del model.peft_config
