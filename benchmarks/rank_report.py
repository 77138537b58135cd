"""From the cells of rank_quality.py to figures, tables and pictures."""

import json
from pathlib import Path

import click
import matplotlib
import numpy as np
import pandas as pd
from fit_prior import FIELDS, PAIRS, TOLD, fit, posterior

from transmeter.gain.agreement import interval_coverage, rank_agreement
from transmeter.gain.ground_truth import half_means
from transmeter.gain.prior import Gain, Prior

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

SHIPPED = "shipped, which has seen these families"
LEFT_OUT = "fitted without the groups of the reported data sets; which sources drop out early is by the shipped one"
DRAWS = 2000  # of targets, for confidence intervals
MODES = {"planning": "planning, 20 labels per class", "few": "20 labels per class in all"}  # as the charts call them
FAMILIES = {
    "knobs": "fewer columns, noisier labels",
    "real": "real sites and tables",
    "paired": "paired views",
    "nulls": "cannot help",
}  # the same of families of sources


def report(cells: list[dict], folder: Path, name: str, seconds: float, prior: Prior | None = None) -> None:
    """Write NAME.json, NAME.md, NAME_pairs.csv and two pictures to `folder`, and print the table.

    prior: where too few pairs are there to fit one for every family left out.
    """
    pairs = with_posterior(pairs_of(cells), prior)
    orders = orders_of(cells, pairs)
    summary = {
        "seconds": round(seconds),
        "prior": SHIPPED if prior else LEFT_OUT,
        "targets": len({(c["family"], c["target"]) for c in cells}),
        "pairs": int(len(pairs[pairs["mode"] == "planning"])),
        "modes": {
            f"{mode}, {level} shots": _mode(orders[(orders["mode"] == mode) & (orders["level"] == level)], pairs)
            for mode in ("planning", "few")
            for level in ("low", "high")
        },
        "pooled_truth": pooled_truth(cells),
    }
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    pairs.drop(columns=["mean", "low", "high", "p_negative"]).round(5).to_csv(folder / f"{name}_pairs.csv", index=False)
    text = table(summary)
    (folder / f"{name}.md").write_text(text)
    pictures(summary, pairs, folder, name)
    click.echo(text)


def pairs_of(cells: list[dict]) -> pd.DataFrame:
    """One row a source, target, number of shots and run: true gain, what was measured, and the features of the pair."""
    rows = []
    for cell in cells:
        for run in cell["runs"]:
            for i, (arm, part) in enumerate(zip(cell["truth"]["sources"], run["transmeter"])):
                mean, error, freedom = part.get("measured", (np.nan,) * 3)
                row = {
                    **{k: cell[k] for k in ("family", "target", "shots")},
                    "data": data_of(cell["target"]),
                    "level": "low" if cell["shots"] < 20 else "high",
                    **{k: run[k] for k in ("mode", "draw")},
                    "source": cell["sources"][i],
                    "gain": arm["gain_pp"],
                    "gain_error": arm["error_pp"],
                    "measured": mean,
                    "error": error,
                    "freedom": freedom,
                    **part.get("transfer", dict.fromkeys(TOLD, np.nan)),
                    "repeats": part.get("repeats", 0),
                    **part.get("evidence", dict.fromkeys(FIELDS, np.nan)),
                }
                rows.append(row)
    return pd.DataFrame(rows)


def data_of(target: str) -> str:
    """The data set that a target was made of, which several families may share."""
    return target.partition(" (")[0]


def with_posterior(pairs: pd.DataFrame, given: Prior | None = None) -> pd.DataFrame:
    """Gains as a user would get them from a prior that has not seen the data sets of the pair's group, or from the one
    given."""
    pairs, known = pairs.copy(), None if given else pd.read_csv(PAIRS)
    for data, mine in pairs.groupby("data"):
        prior = given or fit(known[~known["group"].isin(groups_of(known, str(data)))])
        for i, row in mine.iterrows():
            gain = posterior(prior, row)
            pairs.loc[i, ["mean", "low", "high", "p_negative"]] = [gain.mean, gain.low, gain.high, gain.p_negative]
    return pairs


def groups_of(known: pd.DataFrame, data: str) -> set[str]:
    """The groups of known pairs that a data set belongs to: hearts are one."""
    mine = known["target"].str.startswith("heart_" if data.startswith("heart_") else data)
    return set(known["group"][mine])


