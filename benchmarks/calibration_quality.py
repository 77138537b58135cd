"""Does the calibration measure predict what a compressed model is worth, and is its choice the best one?

    python benchmarks/calibration_truth.py encoders DATASETS DENSE        (its docstring says how DENSE is made)
    python benchmarks/calibration_truth.py decoder DATASETS data/mixlm
    python benchmarks/calibration_quality.py DATASETS DENSE data/mixlm

The first two measure the ground truth, this one the closeness of the same texts, and compares. A case is a target, a
model and a method; what is ordered are sets of texts of equal tokens and the ways of choosing from all of them; the
target's own text is a candidate of the decoder, and a rival of the encoders. Writes
benchmarks/results/calibration_terms.csv (what is there is not measured again), calibration_quality.json and
.svg. --quick: one seed.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import calibration_truth as truth
import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from prune_quality import DOMAINS, TASKS
from scipy import stats
from scipy.optimize import nnls

from compress.calibration import candidates as calibration
from compress.calibration import hidden_states
from compress.calibration.calibrate import TARGET_SEED
from compress.calibration.hidden_states import DEPTHS, HiddenStates
from compress.calibration.selection import NEED_TARGET, PROPOSED, WAYS
from compress.calibration.texts import cut
from transmeter.scorers import alignment
from transmeter.tables import data
from transmeter.tables.data import Table
from transmeter.util.progress import track

RESULTS = Path(__file__).resolve().parent / "results"
TERMS = ("mean_distance", "separability", "uncovered")
TARGETS = {"encoders": TASKS, "decoder": tuple(DOMAINS)}
OWN = "own text"
MEASURE = {key: float(key[1] != "separability") for key in product(DEPTHS, TERMS)}  # the scorer's defaults


def table(name: str, view: HiddenStates) -> Table:
    """Hidden states as transmeter gets them."""
    columns = [f"{depth}::{i}" for depth in DEPTHS for i in range(view.states.shape[2])]
    return data.from_arrays(name, view.states.reshape(len(view.states), -1), view.labels, columns)


def terms_of(part: str, datasets: Path, folder: Path, target: str, seed: int) -> list[dict[str, object]]:
    """Every term of every draw for one target, a row each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task = target if part == "encoders" else ""
    net, tokenizer = truth.dense(part, folder, task)
    sets, tokens = truth.pools(part, datasets), truth.TOKENS[part]
    own = hidden_states.collect(
        net, tokenizer, target, cut(tokenizer, sets[target], tokens, truth.LENGTH, seed + TARGET_SEED)
    )
    views = dict(truth.hidden_states_of(part, datasets, folder, task, tokens, seed))
    names = [w for w in WAYS if w != "random"]
    names += ["self"] if part == "decoder" else ["closeness, own among them"]
    for name in names:
        aim = target if part == "encoders" or name in NEED_TARGET else ""
        ids = truth.drawn(part, datasets, folder, truth.Cell(aim, "", tokens, name, seed))
        views[name] = hidden_states.collect(net, tokenizer, name, ids)
    rows = []
    for name, view in views.items():
        about = {"part": part, "target": target, "drawer": name, "seed": seed}
        found = alignment.terms(table(name, view), table("target", own), TERMS, seed)
        rows += [{**about, "depth": depth, "term": term, "value": value} for (depth, term), value in found.items()]
        rows.append({**about, "depth": "-", "term": "length", "value": float(view.lengths.mean())})
        rows.append({**about, "depth": "-", "term": "negative log-likelihood", "value": float(view.nll.mean())})
    return rows


def predicted(terms: pd.DataFrame, weights: Mapping[tuple[str, str], float]) -> pd.Series:
    """Minus the weighted mean of the logarithms of the terms, by (part, target, drawer, seed)."""
    known = terms[terms.depth.isin(DEPTHS)]
    weight = pd.Series([weights[key] for key in zip(known.depth, known.term)], known.index)
    logs = -np.log(known.value) * weight / sum(weights.values())
    return logs.groupby([known[c] for c in ("part", "target", "drawer", "seed")]).sum()


