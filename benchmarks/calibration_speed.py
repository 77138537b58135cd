"""What choosing calibration data costs, beside the compression that it is for.

    python benchmarks/calibration_speed.py DATASETS DENSE/sst2

The choice among 20 and among 1,000 candidates, drawn from the sets of calibration_truth.py, for MiniLM, 2,000 tokens
looked at of each; once anew and once with what the first left in its cache; beside K-prune, Kwon and GPTQ on the 20,000
tokens chosen. CPU seconds in one thread. Writes benchmarks/results/calibration_speed.json.
"""

import json
import random
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import calibration_truth as truth
import click
import torch

import compress
from compress.calibration.texts import batches
from compress.model import io
from compress.pipeline import Step, apply

METHODS = {"kprune": {"ratio": 0.75}, "kwon": {"ratio": 0.6}, "gptq": {"bits": 3}}
TOKENS = 20_000
TEXTS = 400  # of a candidate at most, its share of a set: more than are looked at, where there are so many
OUT = Path(__file__).resolve().parent / "results" / "calibration_speed.json"


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("model")
@click.option("--many", default=1000, show_default=True)
def main(datasets: Path, model: str, many: int) -> None:
    """Time the choice and the compression."""
    warnings.simplefilter("ignore")
    pools = truth.pools("encoders", datasets)
    target = {"sst2": pools["sst2"]}
    others = {name: texts for name, texts in pools.items() if name != "sst2"}
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    chosen = None
    for count in (20, many):
        each = -(-count // len(others))
        shuffled = {n: random.Random(0).sample(texts, len(texts)) for n, texts in others.items()}
        sets = {f"{n}-{i}": texts[i::each][:TEXTS] for n, texts in shuffled.items() for i in range(each)}
        sets = dict(list(sets.items())[:count])
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("anew", "again"):
                start = time.process_time()
                chosen = compress.calibrate(model, sets, target, tokens=TOKENS, length=truth.LENGTH, cache=cache)
                seconds = time.process_time() - start
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                case = {"cpu_seconds": seconds, "chosen": chosen.parts[0].name, "peak_bytes": peak}
                found[f"{count} candidates, {kind}"] = case
                click.echo(f"{count} {kind}: {seconds:.1f} s")
    net, tokenizer = io.load(model)
    for name, options in METHODS.items():
        start = time.process_time()
        apply(net, batches(tokenizer, chosen.sequences), Step(name, options), in_place=False)
        found[name] = {"cpu_seconds": time.process_time() - start, "tokens": sum(map(len, chosen.sequences))}
        click.echo(f"{name}: {found[name]['cpu_seconds']:.1f} s")
    OUT.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
