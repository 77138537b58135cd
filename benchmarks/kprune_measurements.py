"""Is it enough that K-prune measures its knowledge once? Against measuring it anew for every sublayer, paired.

    python benchmarks/kprune_measurements.py DATASETS DENSE          (DENSE: as for prune_quality.py)

Five tasks and the decoder, three draws of the calibration text, 60 and 80 % of the FLOPs removed (20 and 40 % of the
decoder). Tokens, sentences and windows are those of prune_quality.py. Every finished cell goes to the result at once; a
stopped run goes on with what is missing. Change: of accuracy in points, of the decoder's loss in nats a token, in the
mean of its domains; positive: better measured once. CPU seconds are of the pruning, both ways in turns.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import prune_quality
import torch
from torch import nn

from compress.calibration.texts import batches, cut
from compress.evaluation import metrics, prediction
from compress.evaluation.examples import read_examples
from compress.evaluation.windows import apart
from compress.model import io
from compress.model.walk import Batch
from compress.pipeline import Step
from transmeter.util import writing
from transmeter.util.intervals import half_width

ONCE, ANEW = Step("kprune", {"iterative": False}), Step("kprune", {"iterative": True})
RATIOS = {"encoder": (0.6, 0.8), "decoder": (0.2, 0.4)}
OUT = Path(__file__).resolve().parent / "results" / "kprune_measurements.json"


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("dense", type=click.Path(exists=True, path_type=Path))
@click.option("--decoder", default="data/mixlm", show_default=True)
@click.option("--task", "tasks", multiple=True, default=("decoder", *prune_quality.TASKS), help="May repeat.")
@click.option("--tokens", default=8000, show_default=True, help="Of calibration; the decoder gets twice as many.")
@click.option("--draws", default=3, show_default=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(datasets: Path, dense: Path, decoder: str, tasks: Sequence[str], tokens: int, draws: int, out: Path) -> None:
    """Prune both ways, and write every cell and the summary to JSON."""
    torch.set_num_threads(1)
    cells = json.loads(out.read_text())["cells"] if out.exists() else []
    have = {(c["task"], c["draw"], c["ratio"]) for c in cells}
    for draw in range(draws):
        for task in tasks:
            kind = "decoder" if task == "decoder" else "encoder"
            for ratio in RATIOS[kind]:
                if (task, draw, ratio) in have:
                    continue
                if kind == "decoder":
                    cell = decoder_cell(decoder, datasets / "lm", 2 * tokens, draw, ratio)
                else:
                    cell = encoder_cell(str(dense / task), datasets / "text" / task, tokens, draw, ratio)
                cells.append({"task": task, "draw": draw, "ratio": ratio, **cell})
                click.echo(json.dumps(cells[-1]), err=True)
                writing.write_text(out, json.dumps({"summary": summary(cells), "cells": cells}, indent=1))
    click.echo(json.dumps(summary(cells), indent=1))


def encoder_cell(folder: str, task: Path, tokens: int, draw: int, ratio: float) -> dict[str, float]:
    """Accuracies and their paired change, in percent and points."""
    net, tokenizer = io.load(folder)
    texts, labels = read_examples(task / "test.csv.gz")
    texts, labels = texts[:1000], prediction.class_ids(net, labels[:1000])
    data = prune_quality.labelled(tokenizer, *read_examples(task / "train.csv.gz"), tokens, draw)
    for batch in data:
        del batch["labels"]
    pruned, seconds = both_ways(net, data, ratio)
    once, anew = (100.0 * (prediction.classes(each, tokenizer, texts) == labels) for each in pruned)
    return seconds | paired(once - anew) | {"once": float(once.mean()), "anew": float(anew.mean())}


def decoder_cell(folder: str, texts: Path, tokens: int, draw: int, ratio: float) -> dict[str, float]:
    """Losses in the mean of the domains and their paired change, in nats a token."""
    net, tokenizer = io.load(folder)
    domains = [prune_quality.blocks(texts, files) for files in prune_quality.DOMAINS.values()]
    sequences = [s for own, _ in domains for s in cut(tokenizer, own, tokens // len(domains), 128, draw)]
    windows = [apart(tokenizer, held, 20_000, prune_quality.WINDOW) for _, held in domains]
    pruned, seconds = both_ways(net, batches(tokenizer, sequences), ratio)
    once, anew = ([prediction.losses(each, tokenizer, part) for part in windows] for each in pruned)
    changes = [metrics.loss_change(a, b) for a, b in zip(anew, once)]  # by domain
    errors = [(c["ci_high"] - c["ci_low"]) / 2 / half_width(1.0, len(w) - 1) for c, w in zip(changes, windows)]
    about = {
        "change": float(np.mean([c["value"] for c in changes])),
        "error": float(np.linalg.norm(errors)) / len(errors),
    }
    return seconds | about | {"once": mean_loss(once), "anew": mean_loss(anew)}


def mean_loss(domains: Sequence[np.ndarray]) -> float:
    """Nats a token in the mean of domains, each (windows, 2): sums and tokens."""
    return float(np.mean([losses[:, 0].sum() / losses[:, 1].sum() for losses in domains]))


def both_ways(net: nn.Module, data: Sequence[Batch], ratio: float) -> tuple[list[nn.Module], dict[str, float]]:
    """The model pruned with one measurement, and with one a sublayer; CPU seconds of both."""
    found, seconds = [], {}
    for name, step in (("seconds_once", ONCE), ("seconds_anew", ANEW)):
        begin = time.process_time()
        found.append(prune_quality.pruned(net, data, step, ratio))
        seconds[name] = round(time.process_time() - begin, 2)
    return found, seconds


def paired(change: np.ndarray) -> dict[str, float]:
    """Mean and standard error of changes (n,)."""
    return {"change": float(change.mean()), "error": float(change.std(ddof=1) / len(change) ** 0.5)}


def summary(cells: Sequence[dict]) -> list[dict]:
    """By task and ratio, and over the encoder tasks: change in the mean of the draws, 95 % interval, times as fast."""
    rows, encoders = [], [c for c in cells if c["task"] != "decoder"]
    for task in [*dict.fromkeys(c["task"] for c in cells), "encoders"]:
        for ratio in sorted({c["ratio"] for c in cells}):
            mine = [c for c in (encoders if task == "encoders" else cells) if c["ratio"] == ratio]
            mine = [c for c in mine if task in (c["task"], "encoders")]
            if len(mine) < 2:
                continue
            changes = np.array([c["change"] for c in mine])
            by_rows = float(np.linalg.norm([c["error"] for c in mine])) / len(mine)
            error = max(float(changes.std(ddof=1)) / len(mine) ** 0.5, by_rows)
            reach = half_width(error, len(mine) - 1)
            faster = np.mean([c["seconds_anew"] / c["seconds_once"] for c in mine])
            means = {name: round(float(np.mean([c[name] for c in mine])), 3) for name in ("once", "anew")}
            about = {"task": task, "ratio": ratio, "draws": len(mine), **means}
            interval = [round(float(v), 3) for v in (changes.mean(), changes.mean() - reach, changes.mean() + reach)]
            rows.append(about | {"change": interval, "times_as_fast": round(float(faster), 2)})
    return rows


if __name__ == "__main__":
    main()