def truths(part: str) -> pd.DataFrame:
    """Quality by target, method, drawer and seed; the target's own text is called so."""
    rows = pd.read_csv(RESULTS / f"calibration_truth_{part}.csv", keep_default_na=False)
    rows["part"], rows["set"] = part, rows.drawer
    rows["usual"] = rows.tokens == truth.TOKENS[part]
    rows.loc[rows.drawer == rows.target, "set"] = OWN
    return rows


def order_of(part: str, names: Sequence[str]) -> list[str]:
    """What is put in order: everything but, of an encoder, what its own text is in."""
    return [n for n in names if part == "decoder" or (n != OWN and "own" not in n)]


def agreement(rows: pd.DataFrame, score: pd.Series) -> pd.DataFrame:
    """A row a case: Spearman of the score with the ground truth, its reliability, and what the pick is worth."""
    found = []
    for (part, method, target), case in rows.groupby(["part", "method", "target"], sort=False):
        values = case.pivot_table(index="drawer", columns="seed", values="quality")
        names = order_of(part, [OWN if d == target else d for d in values.index])
        values.index = [OWN if d == target else d for d in values.index]
        values = values.loc[names].dropna()
        guess = score[part, target].unstack("seed").rename({target: OWN}).reindex(values.index)[values.columns]
        if len(values) < 5 or guess.isna().any(axis=None):
            continue
        seeds, mean = values.shape[1], values.mean(axis=1)
        pairs = [values.corr("spearman").iloc[i, j] for i in range(seeds) for j in range(i)]
        single = float(np.mean(pairs)) if pairs else np.nan
        weighed = guess.drop([n for n in guess.index if n in WAYS and n not in PROPOSED or n == "self"])
        picks = weighed.apply(lambda column: calibration.pick(np.exp(column).to_dict()))
        pick = float(np.mean([values.loc[name, seed] for seed, name in picks.items()]))
        found.append(
            {
                "part": part,
                "method": method,
                "target": target,
                "sets": len(values),
                "seeds": seeds,
                "spearman": float(guess.mean(axis=1).corr(mean, method="spearman")),
                "reliability": seeds * single / (1 + (seeds - 1) * single),
                "pick": pick,
                "best": float(mean.max()),
                "median": float(mean.median()),
                "spread": float(mean.max() - mean.median()),
                "noise": float(values.std(axis=1, ddof=1).mean()) if seeds > 1 else np.nan,
                "picks": list(picks),
            }
        )
    return clear(pd.DataFrame(found))


def clear(cases: pd.DataFrame) -> pd.DataFrame:
    """With `clear`: whether the spread is at least twice the noise; else the right answer is "any of these".

    Noise is that of a draw, of another method on the same target where there is one draw alone, together with the
    standard error of an accuracy on the test sentences of an encoder.
    """
    of_target = cases.groupby(["part", "target"]).noise.transform("mean")
    test = np.where(cases.part == "encoders", cases["median"] * (1 - cases["median"]) / truth.ROWS, 0.0)
    noise = np.sqrt(cases.noise.fillna(of_target) ** 2 + test)
    return cases.assign(clear=cases.spread >= 2 * noise)


def budgets(rows: pd.DataFrame, score: pd.Series) -> list[dict[str, object]]:
    """What the choice is worth by tokens, the closeness measured at the usual number; the mean over targets."""
    found = []
    for (part, method), these in rows.groupby(["part", "method"]):
        if these.tokens.nunique() == 1:
            continue
        kept = set.intersection(*(set(g.drawer) for _, g in these.groupby("tokens")))
        for tokens, group in these[these.drawer.isin(kept) & (these.seed == 0)].groupby("tokens"):
            cases = agreement(group, score)
            own = group[group.set == OWN].groupby("target").quality.mean()
            figures = cases[["spearman", "spread", "pick", "best", "median"]].mean().to_dict()
            found.append({"part": part, "method": method, "tokens": int(tokens), "own": own.mean(), **figures})
    return found


