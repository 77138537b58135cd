"""Accuracy of an encoder after structured pruning, K-prune against plain magnitude, at the same FLOPs.

    python benchmarks/finetune.py MODELS/all-MiniLM-L6-v2-fp16 DATASETS/text/sst2 --out dense
    python benchmarks/compress_quality.py dense DATASETS/text/sst2

Calibration is drawn from the task's own training texts, without labels. Seeds change which texts are drawn.
"""

import json
from functools import partial
from pathlib import Path

import click
from torch import nn

from compress import metrics, models, predict
from compress.budget import flops
from compress.examples import read_examples
from compress.methods import kprune, magnitude
from compress.texts import batches, cut, read_texts
from compress.walk import mean_length

METHODS = {
    "kprune": kprune.compress,
    "kprune, knowledge=gradient": partial(kprune.compress, knowledge="gradient"),
    "magnitude": magnitude.compress,
}


@click.command()
@click.argument("model")
@click.argument("task", type=click.Path(exists=True, path_type=Path))
@click.option("--tokens", default=20_000)
@click.option("--seeds", default=3)
@click.option("--rows", default=1000, help="Test sentences, the first of the file.")
@click.option("--out", default="benchmarks/results/compress_quality.json", type=click.Path(path_type=Path))
def main(model: str, task: Path, tokens: int, seeds: int, rows: int, out: Path) -> None:
    """Compress at 40, 60 and 80 % with every method and seed; write every run to JSON."""
    dense, tokenizer = models.load(model)
    texts, labels = read_examples(task / "test.csv.gz")
    texts, labels = texts[:rows], predict.class_ids(dense, labels[:rows])
    pool = read_texts(task / "train.csv.gz")

    def measured(net: nn.Module) -> dict:
        return metrics.share(predict.classes(net, tokenizer, texts) == labels)

    runs = [{"method": "dense", "ratio": 0.0, "seed": None, **measured(dense)}]
    for seed in range(seeds):
        calibration = batches(tokenizer, cut(tokenizer, pool, tokens, 64, seed))
        length = mean_length(calibration)
        for ratio in (0.4, 0.6, 0.8):
            for name, compress in METHODS.items():
                if name == "magnitude" and seed:
                    continue  # looks at no data
                net = compress(dense, calibration, ratio=ratio)
                removed = 1 - flops(net, length) / flops(dense, length)
                runs.append({"method": name, "ratio": ratio, "seed": seed, "removed": removed, **measured(net)})
                click.echo(json.dumps(runs[-1]))
    out.write_text(json.dumps({"task": task.name, "tokens": tokens, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
