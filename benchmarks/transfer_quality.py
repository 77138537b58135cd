"""What is a source worth by the way that it is used? By the network, pooled, by the combination of linear learners.

    OMP_NUM_THREADS=1 python benchmarks/transfer_quality.py DATASETS

Ground truth of `transmeter validate`, without controls, on targets with their shelves of sources: heart sites, credit
and breast cancer (benchmarks/families.py, "real"), 5 and 20 labelled rows per class, gains over the best learner of the
target alone. Heart sites and credit were looked at when the rules of the combination were made, so that these figures
tell the ways apart, but are no held-out test of the combination.
"""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
from families import HEARTS, problems

from transmeter.gain import ground_truth
from transmeter.network.source import Source
from transmeter.tables.prepare import prepare
from transmeter.util import writing

OUT = Path(__file__).resolve().parent / "results" / "transfer_quality.json"
WAYS = ("network", "pooled", "combination")


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
    gains = {"network": found.sources, **found.others}
    by_way = {way: [round(arm.gain_pp, 2) for arm in gains[way]] for way in WAYS}
    errors = {way: [round(arm.error_pp, 2) for arm in gains[way]] for way in WAYS}
    click.echo(f"{target.name}, {shots} shots", err=True)
    names = [s.name for s in sources]
    about = {"target": target.name, "shots": shots, "baseline": found.baseline, "sources": names}
    return about | {"gains": by_way, "errors": errors, "together": asdict(found.together)["gain_pp"]}


def summary(cells: list[dict], shots: int) -> dict:
    """Mean gains over targets, heart sites by themselves, and the lead of the combination with its 95 % interval."""
    mine = [c for c in cells if c["shots"] == shots]
    hearts = [
        {way: c["gains"][way][i] for way in WAYS}
        for c in mine
        if c["target"] in HEARTS
        for i, name in enumerate(c["sources"])
        if name in HEARTS
    ]
    per_target = {way: np.array([np.mean(c["gains"][way]) for c in mine]) for way in WAYS}
    figures = {"shots": shots, "targets": len(mine), "heart pairs": len(hearts)}
    figures["heart"] = {way: round(float(np.mean([h[way] for h in hearts])), 2) for way in WAYS}
    figures["worst heart pair"] = {way: round(float(np.min([h[way] for h in hearts])), 2) for way in WAYS}
    figures["all"] = {way: round(float(per_target[way].mean()), 2) for way in WAYS}
    figures["all sources together"] = round(float(np.mean([c["together"] for c in mine])), 2)
    for way in ("network", "pooled"):
        lead = per_target["combination"] - per_target[way]
        arm = ground_truth.Arm.from_repeats(way, lead)
        figures[f"combination ahead of {way}"] = [round(v, 2) for v in (arm.gain_pp, arm.ci_low, arm.ci_high)]
    return figures


if __name__ == "__main__":
    main()
