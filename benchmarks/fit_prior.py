"""Fit the model that says what to expect of a gain, on the pairs that rank_quality.py measured; writes prior.json.

python benchmarks/fit_prior.py
"""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pandas as pd
from scipy.optimize import nnls
from sklearn.linear_model import Ridge

from transmeter.gain.prior import Linear, PairFeatures, Prior, as_json, regressors

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ROOT / "benchmarks" / "results" / "rank_quality_pairs.csv"
FIELDS = list(PairFeatures.__dataclass_fields__)
RIDGE = 1000.0  # strong, so that it carries over to families that it has not seen


def features_of(row: pd.Series) -> PairFeatures:
    """The features in a row of the pairs."""
    return PairFeatures(*(float(row[f]) for f in FIELDS))


def fit(pairs: pd.DataFrame) -> Prior:
    """The model of the pairs (columns: those of `PairFeatures`, family, shots, mode, soft, measured, error, gain, ...).

    Fitted on the few-label pairs, where it matters; the spread comes from families left out in turn.
    """
    few = pairs[(pairs["mode"] == "few") & pairs["soft"].notna()]
    screen = _linear(few, lambda row: regressors(features_of(row), int(row["shots"])))
    transfer = _linear(few, lambda row: regressors(features_of(row), int(row["shots"]), float(row["soft"])))
    z = (few["measured"] - few["gain"]) / np.hypot(few["error"], few["gain_error"])
    return Prior(screen, transfer, float(max(1.0, np.sqrt(np.mean(np.clip(z, -4, 4) ** 2)))))


def _linear(pairs: pd.DataFrame, see: Callable[[pd.Series], list[float]]) -> Linear:
    x, y = np.array([see(row) for _, row in pairs.iterrows()]), pairs["gain"].to_numpy()
    left_out = np.zeros(len(y))
    for family in pairs["family"].unique():
        there = (pairs["family"] == family).to_numpy()
        center, scale = x[~there].mean(0), x[~there].std(0).clip(1e-2)
        model = Ridge(RIDGE).fit((x[~there] - center) / scale, y[~there])
        left_out[there] = model.predict(np.clip((x[there] - center) / scale, -4, 4))
    shots = pairs["shots"].to_numpy(dtype=float)
    spread, _ = nnls(np.column_stack([np.ones(len(y)), 1 / shots]), (y - left_out) ** 2)
    center, scale = x.mean(0), x.std(0).clip(1e-2)
    model = Ridge(RIDGE).fit((x - center) / scale, y)
    rounded = [[round(float(v), 6) for v in values] for values in (center, scale, model.coef_, spread)]
    return Linear(rounded[0], rounded[1], rounded[2], round(float(model.intercept_), 6), rounded[3])


@click.command()
@click.option("--out", default=ROOT / "transmeter" / "gain" / "prior.json", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write the shipped model."""
    out.write_text(as_json(fit(pd.read_csv(PAIRS))), encoding="utf-8")
    click.echo(str(out))


if __name__ == "__main__":
    main()
