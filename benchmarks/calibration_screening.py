"""Is what is closest by all tokens among what is closest by a quarter of them?

    python benchmarks/calibration_screening.py DATASETS MINILM

Of more than `candidates.MANY` candidates `calibrate` reads a quarter of the tokens first and goes on with the
closest. Here a tenth of 160 stays, as of 1,000; each holds 400 texts of two sets in shares drawn at random. Told, for
every share of the tokens that is read first: how often the candidate that is closest by all tokens (cheap measure)
stays, and how much less close the closest that stays is. Writes benchmarks/results/calibration_screening.md.
"""

import random
import warnings
from pathlib import Path

import calibration_truth as truth
import click
import numpy as np
import torch

from compress.calibration import candidates, hidden_states
from compress.calibration.calibrate import MEASURED, TARGET_SEED
from compress.calibration.sampling import sequences_of
from compress.model import io
from transmeter.util import writing
from transmeter.util.progress import track

OUT = Path(__file__).resolve().parent / "results" / "calibration_screening.md"
COUNT, KEPT, TEXTS = 160, 16, 400  # candidates, those that stay, and texts of one
PARTS = (4,)  # the tokens that are read first are all, divided by so much
TARGETS = ("sst2", "trec6", "ag_news", "cola")
AT_ONCE = candidates.AT_ONCE


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("model")
@click.option("--draws", default=1, show_default=True)
def main(datasets: Path, model: str, draws: int) -> None:
    """Measure every candidate by all tokens and by few."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    net, tokenizer = io.load(model)
    kind, groups = sequences_of(net, tokenizer, truth.LENGTH, False), hidden_states.clusters(net, 0)
    pools = truth.pools("encoders", datasets)

    def states(name: str, texts: list, tokens: int, seed: int) -> hidden_states.HiddenStates:
        return hidden_states.collect(net, tokenizer, name, kind.cut(tokenizer, texts, tokens, seed), 0, groups)

    kept: dict[int, list[bool]] = {part: [] for part in PARTS}
    lost: dict[int, list[float]] = {part: [] for part in PARTS}
    for draw in range(draws):
        targets = {n: states(n, pools[n], MEASURED, draw + TARGET_SEED) for n in TARGETS}
        scores = {part: {n: dict[str, float]() for n in TARGETS} for part in (1, *PARTS)}
        shelf = mixed(pools, draw)
        for start in track(range(0, COUNT, AT_ONCE), "Measuring"):
            for part, found in scores.items():
                sets = {n: states(n, texts, MEASURED // part, draw) for n, texts in shelf[start : start + AT_ONCE]}
                for name, target in targets.items():
                    found[name] |= candidates.scores_of(candidates.compare(sets, target, coverage=False))
        for part, name in ((part, name) for part in PARTS for name in targets):
            every, few = scores[1][name], scores[part][name]
            stay = sorted(few, key=lambda n: -few[n])[:KEPT]
            best = max(every, key=lambda n: every[n])
            kept[part].append(best in stay)
            lost[part].append(1 - max(every[n] for n in stay) / every[best])
    lines = [
        f"{COUNT} candidates of two sets each, {len(TARGETS)} targets, draws: {draws}; {KEPT} candidates stay.",
        "",
        f"| tokens read first, of {MEASURED:,} | the closest stays | less close than the closest: mean, largest |",
        "|---|---|---|",
        *(f"| {MEASURED // p} | {np.mean(kept[p]):.0%} | {np.mean(lost[p]):.1%}, {max(lost[p]):.1%} |" for p in PARTS),
    ]
    writing.write_text(OUT, "\n".join(lines) + "\n")
    click.echo("\n".join(lines))


def mixed(pools: dict[str, list], draw: int) -> list[tuple[str, list]]:
    """Candidates by name: texts of two sets, in shares drawn at random."""
    rng, found = random.Random(draw), []
    for number in range(COUNT):
        first, second = rng.sample(sorted(pools), 2)
        count = round(TEXTS * rng.random())
        parts = ((first, count), (second, TEXTS - count))
        texts = [text for name, many in parts for text in rng.sample(list(pools[name]), min(many, len(pools[name])))]
        found.append((f"{number} {first} {second}", texts))
    return found


if __name__ == "__main__":
    main()
