"""What is a source worth by the way that it is used? By the combination of learners, pooled, by the network.

    OMP_NUM_THREADS=1 python benchmarks/transfer_quality.py DATASETS [--former CHECKOUT]

Ground truth of `transmeter validate`, without controls, on targets with their shelves of sources: heart sites, credit
and breast cancer (benchmarks/families.py, "real"), 5 and 20 labelled rows per class. Gains are over the best learner of
the target alone; beside them over the best of those that builds before the combination compared with: without the
average of the target's own learners, with the network on the target alone. Heart sites and credit were looked at when
the rules of the combination were made, so that these figures tell the ways apart, but are no held-out test of it.

What a user ends with, over the same former baseline: the set that `rank --together` picks from other splits of the same
rows, all sources at once without a choice, logistic regression on the rows of all, and, given a checkout of an older
build, what that build's `rank` picks (where it says helps, else none), used by the network as it did.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import click
import numpy as np
import torch
from families import HEARTS, problems

from transmeter.gain import ground_truth, sets
from transmeter.gain.metrics import accuracies
from transmeter.gain.race import Race
from transmeter.learners.combination import COMBINATION
from transmeter.learners.member import fit_member
from transmeter.learners.task import PENALTY, Shared, shared, task_of
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.prepare import prepare
from transmeter.util import writing

OUT = Path(__file__).resolve().parent / "results" / "transfer_quality.json"
WAYS = (COMBINATION, "pooled", "network")


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True))
@click.option("--repeats", default=16)
@click.option("--most-classes", default=2, help="Targets with more classes are left out.")
@click.option("--former", type=click.Path(path_type=Path, exists=True), help="Checkout of an older build.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(datasets: Path, repeats: int, most_classes: int, former: Path | None, out: Path) -> None:
    """Measure, print, and write the figures."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    made = [p for p in problems(datasets, lambda tables: tables) if p.family == "real"]
    cells = [
        cell(problem, shots, repeats, former)
        for problem in made
        if len(problem.target.classes) <= most_classes
        for shots in problem.shots
    ]
    figures = {"repeats": repeats, "cells": cells, "means": [summary(cells, shots) for shots in (5, 20)]}
    writing.write_json(out, figures)
    for line in figures["means"]:
        click.echo(json.dumps(line))


def cell(problem, shots: int, repeats: int, older: Path | None) -> dict:
    """Gains of every source by every way, and of all sources together."""
    target, sources, _ = prepare(problem.target, problem.sources)
    made = [Source(s) for s in sources]
    found = ground_truth.measure(made, target, shots=shots, repeats=repeats, seed=7, controls=False)
    arms = {COMBINATION: found.sources, **found.others}
    former = max((name for name in found.baselines if name != COMBINATION), key=found.baselines.get)
    behind = found.baselines[found.baseline] - found.baselines[former]
    ends = {end: value - found.baselines[former] for end, value in reached(made, target, shots, repeats).items()}
    if older:
        pick = former_pick(older, problem.target, problem.sources, shots)
        by_network = {arm.name: arm.gain_pp + behind for arm in found.others["network"]}
        ends["former build's pick"] = by_network[pick] if pick else 0.0
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
        "ends with": {end: round(value, 2) for end, value in ends.items()},
        "together": round(found.together.gain_pp, 2),
        "together over the former baseline": round(found.together.gain_pp + behind, 2),
    }


def reached(sources: list[Source], target: Table, shots: int, repeats: int) -> dict[str, float]:
    """Balanced accuracy in percent of what a user may end with, on the splits of the ground truth."""
    picked = sets.choose(sources, target, shots=shots, repeats=20, seed=3).sources
    race = Race(sources, target, "balanced_accuracy", 7, shots, repeats)
    everyone = list(range(len(sources)))
    for number in range(race.rounds):
        race.run(everyone, number)
    chosen = [i for i in everyone if sources[i].table.name in picked]
    arms = {
        "picked set": race.together(chosen),
        "all sources at once": race.together(everyone),
        "all rows pooled": torch.from_numpy(pooled(race)).float(),
    }
    held_out = race.held_out
    return {
        end: float(accuracies(p[None], held_out.codes, held_out.splits, "balanced_accuracy").mean())
        for end, p in arms.items()
    }


def pooled(race: Race) -> np.ndarray:
    """(splits, rows, classes) by logistic regression on the rows of target and all sources, weighted as for one."""
    task = task_of(race.target, [s.train for s in race.splits], 0)
    parts = [p for s in race.sources for p in shared(s, race.target, task)]
    sizes = [p.memberships.shape[1] for p in parts]
    rows = np.concatenate([next(iter(p.scales.values())) for p in parts])
    weights = np.concatenate([p.weights * n for p, n in zip(parts, sizes)], axis=1) / sum(sizes)
    everything = Shared("all", {}, np.concatenate([p.memberships for p in parts], axis=1), weights)
    weight = ground_truth.SOURCE_ROW * sum(sizes) / task.weights.sum(1).mean()
    member = fit_member("pooled", task, PENALTY, everything, rows, weight)
    return member.probabilities(race.target.x.numpy()[race.held_out.rows] @ task.basis)


FORMER = """
import sys, transmeter
target, *sources = sys.argv[2:]
print("best:", transmeter.rank(target, sources, shots=int(sys.argv[1]), seed=3).best)
"""


def former_pick(checkout: Path, target: Table, sources: list[Table], shots: int) -> str | None:
    """The source that an older build picks; None where it says of none that it helps."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, table in enumerate([target, *sources]):
            paths.append(f"{table.name}={folder}/{i}.csv")
            table.features.assign(label=table.labels).to_csv(f"{folder}/{i}.csv", index=False)
        command = [sys.executable, "-W", "ignore", "-c", FORMER, str(shots), *paths]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    best = done.stdout.partition("best: ")[2].strip()
    return None if best == "None" else best


def summary(cells: list[dict], shots: int) -> dict:
    """Mean gains over both baselines, and the lead of the combination over other ways with its 95 % interval."""
    mine = [c for c in cells if c["shots"] == shots]
    figures = {"shots": shots, "targets": len(mine), **means(mine, "")}
    figures["over the former baseline"] = means(mine, " over the former baseline")
    ends = {end: np.array([c["ends with"][end] for c in mine]) for end in mine[0]["ends with"]}
    figures["ends with"] = {end: round(float(values.mean()), 2) for end, values in ends.items()}
    for end in list(ends)[1:]:
        arm = ground_truth.Arm.from_repeats(end, ends["picked set"] - ends[end])
        figures[f"picked set ahead of {end}"] = [round(v, 2) for v in (arm.gain_pp, arm.ci_low, arm.ci_high)]
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
