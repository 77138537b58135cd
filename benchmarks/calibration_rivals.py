"""ACDM and self-calibration beside the measure and other rivals, on the decoder.

    python benchmarks/calibration_truth.py decoder DATASETS data/mixlm --seeds 1 --method "sparsegpt 70 %" \\
        --method "wanda 2:4" --drawer activation_centroid
    python benchmarks/calibration_rivals.py DATASETS data/mixlm

First as ways of choosing texts of all domains: nats a token that compression adds on the target, the mean over the
seven domains as targets (results/calibration_truth_decoder.csv, the first seed). Then as measures of whole sets:
Spearman with that ground truth over the seven domains as sets, and nats a token that the first costs beyond the best,
of closeness and of the distance of activation centroids on 2,000 tokens. Writes
benchmarks/results/calibration_rivals.md.
"""

import warnings
from pathlib import Path

import calibration_truth as truth
import click
import numpy as np
import pandas as pd
import torch
from calibration_intervals import states_of

from compress.calibration import hidden_states
from compress.calibration.calibrate import TARGET_SEED
from compress.calibration.candidates import compare, scores_of
from compress.calibration.hidden_states import HiddenStates

OUT = Path(__file__).resolve().parent / "results" / "calibration_rivals.md"
WAYS = ("closeness", "embedding_similarity", "activation_centroid", "uniform", "activation_coverage", "self")
METHODS = ("sparsegpt 70 %", "wanda 2:4")


def centroid_distance(states: HiddenStates, target: HiddenStates) -> float:
    """Distance of the mean states, in units of the target's norm, the mean over depths."""
    own, aim = (view.means().mean(0) for view in (states, target))
    return float((np.linalg.norm(own - aim, axis=1) / np.linalg.norm(aim, axis=1)).mean())


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
    sets, aims = (states_of(datasets, folder, seed, groups) for seed in (0, TARGET_SEED))
    guesses = {"closeness": {t: pd.Series(scores_of(compare(sets, aim))) for t, aim in aims.items()}}
    guesses["activation centroid"] = {
        t: -pd.Series({n: centroid_distance(own, aim) for n, own in sets.items()}) for t, aim in aims.items()
    }
    lines = [
        *ways(rows),
        "",
        "| measure of sets | Spearman | nats lost by taking the first | cases |",
        "|---|---|---|---|",
    ]
    for kind, guess in guesses.items():
        found = []
        for (_, target), case in rows[rows.drawer.isin(truth.DOMAINS)].groupby(["method", "target"]):
            quality = case.set_index("drawer").quality
            lost = quality.max() - quality[guess[target].idxmax()]
            found.append((guess[target].corr(quality, method="spearman"), lost))
        agreement, lost = np.mean(found, axis=0)
        lines.append(f"| {kind} | {agreement:.2f} | {lost:.3f} | {len(found)} |")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
