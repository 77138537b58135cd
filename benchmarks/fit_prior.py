"""Fit the forests that say what to expect of a gain, on the pairs that prior_pairs.py measured, and report them.

    python benchmarks/fit_prior.py             (about five minutes; writes prior.npz and results/prior.md, prior.json)

Figures are of groups of data sets that were left out of the fit, ten folds of them; so is what scales the intervals.
Real pairs are reported by themselves: parts and mates of tables, heart sites, credit, texts, their nulls left out.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor

from transmeter.gain.agreement import interval_coverage, rank_agreement
from transmeter.gain.ground_truth import half_means
from transmeter.gain.prior import (
    ROUGH,
    SHOTS,
    TAIL,
    TINY,
    FitFeatures,
    Forest,
    Gain,
    PairFeatures,
    Prior,
    ShortTransfer,
    combine,
    regressors,
)
from transmeter.learners.trees import moment_trees
from transmeter.util.intervals import half_width

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAIRS = RESULTS / "prior_pairs.csv.gz"
FIELDS, TOLD = list(PairFeatures.__dataclass_fields__), list(ShortTransfer.__dataclass_fields__)
REPEATS = [f"repeat_{i}" for i in range(16)]  # columns with the true gain of each
TREES, LEAF, FEATURES = 60, 12, 0.4  # of a forest: trees, pairs in a leaf at least, share of features a node looks at
BETWEEN = np.prod(SHOTS) ** 0.5  # labelled rows per class that part few from more
FOLDS, INNER = 10, 5  # of groups, for figures and for the scales of intervals
WITHOUT = {
    "all features": [],
    "without the fit on labelled rows": list(FitFeatures.__dataclass_fields__),
    "without Transmeter's terms": ["zero_shot", "closeness", "separation", "misfit"],
    "without mean distance": ["closeness"],
    "without discrimination": ["separation"],
    "without reconstruction": ["misfit"],
    "without a short transfer": TOLD,
}
CELL = ["family", "target", "shots"]


def features_of(row: pd.Series) -> PairFeatures:
    """The features in a row of the pairs."""
    return PairFeatures(**{f: float(row[f]) for f in FIELDS})


def transfer_of(row: pd.Series) -> ShortTransfer:
    """What repeats told, in a row of the pairs."""
    return ShortTransfer(**{f: float(row[f]) for f in TOLD})


def fit(pairs: pd.DataFrame) -> Prior:
    """The model of the pairs, its scales and inflation from groups left out of the fit."""
    found, shots = [], pairs["shots"].to_numpy()
    for see in (_screen, _transfer):
        x, y = np.stack([see(row) for _, row in pairs.iterrows()]), pairs["gain"].to_numpy()
        left_out = np.zeros((2, len(y)))
        for inside in _folds(pairs, INNER):
            forest = _grown(x[~inside], y[~inside])
            left_out[:, inside] = np.transpose([forest.predict(*row) for row in zip(x[inside], shots[inside])])
        z = np.abs(y - left_out[0]) / np.hypot(left_out[1], pairs["gain_error"])
        ends = [np.quantile(z[some], 0.95) for some in (shots < BETWEEN, shots >= BETWEEN)]
        found.append(Forest(_grown(x, y).trees, np.array(ends) / stats.t.ppf(0.975, TAIL)))
    off, error = pairs["gain"] - pairs["measured"], pairs["error"]
    rough = np.maximum(error - ROUGH, 0.0)
    counts = rough / error**2  # least squares in standard errors
    shortfall = float((off * counts).sum() / max((rough * counts).sum(), TINY))
    z = (off - shortfall * rough) / np.hypot(error, pairs["gain_error"])
    return Prior(*found, float(max(1.0, np.sqrt(np.mean(np.clip(z, -4, 4) ** 2)))), shortfall)


def _screen(row: pd.Series) -> np.ndarray:
    return regressors(features_of(row), int(row["shots"]))


def _transfer(row: pd.Series) -> np.ndarray:
    return regressors(features_of(row), int(row["shots"]), transfer_of(row))


def _folds(pairs: pd.DataFrame, folds: int) -> Iterator[np.ndarray]:
    """(n,) whether a pair is left out, for every fold of groups."""
    numbers = pd.factorize(pairs["group"])[0] % folds
    return (numbers == k for k in range(min(folds, numbers.max() + 1)))


def _grown(x: np.ndarray, y: np.ndarray) -> Forest:
    """The forest of gains y (n,) by regressors x (n, d)."""
    return Forest(moment_trees(_forest().fit(x, y)), np.ones(2))


def _forest() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=FEATURES, random_state=0)


def posterior(prior: Prior, row: pd.Series) -> Gain:
    """The gain that `rank` gives for a row of the pairs: 0 for a source that changes nothing."""
    if not row[["measured", *TOLD]].any():
        return Gain.from_error(0.0, 0.0)
    parts = (row["measured"], row["error"], row["freedom"])
    return combine(prior, features_of(row), int(row["shots"]), transfer_of(row), parts)


def with_posterior(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the gains that a user would get from a prior that has not seen their group."""
    pairs = pairs.copy()
    for inside in _folds(pairs, FOLDS):
        prior = fit(pairs[~inside])
        for i, row in pairs[inside].iterrows():
            gain = posterior(prior, row)
            pairs.loc[i, ["mean", "low", "high", "p_negative"]] = [gain.mean, gain.low, gain.high, gain.p_negative]
            pairs.loc[i, "likely"] = gain.verdict in ("helps", "likely helps")
    return pairs


