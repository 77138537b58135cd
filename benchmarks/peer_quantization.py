"""The peers' side of compress_speed.py: llmcompressor and gptqmodel, each run in an environment of its own.

    python peer_quantization.py LIBRARY WORK GROUP THREADS

WORK holds the folder `dense` and calibration.safetensors with input_ids (samples, tokens). Every case runs twice on a
fresh copy of the model; the weights of the last run, as plain numbers, and LIBRARY.json with the seconds go into WORK.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RUNS = 2
Seconds = dict[str, float]  # of the wall clock and of the processor
Case = Callable[[Path, Tensor, int], tuple[Seconds, dict[str, Tensor]]]  # gives the weights too


def since(begin: tuple[float, float]) -> Seconds:
    """Seconds since both clocks showed `begin`."""
    return {"seconds": time.perf_counter() - begin[0], "cpu_seconds": time.process_time() - begin[1]}


def llmcompressor(symmetric: bool) -> Case:
    """GPTQ of llmcompressor with its defaults for all but bits, group and symmetry; all samples in one batch.

    Its AWQ does not run without an accelerator (0.14: "Cannot access accelerator device when none is available").
    """

    def run(work: Path, ids: Tensor, group: int) -> tuple[Seconds, dict[str, Tensor]]:
        from datasets import Dataset
        from llmcompressor import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier
        from transformers import AutoModelForCausalLM, AutoTokenizer

        stored = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
        groups = {"group_0": {"targets": ["Linear"], "weights": stored}}
        model = AutoModelForCausalLM.from_pretrained(work / "dense", dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(work / "dense")
        data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
        begin = time.perf_counter(), time.process_time()
        oneshot(
            model=model,
            tokenizer=tokenizer,
            dataset=data,
            recipe=[GPTQModifier(config_groups=groups, ignore=["re:.*lm_head"])],
            batch_size=len(ids),
            num_calibration_samples=len(ids),
            max_seq_length=ids.shape[1],
        )
        return since(begin), {k: v for k, v in model.state_dict().items() if k.endswith(".weight")}

    return run


def gptqmodel(symmetric: bool) -> Case:
    """GPTQ of gptqmodel with its defaults for all but bits, group and symmetry; all samples in one batch.

    The format is the one that stores zeros as they are; what is quantized does not depend on it.
    """

    def run(work: Path, ids: Tensor, group: int) -> tuple[Seconds, dict[str, Tensor]]:
        os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # its pool of threads takes no fewer
        from gptqmodel import GPTQModel, QuantizeConfig

        config = QuantizeConfig(
            bits=4, group_size=group, sym=symmetric, format="gptq_v2", device="cpu", offload_to_disk=False
        )
        model = GPTQModel.load(str(work / "dense"), config, dtype=torch.float32)
        data = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids.tolist()]
        begin = time.perf_counter(), time.process_time()
        model.quantize(data, batch_size=len(ids))
        found = since(begin)
        weights = {k: v for k, v in model.model.state_dict().items() if k.endswith(".weight")}
        for path, module in model.model.named_modules():
            if hasattr(module, "dequantize_weight"):
                weights[f"{path}.weight"] = module.dequantize_weight().T
        return found, weights

    return run


CASES: dict[str, dict[str, Case]] = {
    "llmcompressor": {
        "symmetric=false": llmcompressor(False),
        "symmetric=true": llmcompressor(True),
    },
    "gptqmodel": {"symmetric=false": gptqmodel(False), "symmetric=true": gptqmodel(True)},
}


def main(library: str, work: Path, group: int, threads: int) -> None:
    """Time every case and keep what it gives."""
    torch.set_num_threads(threads)
    ids = load_file(work / "calibration.safetensors")["input_ids"]
    seconds: dict[str, list[Seconds]] = {}
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