def orders_of(cells: list[dict], pairs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, run and scorer: agreement with the ground truth, beside its ceiling."""
    rows = []
    groups = {k: g for k, g in pairs.groupby(["family", "target", "shots", "mode", "draw"])}
    for cell in cells:
        gains = np.array([a["by_repeat"] for a in cell["truth"]["sources"]])
        true = gains.mean(1)
        taus = [rank_agreement(first, second).weighted_tau for first, second in half_means(gains)]
        key = (cell["family"], cell["target"], cell["shots"])
        for run in cell["runs"]:
            posterior = groups[(*key, run["mode"], run["draw"])]["mean"].to_numpy()
            values = {n: v for n, v in run["values"].items() if n != "transmeter"} | {"transmeter": posterior}
            for name, scores in values.items():
                found = rank_agreement(scores, true)
                pick = float(true[int(np.argmax(scores))])
                rows.append(
                    {
                        **dict(zip(("family", "target", "shots"), key)),
                        "level": "low" if cell["shots"] < 20 else "high",
                        **{k: run[k] for k in ("mode", "draw")},
                        "scorer": name,
                        **vars(found),
                        "pick": pick,
                        "pick_or_none": pick if name != "transmeter" or posterior.max() > 0 else 0.0,
                        "within": _within(cell["levels"], scores, true),
                        "ceiling": float(np.mean(taus)),
                        "reliability": cell["truth"]["reliability"],
                        "seconds": run["seconds"].get(name),
                    }
                )
    return pd.DataFrame(rows)


def _within(levels: list[str], scores: np.ndarray, true: np.ndarray) -> float | None:
    """Mean tau-b among the sources of one knob level; None where there are no levels."""
    taus = []
    for level in {v for v in levels if v}:
        rows = [i for i, v in enumerate(levels) if v == level]
        taus.append(rank_agreement(np.asarray(scores)[rows], true[rows]).tau_b)
    taus = [t if t is not None else 0.0 for t in taus]
    return float(np.mean(taus)) if taus else None


def bootstrap(wide: pd.DataFrame) -> pd.DataFrame:
    """(mean, low, high) of every scorer over data sets of targets drawn with replacement; wide (targets, scorers)."""
    data = [data_of(target) for _, target in wide.index]
    rows = [np.flatnonzero(np.array(data) == d) for d in dict.fromkeys(data)]  # targets of one data set go together
    rng = np.random.default_rng(0)
    values = wide.to_numpy()
    drawn = (np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))]) for _ in range(DRAWS))
    means = np.array([np.nanmean(values[d], axis=0) for d in drawn])  # (DRAWS, scorers)
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return pd.DataFrame({"mean": wide.mean().to_numpy(), "low": low, "high": high}, index=wide.columns)


def _wide(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """(targets, scorers) of the mean of a column over draws."""
    return frame.pivot_table(index=["family", "target"], columns="scorer", values=column, aggfunc="mean")


def _mode(orders: pd.DataFrame, pairs: pd.DataFrame) -> dict:
    """All figures of one mode and level."""
    mode, level = orders["mode"].iloc[0], orders["level"].iloc[0]
    reliable = orders[orders["reliability"] > 0.5]
    by_scorer = {}
    tau = bootstrap(_wide(reliable, "weighted_tau").fillna(0))
    ratio = tau / _mean(reliable["ceiling"])
    lead = bootstrap(_lead(_wide(reliable, "weighted_tau").fillna(0)))
    regrets = {k: bootstrap(_wide(orders, f"regret_{k}")) for k in (1, 3)}
    regret_lead = bootstrap(_lead(_wide(orders, "regret_1")))
    families = orders.pivot_table(index="scorer", columns="family", values="weighted_tau", aggfunc="mean")
    for name in tau.index:
        rows = orders[orders["scorer"] == name]
        by_scorer[name] = {
            "weighted_tau": _three(tau, name),
            "of_ceiling": _three(ratio, name),
            "transmeter_ahead_in_tau": _three(lead, name),
            "regret_1": _three(regrets[1], name),
            "regret_3": _three(regrets[3], name),
            "transmeter_ahead_in_regret_1": _three(regret_lead, name),
            "tau_b": _mean(rows["tau_b"]),
            "spearman": _mean(rows["spearman"]),
            "pearson": _mean(rows["pearson"]),
            "within_level": _mean(rows["within"]),
            "seconds": _mean(rows["seconds"]),
            "by_family": {f: _mean(families.loc[name, [f]]) for f in families.columns},
        }
    mine = pairs[(pairs["mode"] == mode) & (pairs["level"] == level)]
    gains = [Gain(*row) for row in mine[["mean", "low", "high", "p_negative"]].to_numpy()]
    first = orders[orders["scorer"] == "transmeter"]
    return {
        "ceiling": _mean(reliable["ceiling"]),
        "reliability": _mean(orders["reliability"]),
        "scorers": dict(sorted(by_scorer.items(), key=lambda item: -item[1]["weighted_tau"][0])),
        "honesty": vars(interval_coverage(gains, mine["gain"].tolist(), mine["gain_error"].tolist())),
        "width_pp": _mean(mine["high"] - mine["low"]),
        "pick_pp": {f: _mean(first[first["family"] == f]["pick_or_none"]) for f in first["family"].unique()},
        "behind_pp": {f: _behind(orders[orders["family"] == f]) for f in first["family"].unique()},
    }


def _lead(wide: pd.DataFrame) -> pd.DataFrame:
    """Transmeter's figure less that of each scorer, by target."""
    return wide.rsub(wide["transmeter"], axis=0)


def _behind(orders: pd.DataFrame) -> dict[str, list[float]]:
    """Lead in weighted tau over the best other scorer of a family, with its interval."""
    wide = _wide(orders, "weighted_tau").fillna(0)
    best = wide.drop(columns="transmeter").mean().idxmax()
    return {best: _three(bootstrap(_lead(_wide(orders, "weighted_tau").fillna(0))), best)}


def pooled_truth(cells: list[dict]) -> dict[str, list[float]]:
    """Weighted tau of the planning scores with the gains of pooled logistic regression, and of its two halves."""
    rows = []
    for cell in cells:
        gains = np.array([a["by_repeat"] for a in cell["truth"]["others"]["pooled"]])
        taus = [rank_agreement(first, second).weighted_tau for first, second in half_means(gains)]
        about = {"family": cell["family"], "target": cell["target"]}
        rows.append({**about, "scorer": "half of it", "tau": float(np.mean([t or 0.0 for t in taus]))})
        for name, values in cell["runs"][0]["values"].items():
            rows.append({**about, "scorer": name, "tau": rank_agreement(values, gains.mean(1)).weighted_tau or 0.0})
    found = bootstrap(_wide(pd.DataFrame(rows), "tau"))
    return {name: _three(found, name) for name in found.sort_values("mean", ascending=False).index}


def _three(frame: pd.DataFrame, name: str) -> list[float]:
    return [round(float(v), 3) for v in frame.loc[name, ["mean", "low", "high"]]]


def _mean(values: pd.Series) -> float | None:
    found = pd.to_numeric(values, errors="coerce").mean()
    return None if np.isnan(found) else round(float(found), 3)


def table(summary: dict) -> str:
    """The figures as Markdown."""
    lines = []
    for mode, found in summary["modes"].items():
        lines += [
            f"### {mode}",
            "",
            f"Weighted tau of one half of the ground truth's repeats with the other: {found['ceiling']}.",
            "",
        ]
        lines += ["| scorer | weighted tau | share of that | regret@1, pp | regret@3 | within a level | seconds |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, s in found["scorers"].items():
            cells = [_cell(s["weighted_tau"]), _cell(s["of_ceiling"]), _cell(s["regret_1"]), _cell(s["regret_3"])]
            lines.append(f"| {name} | " + " | ".join([*cells, str(s["within_level"]), str(s["seconds"])]) + " |")
        lines += ["", f"Interval coverage: {json.dumps(found['honesty'])}, mean width {found['width_pp']} pp.", ""]
        lines += [f"Gain of the first pick, or of none, by family: {json.dumps(found['pick_pp'])}.", ""]
        lines += [f"Lead in tau over the best other scorer by family: {json.dumps(found['behind_pp'])}.", ""]
    lines += ["", "### Pooled logistic regression as ground truth", ""]
    lines += ["Weighted tau, planning: " + json.dumps(summary["pooled_truth"]) + "."]
    return "\n".join(lines) + "\n"


def _cell(three: list[float]) -> str:
    return f"{three[0]:.2f} ({three[1]:.2f} to {three[2]:.2f})"


def pictures(summary: dict, pairs: pd.DataFrame, folder: Path, name: str) -> None:
    """Agreement by scorer, and estimated against true gains."""
    plt.rcParams["svg.hashsalt"] = name  # the same picture from the same figures
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharey=False, layout="constrained")
    for axis, mode in zip(axes, MODES):
        found = summary["modes"][f"{mode}, high shots"]
        names = list(found["scorers"])[::-1]
        three = np.array([found["scorers"][n]["weighted_tau"] for n in names])
        colours = ["#0072B2" if n == "transmeter" else "#999999" for n in names]
        axis.barh(names, three[:, 0], color=colours)
        axis.errorbar(three[:, 0], names, xerr=np.abs(three[:, 1:].T - three[:, 0]), fmt="none", ecolor="black", lw=1)
        axis.axvline(found["ceiling"], color="#D55E00", ls="--", lw=1, label="at best (split-half)")
        axis.set(title=MODES[mode], xlabel="weighted tau with the true gains, 95 % over targets")
    axes[0].legend(loc="lower right")
    figure.savefig(folder / f"{name}_tau.svg", metadata={"Date": None})
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True, layout="constrained")
    for axis, mode in zip(axes, MODES):
        rows = pairs[(pairs["mode"] == mode) & (pairs["level"] == "high")]
        for family, colour in zip(pairs["family"].unique(), ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")):
            mine = rows[rows["family"] == family]
            reach = [mine["mean"] - mine["low"], mine["high"] - mine["mean"]]
            axis.errorbar(
                mine["gain"],
                mine["mean"],
                reach,
                fmt=".",
                ms=4,
                lw=0.4,
                color=colour,
                label=FAMILIES.get(family, family),
            )
        ends = [rows["gain"].min(), rows["gain"].max()]
        axis.plot(ends, ends, color="black", lw=0.8)
        axis.set(title=MODES[mode], xlabel="true gain, pp", ylabel="estimated gain with 95 % interval, pp")
    axes[0].legend(loc="upper left")
    figure.savefig(folder / f"{name}_gains.svg", metadata={"Date": None})
    plt.close("all")
