"""What is a source worth by the way that it is used? By the combination of learners, pooled, by the network.

    OMP_NUM_THREADS=1 python benchmarks/transfer_quality.py DATASETS

Ground truth of `transmeter validate`, without controls, on targets with their shelves of sources: heart sites, credit
and breast cancer (benchmarks/families.py, "real"), 5 and 20 labelled rows per class. Gains are over the best learner of
the target alone; beside them over the best of those that builds before the combination compared with: without the
average of the target's own learners, with the network on the target alone. Heart sites and credit were looked at when
the rules of the combination were made, so that these figures tell the ways apart, but are no held-out test of it.
"""

import json
import warnings
from pathlib import Path

import click
import numpy as np
import torch
from families import HEARTS, problems

from transmeter.gain import ground_truth
from transmeter.learners.combination import COMBINATION
from transmeter.network.source import Source
from transmeter.tables.prepare import prepare
from transmeter.util import writing

OUT = Path(__file__).resolve().parent / "results" / "transfer_quality.json"
WAYS = (COMBINATION, "pooled", "network")


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True))
@click.option("--repeats", default=16)
@click.option("--most-classes", default=2, help="Targets with more classes are left out.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(datasets: Path, repeats: int, most_classes: int, out: Path) -> None:
    """Measure, print, and write the figures."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    made = [p for p in problems(datasets, lambda tables: tables) if p.family == "real"]
    cells = [
        cell(problem, shots, repeats)
        for problem in made
        if len(problem.target.classes) <= most_classes
        for shots in problem.shots
    ]
    figures = {"repeats": repeats, "cells": cells, "means": [summary(cells, shots) for shots in (5, 20)]}
    writing.write_json(out, figures)
    for line in figures["means"]:
        click.echo(json.dumps(line))


def cell(problem, shots: int, repeats: int) -> dict:
    """Gains of every source by every way, and of all sources together."""
    target, sources, _ = prepare(problem.target, problem.sources)
    found = ground_truth.measure(
        [Source(s) for s in sources], target, shots=shots, repeats=repeats, seed=7, controls=False
    )
    arms = {COMBINATION: found.sources, **found.others}
    former = max((name for name in found.baselines if name != COMBINATION), key=found.baselines.get)
    behind = found.baselines[found.baseline] - found.baselines[former]
    click.echo(f"{target.name}, {shots} shots", err=True)
    return {
        "target": target.name,
        "shots": shots,
        "baseline": found.baseline,
        "former baseline": former,
        "former baseline behind": round(behind, 2),
        "baselines": {name: round(value, 2) for name, value in found.baselines.items()},
        "sources": [s.name for s in sources],
        "gains": {way: [round(arm.gain_pp, 2) for arm in arms[way]] for way in WAYS},
        "gains over the former baseline": {way: [round(arm.gain_pp + behind, 2) for arm in arms[way]] for way in WAYS},
        "errors": {way: [round(arm.error_pp, 2) for arm in arms[way]] for way in WAYS},
        "together": round(found.together.gain_pp, 2),
        "together over the former baseline": round(found.together.gain_pp + behind, 2),
    }


def summary(cells: list[dict], shots: int) -> dict:
    """Mean gains over both baselines, and the lead of the combination over other ways with its 95 % interval."""
    mine = [c for c in cells if c["shots"] == shots]
    figures = {"shots": shots, "targets": len(mine), **means(mine, "")}
    figures["over the former baseline"] = means(mine, " over the former baseline")
    for way in WAYS[1:]:
        lead = np.array([np.mean(c["gains"][COMBINATION]) - np.mean(c["gains"][way]) for c in mine])
        arm = ground_truth.Arm.from_repeats(way, lead)
        figures[f"combination ahead of {way}"] = [round(v, 2) for v in (arm.gain_pp, arm.ci_low, arm.ci_high)]
    return figures


def means(cells: list[dict], baseline: str) -> dict:
    """Gains by every way: mean and worst of heart sites for each other, mean of all targets."""
    gains = f"gains{baseline}"
    hearts = [
        {way: c[gains][way][i] for way in WAYS}
        for c in cells
        if c["target"] in HEARTS
        for i, name in enumerate(c["sources"])
        if name in HEARTS
    ]
    figures = {"heart pairs": len(hearts), "heart": {}, "worst heart pair": {}, "all": {}}
    for way in WAYS:
        figures["heart"][way] = round(float(np.mean([h[way] for h in hearts])), 2)
        figures["worst heart pair"][way] = round(float(np.min([h[way] for h in hearts])), 2)
        figures["all"][way] = round(float(np.mean([np.mean(c[gains][way]) for c in cells])), 2)
    return figures | {"all sources together": round(float(np.mean([c[f"together{baseline}"] for c in cells])), 2)}


if __name__ == "__main__":
    main()
