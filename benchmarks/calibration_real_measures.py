"""Measures of whole sets, ours, its parts and those of other work, beside the ground truth of calibration_real.py.

    python benchmarks/calibration_real_measures.py DATASETS DENSE

The twelve sets and five targets of calibration_real.py, as many draws as its ground truth has. Each measure gives a set
a number from 2,000 tokens; told are Spearman with the KL divergence and regret, by how much of the way from
the best to the median set the first one is worse, both the mean over targets, beside taking the same set always. What
was measured goes to results/calibration_real_measures.csv and is not measured again; the table to
results/calibration_real_measures.md.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from calibration_real import CHAT, MIXTURES, OUT, Data
from calibration_rivals import MEASURES, logs
from real_models import TEXTS

from compress.calibration.hidden_states import DEPTHS, HiddenStates
from transmeter.util import writing

MEASURED = OUT.with_name("calibration_real_measures.csv")
SETS = [*TEXTS, *MIXTURES]
ALWAYS = ("web", "wiki", SETS[-1])


def parts(states: HiddenStates, target: HiddenStates) -> dict[str, float]:
    """What closeness is made of, higher is closer."""
    found, each = {}, logs(states, target)
    for name in ("mean distance", "coverage"):
        found[f"{name} alone"] = np.mean([value for (_, term), value in each.items() if term == name])
    for place in DEPTHS:
        found[f"{place} block alone"] = np.mean([value for (depth, _), value in each.items() if depth == place])
    return {name: float(value) for name, value in found.items()}


def similarity(states: HiddenStates, target: HiddenStates) -> float:
    """Cosine of the mean states that enter the last block."""
    own, aim = (view.means()[:, -1].mean(0) for view in (states, target))
    return float(own @ aim / np.linalg.norm(own) / np.linalg.norm(aim))


def diversity(states: HiddenStates, target: HiddenStates) -> float:
    """Different tokens over all tokens."""
    ids = [token for sequence in states.sequences for token in sequence]
    return len(set(ids)) / len(ids)


OTHERS: dict[str, Callable[[HiddenStates, HiddenStates], float]] = {
    "embedding similarity": similarity,
    "lowest perplexity": lambda states, target: -float(states.nll.mean()),
    "lexical diversity (ZipCal-like)": diversity,
}


def measures(data: Data, seed: int) -> list[dict[str, object]]:
    """What every measure gives for every set and target of a draw."""
    sets, rows = {name: data.states(name, seed) for name in SETS}, []
    for target in data.targets:
        own = data.aim(target, seed)
        for name, states in sets.items():
            found = parts(states, own) | {kind: of(states, own) for kind, of in {**MEASURES, **OTHERS}.items()}
            rows += [
                {"draw": seed, "candidate": name, "target": target, "measure": measure, "value": value}
                for measure, value in found.items()
            ]
    return rows


def summary(truth: pd.DataFrame, found: pd.DataFrame) -> str:
    """A row a measure: agreement and regret for every method."""
    whole = truth.groupby(["method", "draw"]).candidate.transform("nunique") == len(SETS)
    truth = truth[whole]
    methods = list(dict.fromkeys(truth.method))
    draws = {method: truth[truth.method == method].draw.nunique() for method in methods}
    lines = [
        "Spearman with the KL divergence, and regret (share of the way from the best to the median set), means over "
        f"{truth.target.nunique()} targets; draws: {', '.join(f'{m} {n}' for m, n in draws.items())}.",
        "",
        f"| measure | {' | '.join(methods)} |",
        "|" + "---|" * (1 + len(methods)),
    ]
    cells: dict[str, list[str]] = {}
    for method in methods:
        for name, (order, regret) in agreement(truth[truth.method == method], found).items():
            shown = "-" if np.isnan(order) else f"{order:.2f}"
            cells.setdefault(name, []).append(f"{shown}, {regret:.0%}")
    names = sorted(cells, key=lambda name: name not in MEASURES)  # closeness first, then what it is made of, and others
    lines += [f"| {name} | {' | '.join(cells[name])} |" for name in names]
    return "\n".join([*lines, ""])


def agreement(truth: pd.DataFrame, found: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Spearman and regret of every measure, and of taking one set always, means over targets."""
    each: dict[str, list[tuple[float, float]]] = {}
    for target, case in truth.groupby("target", sort=False):
        kl = case.groupby("candidate").kl.mean()
        reach = kl.median() - kl.min()
        own = found[(found.target == target) & found.draw.isin(case.draw)]
        for name, values in own.groupby("measure", sort=False):
            guess = values.groupby("candidate").value.mean().reindex(kl.index)
            regret = (kl[guess.idxmax()] - kl.min()) / reach
            each.setdefault(str(name), []).append((guess.corr(-kl, method="spearman"), regret))
        fixed = {f"always {name}": name for name in ALWAYS}
        fixed["the target's own set"] = {CHAT: "math"}.get(str(target), str(target))
        for label, taken in fixed.items():
            each.setdefault(label, []).append((np.nan, (kl[taken] - kl.min()) / reach))
    return {name: tuple(np.mean(values, axis=0)) for name, values in each.items()}


@click.command()
@click.argument("datasets", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("dense", type=click.Path(exists=True, path_type=Path))
def main(datasets: Path, dense: Path) -> None:
    """Measure the draws that are missing, and compare."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    truth = pd.read_csv(OUT)
    found = pd.read_csv(MEASURED) if MEASURED.exists() else pd.DataFrame({"draw": []})
    missing = sorted(set(truth.draw) - set(found.draw))
    data = Data(datasets / "lm", dense) if missing else None
    for seed in missing:
        found = pd.concat([found, pd.DataFrame(measures(data, seed))])
        writing.write_text(MEASURED, found.to_csv(index=False, float_format="%.6g"))
    report = summary(truth, found)
    writing.write_text(MEASURED.with_suffix(".md"), report)
    click.echo(report)


if __name__ == "__main__":
    main()
