"""llmcompressor's side of prune_speed.py, run in an environment of its own.

    python peer_llmcompressor.py WORK THREADS

WORK holds the folder `dense` and calibration.safetensors with input_ids (samples, tokens). Every case runs at the
default batch size and with all samples in one batch, twice each; the weights of the last run and timings.json go
into WORK.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

LEFT = ["re:.*lm_head"]
CASES = {
    "sparsegpt ratio=0.5": lambda: SparseGPTModifier(sparsity=0.5, ignore=LEFT),
    "wanda pattern=2:4": lambda: WandaPruningModifier(sparsity=0.5, mask_structure="2:4", ignore=LEFT),
}


def main(work: Path, threads: int) -> None:
    """Time every case and keep what it gives."""
    torch.set_num_threads(threads)
    ids = load_file(work / "calibration.safetensors")["input_ids"]
    data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    tokenizer = AutoTokenizer.from_pretrained(work / "dense")
    runs = []
    for name, modifier in CASES.items():
        for size in (1, len(ids)):
            for _ in range(2):
                model = AutoModelForCausalLM.from_pretrained(work / "dense", dtype=torch.float32)
                begin, cpu = time.perf_counter(), time.process_time()
                oneshot(
                    model=model,
                    tokenizer=tokenizer,
                    dataset=data,
                    recipe=[modifier()],
                    batch_size=size,
                    num_calibration_samples=len(ids),
                    max_seq_length=ids.shape[1],
                )
                seconds = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
                runs.append({"case": name, "batch_size": size} | seconds)
        weights = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
        save_file(weights, work / f"llmcompressor {name}.safetensors")
    packages = ("llmcompressor", "torch", "transformers", "compressed-tensors")
    found = {"versions": {p: version(p) for p in packages}, "runs": runs}
    (work / "timings.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
