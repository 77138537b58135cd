"""How many tokens another toolkit takes from the file that `calibrate --for` wrote; in an environment of its own.

    python peer_reading.py llm-compressor|gptqmodel|auto-round FOLDER LENGTH COUNT

FOLDER is that of `transmeter calibrate MODEL ... --for TOOLKIT`, LENGTH and COUNT are the numbers in the code that it
shows. Printed are the sequences and tokens that the toolkit's own reader gives to its quantizers.
"""

import json
import os
import sys
from pathlib import Path

from transformers import AutoTokenizer


def llm_compressor(file: str, tokenizer: object, length: int, count: int) -> list[int]:
    """Lengths that its data loader gives."""
    from datasets import load_dataset
    from llmcompressor.args import DatasetArguments
    from llmcompressor.datasets import get_calibration_dataloader

    data = load_dataset("json", data_files=file, split="train")
    settings = DatasetArguments(dataset=data, num_calibration_samples=count, max_seq_length=length)
    return [int(batch["attention_mask"].sum()) for batch in get_calibration_dataloader(settings, tokenizer)]


def gptqmodel(file: str, tokenizer: object, length: int, count: int) -> list[int]:
    """Lengths that it prepares of rows."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import GPTQModel, QuantizeConfig

    rows = [json.loads(line) for line in open(file)]
    model = GPTQModel.load(MODEL, QuantizeConfig(bits=4, group_size=64), device="cpu")
    return [int(r["attention_mask"].sum()) for r in model.prepare_dataset(rows, calibration_data_min_length=1)]


def auto_round(file: str, tokenizer: object, length: int, count: int) -> list[int]:
    """Lengths of its data set."""
    from auto_round.calib_dataset import get_dataset

    return [len(row["input_ids"]) for row in get_dataset(tokenizer, length, file, nsamples=count)]


if __name__ == "__main__":
    package, folder, length, count = sys.argv[1:]
    MODEL = json.loads((Path(folder) / "provenance.json").read_text())["model"]
    read = {"llm-compressor": llm_compressor, "gptqmodel": gptqmodel, "auto-round": auto_round}[package]
    found = read(f"{folder}/{package}.jsonl", AutoTokenizer.from_pretrained(MODEL), int(length), int(count))
    print(f"{package}: {len(found)} sequences, {sum(found)} tokens")
