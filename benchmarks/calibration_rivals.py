"""ACDM and self-calibration beside the measure and other rivals, on the decoder.

    python benchmarks/calibration_truth.py decoder DATASETS data/mixlm --seeds 1 --method "sparsegpt 70 %" \\
        --method "wanda 2:4" --drawer activation_centroid
    python benchmarks/calibration_rivals.py DATASETS data/mixlm

First as ways of choosing texts of all domains: nats a token that compression adds on the target, the mean over the
seven domains as targets (results/calibration_truth_decoder.csv, the first seed). Then as measures of whole sets:
Spearman with that ground truth over the seven domains as sets, and nats a token that the first costs beyond the best,
of closeness, of closeness with labels that count alike or not at all, and of the distance of activation centroids, on
2,000 tokens of three samples. Writes benchmarks/results/calibration_rivals.md.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import calibration_truth as truth
import click
import numpy as np
import pandas as pd
import torch
from calibration_intervals import states_of

from compress.calibration import hidden_states
from compress.calibration.calibrate import TARGET_SEED
from compress.calibration.candidates import points
from compress.calibration.hidden_states import HiddenStates
from transmeter.scorers import alignment

OUT = Path(__file__).resolve().parent / "results" / "calibration_rivals.md"
WAYS = ("closeness", "embedding_similarity", "activation_centroid", "uniform", "activation_coverage", "self")
METHODS = ("sparsegpt 70 %", "wanda 2:4")
SAMPLES = 3


def centroid_distance(states: HiddenStates, target: HiddenStates) -> float:
    """Distance of the mean states, in units of the target's norm, the mean over depths."""
    own, aim = (view.means().mean(0) for view in (states, target))
    return float((np.linalg.norm(own - aim, axis=1) / np.linalg.norm(aim, axis=1)).mean())


def logs(states: HiddenStates, target: HiddenStates, labels: str = "share") -> dict[tuple[str, str], float]:
    """Logarithms of both terms of closeness at every depth, higher is closer, by (depth, term); in double precision.

    labels: "share": each counts by its share of the target, as in `alignment.closeness`; "alike"; "none": one label.
    """
    own, aim, found = points(states), points(target), {}
    y_s, y_t = (side.labels * (labels != "none") for side in (own, aim))
    classes, counts = np.unique(y_t[np.isin(y_t, y_s)], return_counts=True)
    for depth in aim.spaces:
        x_s, x_t = (side.measured_by(aim, depth)[0].numpy().astype(float) for side in (own, aim))
        apart = []
        for label in classes:
            a, b = x_s[y_s == label], x_t[y_t == label]
            apart.append(np.square(a.mean(0) - b.mean(0)).mean() + 1 / len(a) + 1 / len(b))
        found[depth, "mean distance"] = -np.log(np.average(apart, weights=None if labels == "alike" else counts))
        c_s, c_t = (x.T @ x / len(x) for x in (x_s, x_t))
        floor = alignment.FLOOR * np.trace(c_t) / len(c_t) * np.eye(len(c_t))
        found[depth, "coverage"] = -np.log(np.trace(np.linalg.solve(c_s + floor, c_t)) / len(c_t))
    return found


def log_closeness(states: HiddenStates, target: HiddenStates, labels: str = "share") -> float:
    """Mean of `logs`."""
    return float(np.mean(list(logs(states, target, labels).values())))


MEASURES: dict[str, Callable[[HiddenStates, HiddenStates], float]] = {
    "closeness": log_closeness,
    "closeness, labels count alike": partial(log_closeness, labels="alike"),
    "closeness without labels": partial(log_closeness, labels="none"),
    "activation centroid (ACDM-like)": lambda states, target: -centroid_distance(states, target),
}


def ways(rows: pd.DataFrame) -> list[str]:
    """Lines of the table of ways."""
    lines = ["| texts by | " + " | ".join(METHODS) + " |", "|" + "---|" * (1 + len(METHODS))]
    own = rows[rows.drawer == rows.target].assign(drawer="the target's own text")
    for name, some in [("the target's own text", own), *((way, rows[rows.drawer == way]) for way in WAYS)]:
        means = [-some[some.method == method].groupby("target").quality.mean() for method in METHODS]
        assert all(len(mean) == len(truth.DOMAINS) for mean in means), name
        lines.append(f"| {name} | " + " | ".join(f"{mean.mean():.3f}" for mean in means) + " |")
    return lines


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(datasets: Path, folder: Path) -> None:
    """Compare and write the tables."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = pd.read_csv(OUT.parent / "calibration_truth_decoder.csv", keep_default_na=False)
    rows = rows[(rows.tokens == truth.TOKENS["decoder"]) & (rows.seed == 0)]
    groups = hidden_states.clusters(truth.dense("decoder", folder, "")[0], 0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in MEASURES}
    for seed in range(SAMPLES):
        sets, aims = (states_of(datasets, folder, start + seed, groups) for start in (0, TARGET_SEED))
        guesses = {
            (name, target): pd.Series({n: of(own, aim) for n, own in sets.items()})
            for name, of in MEASURES.items()
            for target, aim in aims.items()
        }
        for (_, target), case in rows[rows.drawer.isin(truth.DOMAINS)].groupby(["method", "target"]):
            quality = case.set_index("drawer").quality
            for name in MEASURES:
                guess = guesses[name, target]
                lost = quality.max() - quality[guess.idxmax()]
                found[name].append((guess.corr(quality, method="spearman"), lost))
    lines = [
        *ways(rows),
        "",
        "| measure of sets | Spearman | nats lost by taking the first | cases |",
        "|---|---|---|---|",
    ]
    for name, each in found.items():
        agreement, lost = np.mean(each, axis=0)
        lines.append(f"| {name} | {agreement:.2f} | {lost:.3f} | {len(each)} |")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
