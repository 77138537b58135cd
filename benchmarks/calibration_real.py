"""Does the calibration measure order texts for SmolLM2-135M-Instruct as compression with them does?

    python benchmarks/calibration_real.py DATASETS DENSE --minutes 60 [--method "gptq 3 bits"] [--draws 2]

DENSE is W/dense of real_models.py, whose texts these are too; a fifth target is school maths in the chat template.
Candidates are six sets and six mixtures of them, 8 sequences of 512 tokens; compressed by each, the model reads 2,048
tokens of held-out text of every target. Ground truth is the KL divergence from the dense model; measured before, on
2,000 tokens as by `calibrate`, is the closeness of the candidate's hidden states to those of other text of the target.

Every finished cell goes to benchmarks/results/calibration_real.csv at once; the same command goes on with what is
missing. The first draw of everything comes first.
"""

import time
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from real_models import HELD_OUT, TARGETS, TEXTS, Remembered, part

from compress.calibration import candidates, hidden_states
from compress.calibration.calibrate import MEASURED, TARGET_SEED
from compress.calibration.hidden_states import HiddenStates
from compress.calibration.texts import USUAL, batches, pack, spread
from compress.evaluation import prediction
from compress.evaluation.windows import joined, slide
from compress.model import io
from compress.pipeline import Step, apply
from transmeter.util import writing

OUT = Path(__file__).resolve().parent / "results" / "calibration_real.csv"
TOKENS, LENGTH, WINDOW, WINDOWS = 4096, 512, 1024, 2
METHODS = {
    "gptq 3 bits": Step("gptq", {"bits": 3}),
    "sparsegpt 50 %": Step("sparsegpt", {"ratio": 0.5}),
    "kprune 20 %": Step("kprune", {"ratio": 0.2}),
}
CHAT = "chat"
ALL = "all"  # targets at once: mean KL divergence, and geometric mean of the closeness
MIXTURES = ("wiki+web", "web+math", "web+code", "math+code", "wiki+stories", "+".join(TEXTS))

COLUMNS = "method,target,draws,best,median,worst,another draw,pick,its KL,own text,Spearman,ceiling".split(",")