def learned(rows: pd.DataFrame, terms: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Weights of depths and terms, none below 0, that fit the ground truth of the given cases best, each case alike."""
    known = terms[terms.depth.isin(DEPTHS)]
    logs = np.log(
        known.pivot_table(index=["part", "target", "drawer", "seed"], columns=["depth", "term"], values="value")
    )
    sides, truth_of = [], []
    for (part, _, target, seed), case in rows.groupby(["part", "method", "target", "seed"]):
        case = case[[name in order_of(part, [name]) for name in case.set]]
        keys = [(part, target, drawer, seed) for drawer in case.drawer]
        if len(case) < 5 or case.quality.std() == 0 or not set(keys) <= set(logs.index):
            continue
        x, y = logs.loc[keys].to_numpy(), case.quality.to_numpy()
        sides.append((x.mean(0) - x) / len(y) ** 0.5)
        truth_of.append((y - y.mean()) / y.std() / len(y) ** 0.5)
    ridge = 0.3 * len(sides) ** 0.5 * np.eye(logs.shape[1])
    weights, _ = nnls(np.concatenate([*sides, ridge]), np.concatenate([*truth_of, np.zeros(logs.shape[1])]))
    return dict(zip(logs.columns, weights.tolist()))


def rivals(rows: pd.DataFrame, cases: pd.DataFrame) -> list[dict[str, object]]:
    """Every rival: mean of (pick - rival), in the spread of the case, with an interval over targets."""
    found = []
    names = ["random set", OWN, *(w for w in WAYS if w not in ("random",)), "web", "wikitext", "wiki", "self"]
    for name in names:
        lead = []
        for case in cases.itertuples():
            these = rows[(rows.part == case.part) & (rows.method == case.method) & (rows.target == case.target)]
            mean = these.groupby("set").quality.mean()
            single = [s for s in mean.index if s not in WAYS and s not in (OWN, "self") and "own" not in s]
            value = mean[single].mean() if name == "random set" else mean.get(name, np.nan)
            lead.append((case.part, case.target, (case.pick - value) / case.spread, case.pick - value))
        table_of = pd.DataFrame(lead, columns=["part", "target", "lead", "raw"]).dropna()
        for part, group in table_of.groupby("part"):
            each = group.groupby("target").lead.mean().to_numpy()
            reach = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else np.inf
            low, high = each.mean() - reach, each.mean() + reach
            about = {
                "rival": name,
                "part": part,
                "targets": len(each),
                "lead": each.mean(),
                "ci_low": low,
                "ci_high": high,
            }
            found.append(about | {"raw": group.raw.mean()})
    return found


def broad(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Quality of the decoder, the mean over all its targets, by method and drawer: what keeps everything."""
    free = rows[(rows.part == "decoder") & (rows.task == "")]
    mean = free.groupby(["method", "drawer", "seed"]).quality.mean().groupby(["method", "drawer"])
    return mean.agg(["mean", "min", "max"]).reset_index().to_dict("records")


def summary(rows: pd.DataFrame, terms: pd.DataFrame) -> dict[str, object]:
    """All figures: of the measure as it is, of every term alone, and of weights learned on other targets."""
    equal = dict.fromkeys(product(DEPTHS, TERMS), 1.0)
    kinds = {"measure": MEASURE, "measure with discriminators": equal}
    kinds |= {f"{t} alone": {k: float(k[1] == t) for k in equal} for t in TERMS}
    kinds |= {f"measure, {d} block alone": {k: v * (k[0] == d) for k, v in MEASURE.items()} for d in DEPTHS}
    scores = {kind: predicted(terms, weights) for kind, weights in kinds.items()}
    other = []
    for part, targets in TARGETS.items():
        for target in targets:
            weights = learned(rows[~((rows.part == part) & (rows.target == target))], terms)
            other.append(predicted(terms[(terms.part == part) & (terms.target == target)], weights))
    scores["weights learned on other targets"] = pd.concat(other)
    crossed = [
        predicted(terms[terms.part == part], learned(rows[rows.part != part], terms))
        for part in TARGETS
        if (rows.part != part).any()
    ]
    scores["weights learned on the other model"] = pd.concat(crossed)
    cases = {kind: agreement(rows, score) for kind, score in scores.items()}
    lines = []
    for kind, found in cases.items():
        for part, group in found.groupby("part"):
            each = group.groupby("target").spearman.mean()
            reach = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
            lost, plain = (group.best - group.pick) / group.spread, group.clear
            line = {"score": kind, "part": part, "cases": len(group), "spearman": each.mean(), "reach": reach}
            ceiling = np.sqrt(group.reliability.clip(0, 1)).mean()
            line |= {"ceiling": ceiling, "regret over spread": lost.mean(), "clear cases": int(plain.sum())}
            lines.append(line | {"clear spearman": group.spearman[plain].mean(), "clear regret": lost[plain].mean()})
    return {
        "agreement": lines,
        "by method": cases["measure"]
        .groupby(["part", "method"])[["spearman", "reliability", "spread", "noise"]]
        .mean()
        .reset_index()
        .to_dict("records"),
        "rivals": rivals(rows, cases["measure"]),
        "all targets at once": broad(rows),
        "weights": [[*key, value] for key, value in learned(rows, terms).items()],
        "cases": cases["measure"].to_dict("records"),
    }


def draw(rows: pd.DataFrame, score: pd.Series, file: Path) -> None:
    """Predicted against true, both in deviations of the case; a panel a method, a colour a target."""
    methods = list(rows[["part", "method"]].drop_duplicates().itertuples(index=False, name=None))
    size = {"figsize": (7.6, 2.4 * -(-len(methods) // 2)), "constrained_layout": True}
    figure, axes = plt.subplots(-(-len(methods) // 2), 2, sharex=True, sharey=True, **size)
    named = set()  # parts whose targets a legend names
    for axis, (part, method) in zip(axes.flat, methods):
        for target, case in rows[(rows.part == part) & (rows.method == method)].groupby("target"):
            case = case[[name in order_of(part, [name]) for name in case.set]]
            mean = case.groupby("drawer").quality.mean()
            guess = score[part, target].groupby("drawer").mean().reindex(mean.index)
            axis.plot((guess - guess.mean()) / guess.std(), (mean - mean.mean()) / mean.std(), "o", ms=4, label=target)
        axis.set_title(f"{'MiniLM' if part == 'encoders' else 'mixlm'}, {method}", fontsize=10)
        if part not in named:
            axis.legend(fontsize=8, frameon=False, ncol=2, loc="lower right", handletextpad=0, columnspacing=0.6)
            named.add(part)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    figure.supxlabel("closeness measured before, deviations of the case")
    figure.supylabel("quality after compression, deviations of the case")
    figure.savefig(file)


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("encoders", type=click.Path(exists=True, path_type=Path))
@click.argument("decoder", type=click.Path(exists=True, path_type=Path))
@click.option("--jobs", default=2, show_default=True, help="Targets at a time, one thread each.")
@click.option("--quick", is_flag=True, help="The first seed alone.")
def main(datasets: Path, encoders: Path, decoder: Path, jobs: int, quick: bool) -> None:
    """Measure the terms that are missing, and compare with the ground truth."""
    folders, file = {"encoders": encoders, "decoder": decoder}, RESULTS / "calibration_terms.csv"
    rows = pd.concat([truths(part) for part in TARGETS])
    rows = rows[rows.seed == 0] if quick else rows
    terms = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["part", "target", "seed"])
    have = set(zip(terms.part, terms.target, terms.seed))
    needed = set(zip(rows.part, rows.target, rows.seed)) - have  # of sets of the usual size
    work = [delayed(terms_of)(part, datasets, folders[part], target, seed) for part, target, seed in sorted(needed)]
    for found in track(Parallel(n_jobs=jobs, return_as="generator")(work), f"{len(work)} targets and seeds"):
        terms = pd.concat([terms, pd.DataFrame(found)], ignore_index=True)
        terms.to_csv(file, index=False, float_format="%.6g")
    usual = rows[rows.usual]
    found = summary(usual, terms) | {"budgets": budgets(rows, predicted(terms, MEASURE))}
    draw(usual, predicted(terms, MEASURE), RESULTS / "calibration_quality.svg")
    (RESULTS / "calibration_quality.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    click.echo(pd.DataFrame(found["agreement"]).round(3).to_string())
    click.echo(pd.DataFrame(found["by method"]).round(3).to_string())
    click.echo(pd.DataFrame(found["rivals"]).round(3).to_string())
    click.echo(pd.DataFrame(found["budgets"]).round(3).to_string())
    click.echo(
        pd.DataFrame(found["all targets at once"]).pivot(index="drawer", columns="method", values="mean").round(3)
    )


if __name__ == "__main__":
    main()