def ablation(pairs: pd.DataFrame) -> dict[str, list[list[float]]]:
    """Weighted tau of what is expected without some features, at few and at more labels, on groups left out."""
    x, names = np.stack([_transfer(row) for _, row in pairs.iterrows()]), np.array([*FIELDS, "shots", *TOLD])
    found = {}
    for words, without in WITHOUT.items():
        seen, expected = x[:, ~np.isin(names, without)], np.zeros(len(x))
        for inside in _folds(pairs, FOLDS):
            model = _forest().fit(seen[~inside], pairs["gain"][~inside])
            expected[inside] = model.predict(seen[inside])
        scored = pairs.assign(expected=expected)
        parts = scored[scored["shots"] < BETWEEN], scored[scored["shots"] >= BETWEEN]
        found[words] = [
            mean_interval([tau(c["expected"], c["gain"]) for _, c in p.groupby(CELL) if len(c) > 2]) for p in parts
        ]
    return found


def tau(scores: pd.Series, gains: pd.Series) -> float:
    """Weighted tau, 0 where there is none."""
    return rank_agreement(scores.to_numpy(), gains.to_numpy()).weighted_tau or 0.0


def figures(pairs: pd.DataFrame) -> dict[str, dict]:
    """Figures of all pairs and of the real ones, at few and at more labels."""
    real = pairs["family"].isin(["real", "paired", "text"]) | pairs["level"].fillna("").str.startswith("real")
    found = {}
    for name, chosen in (("all pairs", pairs), ("real pairs", pairs[real])):
        for words, some in (("5 labels", chosen["shots"] < BETWEEN), ("10 or more", chosen["shots"] >= BETWEEN)):
            found[f"{name}, {words} per class"] = _figures(chosen[some])
    return found


def _figures(pairs: pd.DataFrame) -> dict[str, object]:
    gains = [Gain(*row) for row in pairs[["mean", "low", "high", "p_negative"]].to_numpy()]
    covered = interval_coverage(gains, pairs["gain"], pairs["gain_error"])
    cells = [cell for _, cell in pairs.groupby(CELL) if len(cell) > 2]
    orders = {
        name: [rank_agreement(score(cell).to_numpy(), cell["gain"]) for cell in cells] for name, score in SCORES.items()
    }
    halves = [half_means(cell[REPEATS].to_numpy())[:6] for cell in cells]
    ceilings = [np.mean([rank_agreement(*pair).weighted_tau or 0 for pair in half]) for half in halves]
    taken = [cell["gain"][cell["mean"].idxmax()] * bool(cell["likely"][cell["mean"].idxmax()]) for cell in cells]
    likely, null, large = (
        pairs["likely"].astype(bool),
        pairs["gain"] + 2 * pairs["gain_error"] < 0.5,
        pairs["gain"] >= 3,
    )
    return {
        "cells": len(cells),
        "pairs": len(pairs),
        "coverage": covered.coverage,
        "width": float((pairs["high"] - pairs["low"]).median()),
        "found_helps": covered.found_helps,
        "false_helps": covered.false_helps,
        "calibration_error": covered.calibration_error,
        "ceiling": mean_interval(ceilings),
        "tau": {name: mean_interval([a.weighted_tau or 0 for a in order]) for name, order in orders.items()},
        "regret": {name: mean_interval([a.regret_1 for a in order]) for name, order in orders.items()},
        "tau_lead": {
            name: mean_interval(
                [(a.weighted_tau or 0) - (b.weighted_tau or 0) for a, b in zip(orders["ranking"], order)]
            )
            for name, order in orders.items()
        },
        "found_likely": float(likely[large].mean()),
        "false_likely": float(likely[null].mean()),
        "taken_if_likely": mean_interval(taken),
        "all_together": mean_interval([cell["together"].iloc[0] for cell in cells]),
        "best": mean_interval([max(cell["gain"].max(), 0.0) for cell in cells]),
    }


