"""Fit the forests that say what a source's model is worth on a target without labels, and report them.

    python benchmarks/fit_no_label_prior.py --report        (five minutes; writes prior.npz, results/no_label_prior.*)

The pairs are those of no_label_pairs.py. Figures are of groups of data sets that were left out of the fit, ten folds of
them; so is what scales the intervals. Real pairs (parts and mates of tables, heart sites, credit, texts; without the
sources that were made) are reported by themselves.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
from fit_prior import markdown, mean_interval, percent, shown, tau
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor

from transmeter.gain.agreement import interval_coverage, rank_agreement
from transmeter.gain.prior import TAIL, Gain
from transmeter.learners.trees import Trees, moment_trees
from transmeter.zero_shot.features import ZeroShotFeatures, consensus
from transmeter.zero_shot.prior import SkillForest, ZeroShotPrior, gain_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAIRS = RESULTS / "no_label_pairs.csv.gz"
FIELDS = list(ZeroShotFeatures.__dataclass_fields__)
TREES, LEAF, FEATURES = 50, 8, 0.5  # of a forest: trees, pairs in a leaf at least, share of features a node looks at
FOLDS, INNER = 10, 5  # of groups, for figures and for the scales of intervals
SAID = ("helps", "likely helps", "hurts")
SIMPLE = {
    "mean confidence": lambda cell: cell["confidence"],
    "accuracy on itself": lambda cell: cell["skill"],
    "sure target rows": lambda cell: cell["expected"],
    "agreement with others": lambda cell: cell["mean_agreement"],
}


def fit(pairs: pd.DataFrame) -> ZeroShotPrior:
    """The model of the pairs; its scales, and what it says of other sources, are from groups left out of the fit."""
    x, y = pairs[FIELDS].to_numpy(float), pairs["skill_there"].to_numpy()
    expected, _ = left_out(x, y, pairs)
    among = np.column_stack([x, others_of(pairs, expected)])
    forests = []
    for seen in (x, among):
        mean, deviation = left_out(seen, y, pairs)
        end = np.quantile(np.abs(y - mean) / deviation, 0.95)
        forests.append(SkillForest(grown(seen, y).trees, float(end / stats.t.ppf(0.975, TAIL))))
    return ZeroShotPrior(*forests)


def left_out(x: np.ndarray, y: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """(2, n) mean and deviation of every pair, by a forest that has not seen its group."""
    found = np.zeros((2, len(y)))
    for inside in folds(pairs, INNER):
        found[:, inside] = grown(x[~inside], y[~inside]).predict(x[inside])
    return found


def folds(pairs: pd.DataFrame, count: int) -> Iterator[np.ndarray]:
    """(n,) whether a pair is left out, for every fold of groups."""
    numbers = pd.factorize(pairs["group"])[0] % count
    return (numbers == k for k in range(min(count, numbers.max() + 1)))


def grown(x: np.ndarray, y: np.ndarray) -> SkillForest:
    """The forest of skills y (n,) by regressors x (n, d)."""
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=FEATURES, random_state=0)
    return SkillForest(_small(moment_trees(forest.fit(x, y))), 1.0)


def _small(trees: Trees) -> Trees:
    """The same in fewer bytes: thresholds, which are chance, and values of leaves in half precision."""
    leaves = trees.left[:, None] < 0
    return replace(
        trees,
        feature=trees.feature.astype(np.int8),
        threshold=trees.threshold.astype(np.float16),
        value=np.where(leaves, trees.value, 0).astype(np.float16),
    )


def others_of(pairs: pd.DataFrame, expected: np.ndarray) -> np.ndarray:
    """(n, 3) what the other sources of the same target say of every source."""
    found = np.zeros((len(pairs), 3))
    agreement = pairs.filter(regex=r"^agreement_\d+$").to_numpy()
    for places in pairs.reset_index(drop=True).groupby("problem").indices.values():
        found[places] = consensus(agreement[places][:, : len(places)], expected[places])
    return found


def with_gains(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the gains that a user would get from a prior that has not seen their group."""
    pairs = pairs.reset_index(drop=True)
    for inside in folds(pairs, FOLDS):
        prior, mine = fit(pairs[~inside]), pairs[inside]
        x = mine[FIELDS].to_numpy(float)
        alone = prior.alone.predict(x)
        among = prior.among.predict(np.column_stack([x, others_of(mine, alone[0])]))
        for name, told in (("alone", alone), ("among", among)):
            gains = [gain_of(*given) for given in zip(*told, mine["classes"], 10 ** mine["rows"], 10 ** mine["size"])]
            columns = [f"{name}_{part}" for part in ("mean", "low", "high", "p")]
            pairs.loc[inside, columns] = [[g.mean, g.low, g.high, g.p_negative] for g in gains]
    agreed = others_of(pairs, np.zeros(len(pairs)))[:, 0]
    return pairs.assign(mean_agreement=agreed, gain=100 * (1 - 1 / pairs["classes"]) * pairs["skill_there"])


def figures(pairs: pd.DataFrame) -> dict[str, dict]:
    """Figures of all pairs and of the real ones, with the other sources in sight and, as in a batch, without."""
    real = pairs["family"].isin(["real", "text"]) | pairs["level"].fillna("").str.startswith("real")
    return {
        f"{words}, {which}": _figures(chosen, name)
        for words, chosen in (("all pairs", pairs), ("real pairs", pairs[real]))
        for which, name in (("all sources at once", "among"), ("one by one", "alone"))
    }


