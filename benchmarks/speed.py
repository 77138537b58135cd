"""How long scoring takes: stacked against one by one, a hundred sources against full transfer, and how cost grows.

    OMP_NUM_THREADS=1 python benchmarks/speed.py DATASETS

One thread; source classifiers are cached in all arms. Ratios count, times are this machine's.
"""

import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import pandas as pd
import torch
from families import noisy, read_table, renamed, seed_of

from transmeter.gain import ground_truth
from transmeter.gain.metrics import accuracies
from transmeter.gain.transfers import Network, by_network
from transmeter.network.source import HIDDEN, WIDTH, Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.scorers.short_finetune import score as short_finetune
from transmeter.scorers.transmeter import score
from transmeter.tables.data import Table, table
from transmeter.tables.splits import make_splits

SHOTS = 5
OUT = Path(__file__).resolve().parent / "results" / "speed.json"


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True))
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(datasets: Path, out: Path) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    found = {"stacked": stacked(), "hundred": hundred(datasets), "growth": growth()}
    out.write_text(json.dumps(found, indent=1) + "\n")
    click.echo(json.dumps(found, indent=1))


def timed(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def synthetic(name: str, rows: int, columns: int, seed: int = 0) -> Table:
    """Two classes, noisy, in columns c0..."""
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % 2
    x = rng.normal(size=(rows, columns)) + codes[:, None] * rng.normal(size=columns) * 0.5
    return table(name, pd.DataFrame(x, columns=[f"c{i}" for i in range(columns)]), codes)


def stacked() -> dict[str, dict[str, float]]:
    """Networks trained a second, all at once and one at a time, with the loss of the ranking and with all its terms.

    matmul_share: of this machine's rate for products of 512 x 512 matrices that the stacked step reaches.
    """
    sources = [Source(synthetic(f"s{i}", 500, 40, i)) for i in range(15)]
    target = Encoded(synthetic("target", 1000, 30, 99))
    splits = make_splits(target.table, 64, 10, 0)
    for source in sources:
        _ = source.classifier
    a = torch.randn(512, 512)
    rate = 2 * 512**3 / timed(lambda: a @ a, 21)
    found = {}
    paper = Terms(reconstruction=0.1, mean_distance=0.01, discriminator=0.1)
    for name, terms in (("plain", Terms()), ("paper", paper)):

        def run(chosen: list[Source], part: list, steps: int, terms: Terms = terms) -> float:
            """Seconds of one step: the difference of two lengths, so that preparation does not count."""
            long, short = (
                timed(lambda n=n: train(chosen, target, part, terms, Schedule(steps=n), 0)) for n in (steps, steps // 4)
            )
            return (long - short) / (steps - steps // 4)

        together = run(sources, splits, 40) / (len(sources) * len(splits))
        alone = run(sources[:1], splits[:1], 200)
        # forward and backward through both sides' layers (2 + 4 FLOPs a weight and row), 30 and 40 features
        flops = 6 * Schedule().batch * (30 * WIDTH + 40 * WIDTH + 2 * (WIDTH * HIDDEN + HIDDEN * 2))
        found[name] = {
            "ms_a_step_alone": 1000 * alone,
            "ms_a_step_and_network_stacked": 1000 * together,
            "times_faster": alone / together,
            "matmul_share": flops / together / rate,
        }
    return found


def hundred(datasets: Path) -> dict[str, float]:
    """One target, a hundred sources: ranking against 24 repeats of network transfer from each, as the builds before the
    combination measured gains, with the regret of the picks."""
    whole = read_table(datasets, "spambase", 2000)
    order = seed_of("speed").permutation(len(whole))
    columns = [str(c) for c in seed_of("speed", "columns").permutation(whole.columns)]
    own, other = columns[:28], columns[28:]
    target = replace(whole.take(order[:1000]), name="target", features=whole.take(order[:1000]).features[own])
    theirs = whole.take(order[1000:])
    sources = []
    for i in range(100):
        rng = seed_of("speed", i)
        kept = list(rng.permutation(own)[: i % 29])
        strange = {c: f"x{j}" for j, c in enumerate(rng.permutation(other)[: 28 - len(kept)])}
        part = replace(theirs, features=theirs.features[kept + list(strange)])
        rows = rng.permutation(len(part))[: int(rng.integers(100, 1000))]
        sources.append(Source(noisy(renamed(part.take(rows), f"s{i}", strange), f"s{i}", rng.uniform(0, 0.7))))
    for source in sources:
        _ = source.classifier, source.skill
    begin = time.perf_counter()
    ranked = score(sources, target, shots=SHOTS)
    ranking = time.perf_counter() - begin
    begin = time.perf_counter()
    full = [by_networks(s, target) for s in sources]
    transfer = time.perf_counter() - begin
    short = short_finetune(sources, target, shots=SHOTS, repeats=200, seconds=ranking)
    true = np.array(
        [
            a.gain_pp
            for a in ground_truth.measure(
                sources, target, shots=SHOTS, repeats=64, seed=2, controls=False, network=False
            ).sources
        ]
    )
    picks = {
        "transmeter": int(np.argmax([s.value for s in ranked])),
        "network transfer": int(np.argmax(full)),
        "short fine-tune in the same time": int(np.argmax([s.value for s in short])),
    }
    return {
        "seconds_ranking": ranking,
        "seconds_network_transfer": transfer,
        "times_faster": transfer / ranking,
        "best_gain_pp": float(true.max()),
        **{f"regret_pp, {name}": float(true.max() - true[i]) for name, i in picks.items()},
    }


def by_networks(source: Source, target: Table) -> float:
    """Balanced accuracy in percent after network transfer from one source, over 24 repeats."""
    splits, rows = make_splits(target, SHOTS, 24, 1), np.arange(len(target))
    reached = []
    for first in range(0, len(splits), 8):
        part = splits[first : first + 8]
        found = by_network([source], Encoded(target), part, rows, Network(Terms(), Schedule(), first))
        probabilities = torch.from_numpy(found.given[0].probabilities)[None]
        reached.append(accuracies(probabilities, target.codes, part, "balanced_accuracy").mean())
    return float(np.mean(reached))


def growth() -> list[dict[str, float]]:
    """Seconds and peak memory of a ranking by number of sources, rows and columns, one thing changed at a time."""
    rows = []
    for sources, length, columns in (
        *((n, 300, 20) for n in (1, 10, 100, 1000)),
        *((10, n, 20) for n in (1000, 10_000)),
        *((10, 300, n) for n in (100, 1000)),
    ):
        shelf = [Source(synthetic(f"s{i}", length, columns, i % 10)) for i in range(sources)]
        for source in shelf[:10]:
            _ = source.classifier, source.skill
        for i, source in enumerate(shelf[10:]):  # the same tables again
            source.classifier, source.skill = shelf[i % 10].classifier, shelf[i % 10].skill
        target = synthetic("target", 1000, columns, 99)
        seconds = timed(lambda t=target, s=shelf: score(s, t, shots=SHOTS), 1)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"sources": sources, "rows": length, "columns": columns, "seconds": seconds, "peak_gib": memory})
    return rows


if __name__ == "__main__":
    main()
