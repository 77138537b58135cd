"""Is what is closest at three depths among what is closest as it enters the first block?

    python benchmarks/calibration_screening.py DATASETS MODEL [MODEL ...]

Of more than `screening.KEPT` candidates `calibrate` measures those that stay after a look at what enters the first
block, which takes no forward pass. Here 40 candidates each hold 400 texts of two sets in shares drawn at random. Told,
for a model and over targets: how the order by it agrees with that by all depths, how often the candidate that is
closest by all depths stays, and how much less close the closest that stays is; beside what a quarter of the tokens at
all depths tells, which costs a quarter of the forward passes. Writes benchmarks/results/calibration_screening.md.
"""

import random
import warnings
from collections.abc import Sequence
from pathlib import Path

import calibration_truth as truth
import click
import numpy as np
import torch
from scipy.stats import spearmanr

from compress.calibration import candidates, hidden_states
from compress.calibration.calibrate import MEASURED, TARGET_SEED
from compress.calibration.screening import KEPT
from compress.calibration.texts import spread
from compress.model import io
from transmeter.scorers.alignment import Points, closeness
from transmeter.util import writing
from transmeter.util.progress import track

OUT = Path(__file__).resolve().parent / "results" / "calibration_screening.md"
COUNT, TEXTS = 40, 400  # candidates, and texts of one
TARGETS = {"encoders": ("sst2", "trec6", "ag_news", "cola"), "decoder": ("code", "math", "novels", "web")}
ENTERING, FEW = "what enters the first block", "a quarter of the tokens"


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("models", nargs=-1, required=True)
@click.option("--seed", default=0, show_default=True)
def main(datasets: Path, models: Sequence[str], seed: int) -> None:
    """Measure every candidate at all depths and at the first alone."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [
        f"{COUNT} candidates of two sets each, {MEASURED:,} tokens of each, of which {KEPT} stay.",
        "",
        "| model | targets | screened by | Spearman with all depths: mean, lowest | the closest stays "
        "| less close than the closest: mean, largest |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        lines += rows(datasets, model, seed)
        writing.write_text(OUT, "\n".join(lines) + "\n")
    click.echo("\n".join(lines))


def rows(datasets: Path, model: str, seed: int) -> list[str]:
    """Lines of a model."""
    net, tokenizer = io.load(model)
    groups = hidden_states.clusters(net, seed)
    family = "decoder" if net.can_generate() else "encoders"
    pools = truth.pools(family, datasets)

    def drawn(texts: list, tokens: int, seed: int) -> list[list[int]]:
        return [ids for ids, _ in spread(tokenizer, texts, tokens, truth.LENGTH, seed)]

    def entering(sequences: list[list[int]], by_text: bool) -> Points:
        return hidden_states.embed(net, tokenizer, sequences, by_text, seed, groups)

    targets = {}
    for name in TARGETS[family]:
        ids = drawn(pools[name], MEASURED, seed + TARGET_SEED)
        whole = hidden_states.collect(net, tokenizer, name, ids, seed, groups)
        targets[name] = whole, entering(ids, whole.by_text)
    exact: dict[str, dict[str, float]] = {name: {} for name in targets}
    guesses: dict[str, dict[str, dict[str, float]]] = {how: {n: {} for n in targets} for how in (ENTERING, FEW)}
    for name, texts in track(mixed(pools, seed), Path(model).name):
        ids, few = (drawn(texts, tokens, seed) for tokens in (MEASURED, MEASURED // 4))
        sets, fewer = ({name: hidden_states.collect(net, tokenizer, name, s, seed, groups)} for s in (ids, few))
        first = entering(ids, sets[name].by_text)
        for target, (whole, start) in targets.items():
            exact[target] |= candidates.scores_of(candidates.compare(sets, whole))
            guesses[FEW][target] |= candidates.scores_of(candidates.compare(fewer, whole))
            guesses[ENTERING][target][name] = closeness(first, start).score
    return [line(Path(model).name, how, exact, found) for how, found in guesses.items()]


def line(model: str, how: str, exact: dict[str, dict[str, float]], found: dict[str, dict[str, float]]) -> str:
    """A row of the table."""
    orders, stays, lost = [], [], []
    for target, true in exact.items():
        guess = {name: found[target].get(name, 0.0) for name in true}
        stay = sorted(guess, key=lambda name: -guess[name])[:KEPT]
        best = max(true, key=lambda name: true[name])
        orders.append(float(spearmanr(list(true.values()), list(guess.values()))[0]))
        stays.append(best in stay)
        lost.append(1 - max(true[name] for name in stay) / true[best])
    cells = [model, str(len(exact)), how, f"{np.mean(orders):.2f}, {min(orders):.2f}", f"{np.mean(stays):.0%}"]
    return f"| {' | '.join(cells)} | {np.mean(lost):.1%}, {max(lost):.1%} |"


def mixed(pools: dict[str, list], seed: int) -> list[tuple[str, list]]:
    """Candidates by name: texts of two sets, in shares drawn at random."""
    rng, found = random.Random(seed), []
    for number in range(COUNT):
        first, second = rng.sample(sorted(pools), 2)
        count = round(TEXTS * rng.random())
        parts = ((first, count), (second, TEXTS - count))
        texts = [text for name, many in parts for text in rng.sample(list(pools[name]), min(many, len(pools[name])))]
        found.append((f"{number} {first} {second}", texts))
    return found


if __name__ == "__main__":
    main()
