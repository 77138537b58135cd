"""GPTQ by a peer, run in an environment of its own for real_models.py: asymmetric, groups of 64, the head as it is.

    python peer_gptq.py llmcompressor|gptqmodel BITS MODEL IDS OUT

IDS is a JSON list of token ids, one list a sequence. OUT/rounded gets the weights that are rounded to, in half
precision, as safetensors.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

GROUP = 64


def llmcompressor(bits: int, model: str, rows: list[dict]) -> torch.nn.Module:
    """The model rounded in place."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    stored = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "group", "group_size": GROUP}
    recipe = GPTQModifier(config_groups={"group_0": {"targets": ["Linear"], "weights": stored}}, ignore=["lm_head"])
    oneshot(
        model=net,
        tokenizer=AutoTokenizer.from_pretrained(model),
        dataset=Dataset.from_list(rows),
        recipe=[recipe],
        batch_size=8,
        num_calibration_samples=len(rows),
        max_seq_length=max(len(row["input_ids"]) for row in rows),
    )
    return net


def gptqmodel(bits: int, model: str, rows: list[dict]) -> torch.nn.Module:
    """The model that is saved, read again and written out dense."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # with its default for two processors it does not start
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    settings = QuantizeConfig(bits=bits, group_size=GROUP, sym=False)
    quantizer = GPTQModel.load(model, settings, device="cpu", dtype=torch.float32)
    quantizer.quantize(rows, batch_size=1)
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        quantizer.save(folder)
        read = GPTQModel.load(folder, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16).model
        for path, module in read.named_modules():
            if hasattr(module, "dequantize_weight"):
                net.get_submodule(path).weight = torch.nn.Parameter(module.dequantize_weight().T.float())
    return net


def main(package: str, bits: int, model: str, ids: str, out: Path) -> None:
    """Round and write."""
    torch.set_num_threads(1)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in json.loads(Path(ids).read_text())]
    net = {"llmcompressor": llmcompressor, "gptqmodel": gptqmodel}[package](bits, model, rows)
    rounded = {k: v.detach().half().contiguous() for k, v in net.state_dict().items() if k.endswith("proj.weight")}
    save_file(rounded, out / "rounded")


if __name__ == "__main__":
    package, bits, model, ids, out = sys.argv[1:]
    main(package, int(bits), model, ids, Path(out))
