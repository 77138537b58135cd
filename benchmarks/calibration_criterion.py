"""Would what a method minimises, in closed form on second moments of tokens, tell better than closeness? On encoders.

    python benchmarks/calibration_criterion.py DATASETS DENSE --task trec6 --task subj

DENSE has a folder a task (benchmarks/finetune.py). At the three depths of the measure, with the second moments C_s and
C_t of the states of all tokens of a candidate and of the target:

- misfit: features R, chosen at random, are predicted from the others K by least squares on C_s, as methods that refit
  weights do; the error on C_t over trace(C_t[R, R]), for halves and for 80 % of the features, the mean of four choices;
- coverage of tokens: that of the measure, of tokens where the measure has the mean states of texts;
- scales: the variance over features of log diag(C_s) / diag(C_t), by which Wanda and ranges of quantizers weigh.

Told: Spearman's correlation with the ground truth (results/calibration_truth_encoders.csv), the mean over methods, of
each by itself and together with the label-wise mean distance; and that of the measure on the same cases. Writes
benchmarks/results/calibration_criterion.md.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import calibration_quality as quality
import calibration_truth as truth
import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from compress.calibration.calibrate import TARGET_SEED
from compress.calibration.hidden_states import DEPTHS
from compress.calibration.selection import WAYS
from compress.calibration.texts import batches, cut
from compress.model.architectures import blocks_path
from compress.model.walk import drop_padding, inputs
from transmeter.util import writing
from transmeter.util.progress import track

OUT = quality.RESULTS / "calibration_criterion.md"
SHARES, CHOICES, RIDGE = (0.5, 0.8), 4, 0.01  # of the features that are predicted; choices of them; of the mean moment


@torch.no_grad()
def states(net: nn.Module, tokenizer, sequences: Sequence[list[int]]) -> list[Tensor]:
    """(tokens, width) of what enters the first, the middle and the last block."""
    path, last = blocks_path(net), net.config.num_hidden_layers - 1
    places, found = [f"{path}.{i}" for i in (0, (last + 1) // 2, last)], []
    for batch in batches(tokenizer, sorted(map(list, sequences), key=len, reverse=True)):
        with inputs(net, places) as seen:
            net(**batch)
        found.append([drop_padding(batch, seen[place]).double() for place in places])
    return [torch.cat(parts) for parts in zip(*found)]


def moment(x: Tensor) -> Tensor:
    """(width, width) second moment."""
    return x.T @ x / len(x)


def misfit(own: Tensor, aim: Tensor, share: float) -> float:
    """Error on the moment `aim` of predicting a share of the features from the others, fitted on the moment `own`."""
    errors = []
    for seed in range(CHOICES):
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))
        kept, rest = order[: round(len(own) * (1 - share))], order[round(len(own) * (1 - share)) :]
        ridge = RIDGE * own.diagonal().mean() * torch.eye(len(kept), dtype=own.dtype)
        fit = torch.linalg.solve(own[kept][:, kept] + ridge, own[kept][:, rest]).T
        whole = aim[rest][:, rest].trace()
        error = whole - 2 * (fit @ aim[kept][:, rest]).trace() + (fit @ aim[kept][:, kept] * fit).sum()
        errors.append(float(error / whole))
    return float(np.mean(errors))


def terms(own: Tensor, aim: Tensor) -> dict[str, float]:
    """Every term at one depth."""
    c_s, c_t = moment(own), moment(aim)
    found = {f"misfit of {share:.0%}": misfit(c_s, c_t, share) for share in SHARES}
    s, t = (moment(((x - aim.mean(0)) / aim.std(0)).clamp(-10, 10)) for x in (own, aim))
    ridge = 0.1 * t.diagonal().mean() * torch.eye(len(t), dtype=t.dtype)
    found["coverage of tokens"] = float(torch.linalg.solve(s + ridge, t).trace() / len(t))
    scales = (c_s.diagonal() / c_t.diagonal()).log()
    return found | {"scales": float(scales.var()) + 1e-3}


def measured(datasets: Path, folder: Path, task: str, seed: int) -> Iterator[dict[str, object]]:
    """A row a candidate, depth and term, as in calibration_terms.csv."""
    net, tokenizer = truth.dense("encoders", folder, task)
    sets, tokens = truth.pools("encoders", datasets), truth.TOKENS["encoders"]
    aim = states(net, tokenizer, cut(tokenizer, sets[task], tokens, truth.LENGTH, seed + TARGET_SEED))
    for name in track([*sets, *(w for w in WAYS if w != "random"), "closeness, own among them"], f"{task}, {seed}"):
        ids = truth.drawn("encoders", datasets, folder, truth.Cell(task, "", tokens, name, seed))
        about = {"part": "encoders", "target": task, "drawer": name, "seed": seed}
        for depth, own, goal in zip(DEPTHS, states(net, tokenizer, ids), aim):
            yield from ({**about, "depth": depth, "term": t, "value": v} for t, v in terms(own, goal).items())


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--task", "tasks", multiple=True, required=True, help="May repeat.")
@click.option("--seeds", default=2, show_default=True)
def main(datasets: Path, folder: Path, tasks: Sequence[str], seeds: int) -> None:
    """Measure and compare."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    new = pd.DataFrame(row for t in tasks for seed in range(seeds) for row in measured(datasets, folder, t, seed))
    known = pd.read_csv(quality.RESULTS / "calibration_terms.csv")
    known = known[(known.part == "encoders") & known.target.isin(tasks) & (known.seed < seeds)]
    rows = quality.truths("encoders")
    rows = rows[rows.usual & rows.target.isin(tasks) & (rows.seed < seeds)]
    kinds = {"the measure": ["mean_distance", "uncovered"]}
    for term in dict.fromkeys(new.term):
        kinds |= {term: [term], f"{term}, and mean distance": [term, "mean_distance"]}
    lines = [f"| | {' | '.join(tasks)} |", f"|---|{'---|' * len(tasks)}"]
    for kind, names in kinds.items():
        values = pd.concat([known, new])
        weights = {(depth, term): float(term in names) for depth in DEPTHS for term in set(values.term)}
        cases = quality.agreement(rows, quality.predicted(values, weights)).groupby("target").spearman.mean()
        lines.append(f"| {kind} | {' | '.join(f'{cases[task]:.2f}' for task in tasks)} |")
    writing.write_text(OUT, "\n".join(lines) + "\n")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