def _four_ranks(cell: pd.DataFrame) -> pd.Series:
    """The mean of four ranks, nothing fitted."""
    return cell[["source_likelihood", "expected", "skill", "agreement"]].rank().mean(axis=1)


SCORES = {
    "ranking": lambda cell: cell["mean"],
    "measured gain": lambda cell: cell["measured"],
    "probability gain": lambda cell: cell["probability_gain"],
    "source's likelihood": lambda cell: cell["source_likelihood"],
    "mean of four ranks": _four_ranks,
}


def mean_interval(values: list[float]) -> list[float]:
    """Mean and the ends of its 95 % interval over cells."""
    values = np.asarray(values, dtype=float)
    reach = half_width(values.std(ddof=1) / len(values) ** 0.5, len(values) - 1)
    return [round(float(v), 3) for v in (values.mean(), values.mean() - reach, values.mean() + reach)]


def table(found: dict[str, dict]) -> str:
    """The figures as Markdown."""
    rows = {
        "cells (pairs)": lambda f: f"{f['cells']} ({f['pairs']})",
        "weighted tau": lambda f: shown(f["tau"]["ranking"]),
        "split-half ceiling": lambda f: f"{f['ceiling'][0]:.2f}",
        "ahead of the mean of four ranks": lambda f: shown(f["tau_lead"]["mean of four ranks"]),
        "ahead of the measured gain": lambda f: shown(f["tau_lead"]["measured gain"]),
        "regret of the first pick, pp": lambda f: shown(f["regret"]["ranking"]),
        "regret of the mean of four ranks": lambda f: shown(f["regret"]["mean of four ranks"]),
        "gains of 3 pp that *help*": lambda f: percent(f["found_helps"]),
        "sources without gain that *help*": lambda f: percent(f["false_helps"]),
        "gains of 3 pp that at least *likely help*": lambda f: percent(f["found_likely"]),
        "sources without gain that at least *likely help*": lambda f: percent(f["false_likely"]),
        "coverage of 95 % intervals": lambda f: percent(f["coverage"]),
        "their median width, pp": lambda f: f"{f['width']:.1f}",
        "calibration error of P(gain < 0)": lambda f: f"{f['calibration_error']:.3f}",
        "first pick if it *likely helps* at least, pp": lambda f: shown(f["taken_if_likely"]),
        "all sources together, pp": lambda f: shown(f["all_together"]),
        "the best source, pp": lambda f: shown(f["best"]),
    }
    return markdown(rows, found)


def markdown(rows: dict[str, Callable[[dict], str]], found: dict[str, dict]) -> str:
    """A table with a column for each part of the figures."""
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    return "\n".join([*lines, *(f"| {k} | {' | '.join(map(v, found.values()))} |" for k, v in rows.items())]) + "\n"


def shown(mean: list[float]) -> str:
    return f"{mean[0]:.2f} ({mean[1]:.2f} to {mean[2]:.2f})"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


@click.command()
@click.option("--out", default=ROOT / "transmeter" / "gain" / "prior.npz", type=click.Path(path_type=Path))
@click.option("--report", is_flag=True, help="Figures too.")
def main(out: Path, report: bool) -> None:
    """Write the shipped model."""
    pairs = pd.read_csv(PAIRS)
    np.savez_compressed(out, **fit(pairs).arrays())
    click.echo(str(out))
    if report:
        found = figures(with_posterior(pairs)) | {"ablation": ablation(pairs)}
        (RESULTS / "prior.json").write_text(json.dumps(found, indent=1) + "\n")
        text = table({name: part for name, part in found.items() if name != "ablation"})
        lines = [f"| {words} | {' | '.join(map(shown, taus))} |" for words, taus in found["ablation"].items()]
        heads = "\n| weighted tau of what is expected | 5 labels | 10 or more |\n|---|---|---|\n"
        (RESULTS / "prior.md").write_text(text + heads + "\n".join(lines) + "\n")
        click.echo((RESULTS / "prior.md").read_text())


if __name__ == "__main__":
    main()
