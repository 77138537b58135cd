"""The peers' side of compress_speed.py: llmcompressor and gptqmodel, each run in an environment of its own.

    python peer_quantization.py LIBRARY WORK GROUP THREADS

WORK holds the folder `dense` and calibration.safetensors with input_ids (samples, tokens). Every case runs twice on a
fresh copy of the model; the weights of the last run, as plain numbers, and LIBRARY.json with the seconds go into WORK.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RUNS = 2
Case = Callable[[Path, Tensor, int], tuple[float, dict[str, Tensor]]]  # gives seconds and weights


def llmcompressor(modifiers: Callable[[dict], list], symmetric: bool) -> Case:
    """A recipe of llmcompressor, with its defaults for all but bits and group; all samples in one batch."""

    def run(work: Path, ids: Tensor, group: int) -> tuple[float, dict[str, Tensor]]:
        from datasets import Dataset
        from llmcompressor import oneshot
        from transformers import AutoModelForCausalLM, AutoTokenizer

        stored = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
        scheme = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": stored}}, "ignore": ["re:.*lm_head"]}
        model = AutoModelForCausalLM.from_pretrained(work / "dense", dtype=torch.float32)
        begin = time.perf_counter()
        oneshot(
            model=model,
            tokenizer=AutoTokenizer.from_pretrained(work / "dense"),
            dataset=Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()}),
            recipe=modifiers(scheme),
            batch_size=len(ids),
            num_calibration_samples=len(ids),
            max_seq_length=ids.shape[1],
        )
        seconds = time.perf_counter() - begin
        return seconds, {k: v for k, v in model.state_dict().items() if k.endswith("weight")}

    return run


def llm_gptq(scheme: dict) -> list:
    """GPTQ."""
    from llmcompressor.modifiers.gptq import GPTQModifier

    return [GPTQModifier(**scheme)]


def llm_awq(scheme: dict) -> list:
    """AWQ, which scales, and the rounding behind it."""
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    return [AWQModifier(), QuantizationModifier(**scheme)]


def gptqmodel(work: Path, ids: Tensor, group: int) -> tuple[float, dict[str, Tensor]]:
    """GPTQ of gptqmodel with its defaults for all but bits and group."""
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    data = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in ids]
    model = GPTQModel.load(str(work / "dense"), QuantizeConfig(bits=4, group_size=group), device="cpu")
    begin = time.perf_counter()
    model.quantize(data, batch_size=len(ids), backend=BACKEND.TORCH)
    seconds = time.perf_counter() - begin
    weights = {}
    for path, module in model.model.named_modules():
        if hasattr(module, "dequantize_weight"):
            weights[f"{path}.weight"] = module.dequantize_weight().T.float()
    plain = {k: v for k, v in model.model.state_dict().items() if k.endswith("weight")}
    return seconds, plain | weights


CASES: dict[str, dict[str, Case]] = {
    "llmcompressor": {
        "gptq symmetric=false": llmcompressor(llm_gptq, False),
        "gptq symmetric=true": llmcompressor(llm_gptq, True),
        "awq symmetric=false": llmcompressor(llm_awq, False),
    },
    "gptqmodel": {"gptq symmetric=true": gptqmodel},
}


def main(library: str, work: Path, group: int, threads: int) -> None:
    """Time every case and keep what it gives."""
    torch.set_num_threads(threads)
    ids = load_file(work / "calibration.safetensors")["input_ids"]
    seconds: dict[str, list[float]] = {}
    for name, run in CASES[library].items():
        for _ in range(RUNS):
            took, weights = run(work, ids, group)
            seconds.setdefault(name, []).append(took)
        weights = {k: v.detach().float().clone().contiguous() for k, v in weights.items()}
        save_file(weights, work / f"{library} {name}.safetensors")
    versions = {p: version(p) for p in (library, "torch", "transformers")}
    (work / f"{library}.json").write_text(json.dumps({"versions": versions, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
