"""Does 8 bits make a model faster on this CPU? Latency of the torchao exports beside float32, in one run.

    python benchmarks/export_speed.py data/mixlm MODELS/stories260K --out benchmarks/results/export_speed.json

Models: a random Llama of 6 layers and width 1024, and small real ones. The four ways take turns, so that other work on
the machine hits all of them alike; given are medians, quartiles, and the ratio of the medians.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from compress.export import export

LENGTHS = (1, 128)
FORMATS = ("torchao", "torchao-dynamic")


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--repeats", default=20, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", default="benchmarks/results/export_speed.json", type=click.Path(path_type=Path))
def main(sources: tuple[str, ...], repeats: int, threads: int, out: Path) -> None:
    """Export, reload, and time one sequence of 1 and of 128 tokens."""
    torch.set_num_threads(threads)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        large = Path(work) / "llama-6x1024"
        config = LlamaConfig(
            vocab_size=4096, hidden_size=1024, intermediate_size=2816, num_hidden_layers=6, num_attention_heads=16
        )
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(large)
        AutoTokenizer.from_pretrained(sources[0]).save_pretrained(large)
        for source in (str(large), *sources):
            found = {"float32": AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()}
            found["bfloat16"] = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
            for shape in FORMATS:
                folder = export(source, shape, Path(work) / f"{Path(source).name}-{shape}")
                found[shape] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            for length in LENGTHS:
                seconds = timed(found, length, repeats)
                dense = statistics.median(seconds["float32"])
                for way, each in seconds.items():
                    low, median, high = (1e3 * q for q in statistics.quantiles(each, n=4))
                    row = {"model": Path(source).name, "tokens": length, "as": way, "ms": median, "q1": low, "q3": high}
                    rows.append(row | {"n": repeats, "times faster than float32": 1e3 * dense / median})
                    click.echo(json.dumps(rows[-1]))
    out.write_text(json.dumps({"threads": threads, "rows": rows}, indent=1))


@torch.no_grad()
def timed(models: dict[str, nn.Module], length: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of one forward of `length` tokens, of every model, `repeats` times in turn after three to warm up."""
    found: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(repeats + 3):
        for name, model in models.items():
            ids = (torch.arange(length) * 37 % model.config.vocab_size)[None]
            start = time.perf_counter()
            model(input_ids=ids)
            if turn >= 3:
                found[name].append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    main()
