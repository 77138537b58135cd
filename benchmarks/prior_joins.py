"""What else could say a gain with few labels? Other models and other ways to join what was measured with it.

    python benchmarks/prior_joins.py             (five minutes; writes results/prior_joins.md)

On the pairs and groups left out of fit_prior.py: explained share of the variance of the gains, and weighted tau.
*Relative* features are those of a source less the mean of all sources of its target, and their largest. What is joined
is what `rank` does: what the forests expect, and the measured gain by its error.
"""

from collections.abc import Callable
from functools import partial

import click
import fit_prior
import numpy as np
import pandas as pd
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor

RELATIVE = [
    *("source_likelihood", "pooled_likelihood", "odds", "expected", "agreement", "confidence", "skill", "shared"),
    *("zero_shot", "closeness", "ridge_gain", "probability_gain", "likelihood_gain"),
]
larger = partial(ExtraTreesRegressor, 150, min_samples_leaf=8, random_state=0)
forest = partial(RandomForestRegressor, 60, min_samples_leaf=8, max_features=0.4, random_state=0)
boosting = partial(HistGradientBoostingRegressor, learning_rate=0.04, max_iter=150, random_state=0)
HEADS = "| expected by | R2, 5 labels | weighted tau | R2, 10 or more | weighted tau |\n|---|---|---|---|---|\n"


@click.command()
def main() -> None:
    """Fit all, print and write the table."""
    pairs = pd.read_csv(fit_prior.PAIRS)
    features = pairs[[*fit_prior.FIELDS, *fit_prior.TOLD]].assign(shots=pairs["shots"] ** -0.5)
    measured = features.assign(measured=pairs["measured"], error=pairs["error"])
    relative, both = features.join(among(pairs, RELATIVE)), measured.join(among(pairs, [*RELATIVE, "measured"]))
    joined = fit_prior.with_posterior(pairs)["mean"].to_numpy()
    lines = [line("forest of the features, joined (rank)", pairs, joined)]
    for name, seen, make in (
        ("the same forest alone", features, fit_prior._forest),
        ("it sees the measured gain and its error", measured, fit_prior._forest),
        ("relative features too", relative, fit_prior._forest),
        ("relative features and the measured gain", both, fit_prior._forest),
        ("the same, 150 trees, 8 pairs a leaf", both, larger),
        ("random forest", features, forest),
        ("boosting", features, boosting),
    ):
        lines.append(line(name, pairs, left_out(seen.to_numpy(), pairs, make)))
        click.echo(lines[-1])
    (fit_prior.RESULTS / "prior_joins.md").write_text(HEADS + "\n".join(lines) + "\n")


def among(pairs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns less their mean among the sources of a target, and their largest there."""
    cells = pairs.groupby(fit_prior.CELL)[columns]
    return (
        (pairs[columns] - cells.transform("mean"))
        .add_suffix(", less the mean")
        .join(cells.transform("max").add_suffix(", largest"))
    )


def left_out(x: np.ndarray, pairs: pd.DataFrame, make: Callable[[], RegressorMixin]) -> np.ndarray:
    """(n,) gains by regressors x (n, d), each by a fit without its group."""
    expected = np.zeros(len(pairs))
    for inside in fit_prior._folds(pairs, fit_prior.FOLDS):
        expected[inside] = make().fit(x[~inside], pairs["gain"][~inside]).predict(x[inside])
    return expected


def line(name: str, pairs: pd.DataFrame, expected: np.ndarray) -> str:
    """A row of the table."""
    scored, few = pairs.assign(expected=expected), pairs["shots"] < fit_prior.BETWEEN
    cells = []
    for part in (scored[few], scored[~few]):
        explained = 1 - ((part["gain"] - part["expected"]) ** 2).mean() / part["gain"].var()
        taus = [fit_prior.tau(c["expected"], c["gain"]) for _, c in part.groupby(fit_prior.CELL) if len(c) > 2]
        cells += [f"{explained:.2f}", fit_prior.shown(fit_prior.mean_interval(taus))]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