class Data:
    """The dense model and all texts."""

    def __init__(self, folder: Path, dense: Path):
        self.net, self.tokenizer = io.load(dense)
        self.remembered = Remembered(self.net)
        self.sets = {name: split(part(folder, *where)) for name, where in TEXTS.items()}
        self.targets = {name: split(part(folder, *where)) for name, where in TARGETS.items()}
        self.held_out = {name: split(part(folder, *where)) for name, where in HELD_OUT.items()}
        self.targets[CHAT] = [self.chat(text) for text in self.targets["math"]]
        self.held_out[CHAT] = [self.chat(text) for text in self.held_out["math"]]

    def chat(self, text: str) -> str:
        """A question and its answer in the chat template."""
        question, _, answer = text.removeprefix("Question: ").partition("\nAnswer:")
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer.strip()}]
        return self.tokenizer.apply_chat_template(said, tokenize=False)

    def drawn(self, candidate: str, seed: int) -> list[list[int]]:
        """The sequences of a candidate, as equal numbers of every part as there can be."""
        names, count = candidate.split("+"), TOKENS // LENGTH
        shares = [count // len(names) + (i < count % len(names)) for i in range(len(names))]
        parts = (pack(self.tokenizer, self.sets[n], LENGTH * k, LENGTH, seed) for n, k in zip(names, shares))
        return [ids for each in parts for ids in each]

    def states(self, candidate: str, seed: int) -> HiddenStates:
        """Hidden states that a candidate is measured by, as `calibrate` does: short sequences of many texts."""
        return self._states(candidate, [self.sets[name] for name in candidate.split("+")], seed)

    def aim(self, target: str, seed: int) -> HiddenStates:
        """Hidden states that a target is measured by."""
        return self._states(target, [self.targets[target]], seed + TARGET_SEED)

    def _states(self, name: str, parts: Sequence[Sequence[str]], seed: int) -> HiddenStates:
        found = [spread(self.tokenizer, texts, MEASURED // len(parts), USUAL, seed) for texts in parts]
        sequences = [ids for each in found for ids, _ in each]
        return hidden_states.collect(self.net, self.tokenizer, name, sequences, 0, self.clusters)

    @property
    def clusters(self) -> torch.Tensor | None:
        """Groups of tokens, made once."""
        if not hasattr(self, "_clusters"):
            self._clusters = hidden_states.clusters(self.net, 0)
        return self._clusters


def split(text: str) -> list[str]:
    """Documents between blank lines."""
    return [each.strip() for each in text.split("\n\n") if each.strip()]


def closeness(data: Data, seed: int) -> list[dict[str, object]]:
    """The measure of every candidate for every target."""
    sets = {name: data.states(name, seed) for name in [*TEXTS, *MIXTURES]}
    rows = []
    for target in data.targets:
        scores = candidates.scores_of(candidates.compare(sets, data.aim(target, seed)))
        rows += [{"draw": seed, "candidate": n, "target": target, "closeness": s} for n, s in scores.items()]
    return rows


def ground_truth(data: Data, method: str, candidate: str, seed: int) -> list[dict[str, object]]:
    """KL divergence and loss on every target after compression."""
    sequences = data.drawn(candidate, seed)
    small = apply(data.net, batches(data.tokenizer, sequences, 8), METHODS[method], seed, in_place=False)
    rows = []
    for target, texts in data.held_out.items():
        windows = slide(joined(data.tokenizer, texts, WINDOW * WINDOWS), WINDOW, WINDOW)
        loss, tokens, divergence, _ = prediction.losses(small, data.tokenizer, windows, data.remembered).sum(0)
        about = {"method": method, "draw": seed, "candidate": candidate, "target": target}
        rows.append(about | {"kl": divergence / tokens, "loss": loss / tokens, "sequences": len(sequences)})
    return rows


@click.command()
@click.argument("datasets", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("dense", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=180.0, show_default=True, help="After which no new cell begins.")
@click.option("--method", "methods", multiple=True, default=tuple(METHODS), help="May repeat.  [default: all]")
@click.option("--draws", default=2, show_default=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(datasets: Path, dense: Path, minutes: float, methods: Sequence[str], draws: int, out: Path) -> None:
    """Measure what is missing, and compare."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    end, data = time.monotonic() + 60 * minutes, Data(datasets / "lm", dense)
    measured = out.with_name("calibration_real_closeness.csv")
    scores = pd.read_csv(measured).to_dict("records") if measured.exists() else []
    for seed in sorted(set(range(draws)) - {row["draw"] for row in scores}):
        scores += closeness(data, seed)
        writing.write_text(measured, pd.DataFrame(scores).to_csv(index=False, float_format="%.6g"))
    rows = pd.read_csv(out).to_dict("records") if out.exists() else []
    done = {(row["method"], row["draw"], row["candidate"]) for row in rows}
    for seed, method, candidate in product(range(draws), methods, [*TEXTS, *MIXTURES]):
        if (method, seed, candidate) in done or time.monotonic() > end:
            continue
        click.echo(f"{time.strftime('%H:%M')} {method}, draw {seed}, {candidate}", err=True)
        rows += ground_truth(data, method, candidate, seed)
        writing.write_text(out, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
    if not rows:
        return click.echo("the closeness is measured, no compression yet: run it again")
    report = summary(pd.DataFrame(rows), pd.DataFrame(scores))
    writing.write_text(out.with_suffix(".md"), report)
    click.echo(report)


def summary(rows: pd.DataFrame, scores: pd.DataFrame) -> str:
    """The order by the measure beside that by the KL divergence, by method and target."""
    lines = [
        f"{len(TEXTS)} sets and {len(MIXTURES)} mixtures, {TOKENS:,} tokens each; KL divergence in nats a token on "
        f"{WINDOW * WINDOWS:,} tokens a target; means over draws. Ceiling: root of the reliability of the means.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]
    whole = rows.groupby(["method", "draw"]).candidate.transform("nunique") == len(TEXTS) + len(MIXTURES)
    rows = rows[whole]  # without the draws that a stopped run has left
    together = rows.groupby(["method", "draw", "candidate"], as_index=False).kl.mean().assign(target=ALL)
    logs = scores.assign(closeness=np.log(scores.closeness)).groupby(["draw", "candidate"], as_index=False)
    scores = pd.concat([scores, logs.closeness.mean().assign(closeness=lambda s: np.exp(s.closeness), target=ALL)])
    orders, regrets = list[float](), list[float]()
    for (method, target), case in pd.concat([rows, together]).groupby(["method", "target"], sort=False):
        values = case.pivot_table(index="candidate", columns="draw", values="kl").dropna()
        guess = scores[(scores.target == target) & scores.draw.isin(values.columns)]
        guess = guess.groupby("candidate").closeness.mean().reindex(values.index)
        mean, draws = values.mean(axis=1), values.shape[1]
        single = values.corr("spearman").iloc[0, 1] if draws > 1 else np.nan
        ceiling = np.sqrt(max(0.0, 2 * single / (1 + single))) if draws == 2 else np.nan
        noise = float(values.std(axis=1, ddof=1).mean()) if draws > 1 else np.nan
        chosen = guess.idxmax()
        own = mean.get({CHAT: "math"}.get(target, target), np.nan)
        order = guess.corr(-mean, method="spearman")
        cells = (mean.min(), mean.median(), mean.max(), noise, mean[chosen], own, order, ceiling)
        best, median, worst, noise, taken, own, spearman, ceiling = map(figure, cells)
        if target != ALL:
            orders.append(order)
            regrets.append((mean[chosen] - mean.min()) / (mean.median() - mean.min()))
        lines.append(
            f"| {method} | {target} | {draws} | {best} | {median} | {worst} | {noise} | {chosen} | {taken} | {own} | "
            f"{spearman} | {ceiling} |"
        )
    means = f"Means: Spearman {np.mean(orders):.2f}, regret of the pick {np.mean(regrets):.0%} of best to median"
    return "\n".join([*lines, "", f"{means} ({min(regrets):.0%} to {max(regrets):.0%}).", ""])


def figure(value: float) -> str:
    """A number, or a dash where there is none."""
    return "-" if np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
