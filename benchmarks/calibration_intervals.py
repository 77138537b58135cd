"""Do intervals of closeness hold what another sample gives, and does it matter which of the tied sets is taken?

    python benchmarks/calibration_intervals.py DATASETS data/mixlm

For every domain of the decoder as target, and for several samples of 2,000 tokens of all domains and of the target, the
choice as `calibrate` makes it. An interval of one sample should cover the closeness in the mean of all others (widened
for that mean's own error) in 95 % of the cases, and what is told as less close should be so in that mean. What is lost
by taking another set than the one taken comes from results/calibration_truth_decoder.csv: nats a token, the mean over
methods. Writes benchmarks/results/calibration_intervals.md.
"""

import warnings
from pathlib import Path

import calibration_truth as truth
import click
import numpy as np
import pandas as pd
import torch

from compress.calibration import hidden_states
from compress.calibration.calibrate import MEASURED, TARGET_SEED
from compress.calibration.candidates import Choice, Target, choose
from compress.calibration.hidden_states import HiddenStates
from compress.calibration.selection import PROPOSED
from compress.calibration.texts import spread
from transmeter.util.progress import track

OUT = Path(__file__).resolve().parent / "results" / "calibration_intervals.md"


def states_of(datasets: Path, folder: Path, seed: int, groups: torch.Tensor) -> dict[str, HiddenStates]:
    """Hidden states of a sample of every domain, with the texts that sequences are of."""
    net, tokenizer = truth.dense("decoder", folder, "")
    found = {}
    for name, texts in truth.pools("decoder", datasets).items():
        ids, of = zip(*spread(tokenizer, texts, MEASURED, truth.LENGTH, seed), strict=True)
        found[name] = hidden_states.collect(net, tokenizer, name, ids, 0, groups, of)
    return found


def covered(choices: list[Choice], name: str) -> list[bool]:
    """Whether the interval of every sample covers the mean of the others."""
    logs = np.log([choice.scores[name] for choice in choices])
    found = []
    for place, choice in enumerate(choices):
        low, high = np.log(choice.intervals[name])
        others = np.delete(logs, place)
        found.append(abs(logs[place] - others.mean()) <= (high - low) / 2 * (1 + 1 / len(others)) ** 0.5)
    return found


def ordered(choices: list[Choice], name: str) -> list[tuple[bool, bool]]:
    """Per sample: whether the set is tied with what was taken, and whether it is less close in the other samples."""
    found = []
    for place, choice in enumerate(choices):
        others = [c.scores for i, c in enumerate(choices) if i != place]
        if name != choice.name and choice.scores[name] < choice.scores[choice.name]:
            ahead = np.mean([np.log(s[choice.name] / s[name]) for s in others])
            found.append((name in choice.tied, bool(ahead > 0)))
    return found


def losses(target: str, choice: Choice, quality: pd.Series) -> list[tuple[bool, float]]:
    """Per set: whether it is tied with what was taken, and nats a token that taking it instead costs."""
    known = quality[target]
    return [(n in choice.tied, known[choice.name] - known[n]) for n in choice.scores if n != choice.name]


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--samples", default=8, show_default=True)
def main(datasets: Path, folder: Path, samples: int) -> None:
    """Compare and write the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    groups = hidden_states.clusters(truth.dense("decoder", folder, "")[0], 0)
    sets = [states_of(datasets, folder, seed, groups) for seed in range(samples)]
    aims = [states_of(datasets, folder, seed + TARGET_SEED, groups) for seed in range(samples)]
    rows = pd.read_csv(OUT.parent / "calibration_truth_decoder.csv", keep_default_na=False)
    quality = rows[rows.tokens == truth.TOKENS["decoder"]].groupby(["target", "drawer"]).quality.mean()
    cover, order, lost = [], [], []
    for target in track(list(sets[0]), "Targets"):
        choices = [choose(own, [Target(aim[target])], tokens=MEASURED) for own, aim in zip(sets, aims)]
        for name in choices[0].scores:
            if name not in PROPOSED:  # a mixture is another one in every sample
                cover += covered(choices, name)
                order += ordered(choices, name)
        lost += [pair for choice in choices for pair in losses(target, choice, quality)]
    about = [
        ("intervals that cover the mean of the other samples", cover),
        ("sets told as less close that are so in the other samples", [less for tied, less in order if not tied]),
        ("sets told as tied that are less close in the other samples", [less for tied, less in order if tied]),
    ]
    lines = ["| | share | of |", "|---|---|---|"]
    lines += [f"| {what} | {np.mean(values):.3f} | {len(values)} |" for what, values in about]
    lines += [
        "",
        "| taken instead | costs nats a token, mean (largest) | of |",
        "|---|---|---|",
    ]
    for tied, what in ((True, "one that is tied"), (False, "one that is not")):
        values = [value for is_tied, value in lost if is_tied == tied]
        lines.append(f"| {what} | {np.mean(values):.3f} ({np.max(values):.3f}) | {len(values)} |")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