def _figures(pairs: pd.DataFrame, name: str) -> dict[str, object]:
    mean, low, high, p = (pairs[f"{name}_{part}"] for part in ("mean", "low", "high", "p"))
    gains = [Gain(*row, informed=True) for row in zip(mean, low, high, p)]
    true = pairs["gain"]
    covered = interval_coverage(gains, true, np.zeros(len(true)))
    cells = [cell for _, cell in pairs.groupby("problem") if len(cell) > 2]
    scores = {"ranking": lambda cell: cell[f"{name}_mean"], **SIMPLE}
    taus = {k: [tau(score(cell), cell["gain"]) for cell in cells] for k, score in scores.items()}
    regrets = {k: [_regret(score(cell), cell["gain"]) for cell in cells] for k, score in scores.items()}
    verdicts = np.array([gain.verdict for gain in gains])
    said = {v: _share((true[verdicts == v] > 0) if v != "hurts" else (true[verdicts == v] < 0)) for v in SAID}
    return {
        "targets": len(cells),
        "groups": int(pairs["group"].nunique()),
        "pairs": len(pairs),
        "coverage": covered.coverage,
        "width": float((high - low).median()),
        "error": float((mean - true).abs().mean()),
        "error of a constant": float((true.mean() - true).abs().mean()),
        "calibration_error": covered.calibration_error,
        "ceiling": mean_interval([_ceiling(cell) for cell in cells]),
        "tau": {k: mean_interval(tau) for k, tau in taus.items()},
        "tau_lead": {k: mean_interval(np.subtract(taus["ranking"], tau)) for k, tau in taus.items() if k != "ranking"},
        "regret": {k: mean_interval(regret) for k, regret in regrets.items()},
        "regret_lead": {
            k: mean_interval(np.subtract(regret, regrets["ranking"])) for k, regret in regrets.items() if k != "ranking"
        },
        "right": said,
        "found": _share(np.isin(verdicts, ["helps", "likely helps"])[true >= 10]),
        "helps": _share((verdicts == "helps")[true >= 10]),
        "false": _share(np.isin(verdicts, ["helps", "likely helps"])[true < 1]),
        "negative": _share(true < 0),
        "bins": _bins(p, true),
    }


def _regret(scores: pd.Series, gains: pd.Series) -> float:
    return rank_agreement(scores.to_numpy(), gains.to_numpy()).regret_1


def _ceiling(cell: pd.DataFrame) -> float:
    return tau(cell["half_0"], cell["half_1"])


def _bins(p: pd.Series, true: pd.Series) -> list[list[float]]:
    """P(gain < 0) in the mean, how often gains are negative, and the share of the pairs, in five bins."""
    places = np.clip((p * 5).astype(int), 0, 4)
    return [
        [round(float(v), 3) for v in (p[places == b].mean(), (true[places == b] < 0).mean(), (places == b).mean())]
        for b in range(5)
        if (places == b).any()
    ]


def _share(found: pd.Series | np.ndarray) -> float | None:
    return round(float(np.mean(found)), 3) if len(found) else None


def table(found: dict[str, dict]) -> str:
    """The figures as Markdown."""
    rows = {
        "targets (pairs, groups)": lambda f: f"{f['targets']} ({f['pairs']}, {f['groups']})",
        "weighted tau": lambda f: shown(f["tau"]["ranking"]),
        "split-half ceiling": lambda f: shown(f["ceiling"]),
        **{f"{name}: weighted tau": lambda f, name=name: shown(f["tau"][name]) for name in SIMPLE},
        **{f"ahead of {name}": lambda f, name=name: shown(f["tau_lead"][name]) for name in SIMPLE},
        "regret of the first pick, pp": lambda f: shown(f["regret"]["ranking"]),
        **{f"less than {name}": lambda f, name=name: shown(f["regret_lead"][name]) for name in SIMPLE},
        "mean error, pp": lambda f: f"{f['error']:.1f}",
        "mean error of the mean of all pairs, pp": lambda f: f"{f['error of a constant']:.1f}",
        "coverage of 95 % intervals": lambda f: f"{100 * f['coverage']:.1f} %",
        "their median width, pp": lambda f: f"{f['width']:.1f}",
        "calibration error of P(gain < 0)": lambda f: f"{f['calibration_error']:.3f}",
        "pairs no better than guessing": lambda f: percent(f["negative"]),
        "*helps* that are above guessing": lambda f: percent(f["right"]["helps"]),
        "*likely helps* that are above guessing": lambda f: percent(f["right"]["likely helps"]),
        "*hurts* that are below guessing": lambda f: percent(f["right"]["hurts"]),
        "gains of 10 pp that *help*": lambda f: percent(f["helps"]),
        "gains of 10 pp that at least *likely help*": lambda f: percent(f["found"]),
        "sources below 1 pp that at least *likely help*": lambda f: percent(f["false"]),
    }
    return markdown(rows, found)


@click.command()
@click.option("--out", default=ROOT / "transmeter" / "zero_shot" / "prior.npz", type=click.Path(path_type=Path))
@click.option("--report", is_flag=True, help="Figures too.")
def main(out: Path, report: bool) -> None:
    """Write the shipped model."""
    pairs = pd.read_csv(PAIRS)
    np.savez_compressed(out, **fit(pairs).arrays())
    click.echo(f"{out}: {out.stat().st_size:,} bytes")
    if report:
        found = figures(with_gains(pairs))
        (RESULTS / "no_label_prior.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "no_label_prior.md").write_text(table(found))
        click.echo(table(found))


if __name__ == "__main__":
    main()
