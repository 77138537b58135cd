"""A ranking, and the truth that it is checked against, as text for people and programs."""

import csv
import html as markup
import io
from dataclasses import asdict

from rich.console import Console
from rich.table import Table as Grid

from transmeter.gain.agreement import IntervalCoverage, RankAgreement
from transmeter.gain.ground_truth import GroundTruth
from transmeter.gain.heldout import HeldOutCheck
from transmeter.ranking import NESTED, Ranking, Row
from transmeter.util.to_json import to_json

SHOWN = {"gain_pp": "{:+.1f}", "ci_low": "{:+.1f}", "ci_high": "{:+.1f}", "p_negative": "{:.2f}", "score": "{:.4g}"}


def text(ranking: Ranking, shape: str) -> str:
    """The ranking as `shape`: table, json or csv; ends with a line break."""
    if shape == "json":
        return to_json(ranking)
    rows = [asdict(row) for row in ranking.rows]
    matched = {row["source"]: [m for m in row.pop("matches") or [] if m["how"] == "meaning"] for row in rows}
    out = io.StringIO()
    if shape == "csv":
        writer = csv.DictWriter(out, [f for f in rows[0] if f not in NESTED], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()
    gains = any(row["gain_pp"] is not None for row in rows)
    heads = ["gain_pp", "95 % interval", "P(gain<0)", "verdict", "repeats"] if gains else ["score"]
    grid = Grid("rank", "tie group", "source", *heads, "seconds", box=None, pad_edge=False)
    for row in rows:
        if row["error"]:
            grid.add_row("-", "-", row["source"], row["error"])
            continue
        cells = [f"{row['score']:.4g}"]
        if gains:
            interval = f"{row['ci_low']:+.1f} to {row['ci_high']:+.1f}"
            chance = f"{row['p_negative']:.2f}"
            cells = [f"{row['gain_pp']:+.1f}", interval, chance, row["verdict"], str(row["repeats"])]
        grid.add_row(str(row["rank"]), str(row["tie_group"]), row["source"], *cells, f"{row['seconds']:.2f}")
    Console(file=out, width=120, markup=False, emoji=False).print(grid)
    baseline = next((row["baseline"] for row in rows if row["baseline"]), None)
    if baseline:
        shots = f"{ranking.shots} labelled rows a class" if ranking.shots else "all labelled rows, cross-fitted"
        out.write(f"gains on the rows of {ranking.target} over {baseline} alone; {shots}; {ranking.metric}\n")
    for source, matches in matched.items():
        if matches:
            pairs = (f"{m['source']} = {m['target']} ({m['confidence']:.2f})" for m in matches)
            out.write(f"{source}, columns matched by meaning: {', '.join(pairs)}\n")
    return out.getvalue()


def html(ranking: Ranking) -> str:
    """The ranking as an HTML table, every text in it escaped."""
    frame = ranking.to_frame().drop(columns="seconds").dropna(axis=1, how="all")
    shown = {c: shape.format for c, shape in SHOWN.items() if c in frame}
    table = frame.to_html(index=False, border=0, formatters=shown, na_rep="")
    picked = f"best: {ranking.best}" if ranking.best else "no source has been shown to help"
    shots = f"{ranking.shots} labelled rows a class" if ranking.shots else "all labelled rows"
    line = f"sources for {ranking.target}, {ranking.metric}, {shots}; {picked}"
    return f"<p>{markup.escape(line)}</p>\n{table}"


def check_text(check: HeldOutCheck) -> str:
    """Held-out accuracy with the source and without; ends with a line break."""
    shots = f"{check.shots} labelled rows a class" if check.shots else "all labelled rows, cross-fitted"
    grid = Grid("", f"{check.metric} in %", "95 % interval", "", box=None, pad_edge=False)
    for name, reached, note in (
        (f"with {check.source}", check.reached, ""),
        ("target alone", check.alone, check.baseline),
        ("gain", check.gain, f"P(gain<0) {check.gain.p_negative:.2f}, {check.verdict}"),
    ):
        sign = "+" if name == "gain" else ""
        interval = f"{reached.low:{sign}.1f} to {reached.high:{sign}.1f}"
        grid.add_row(name, f"{reached.mean:{sign}.1f}", interval, note)
    out = io.StringIO()
    Console(file=out, width=120, markup=False, emoji=False).print(grid)
    lines = "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())
    return f"{lines}held-out rows of {check.target}, {check.repeats} repeats; {shots}\n"


def truth_text(
    truth: GroundTruth, predicted: dict[str, Row], order: RankAgreement | None, honesty: IntervalCoverage | None
) -> str:
    """True gains beside the predicted ones, and how well they agree; ends with a line break."""
    out = io.StringIO()
    console = Console(file=out, width=120, markup=False, emoji=False)
    heads = ["predicted", "its 95 % interval", "verdict"] if predicted else []
    grid = Grid("source", "true gain_pp", "95 % interval", *heads, box=None, pad_edge=False)
    for arm in sorted(truth.sources, key=lambda a: -a.gain_pp):
        cells = [arm.name, f"{arm.gain_pp:+.1f}", f"{arm.ci_low:+.1f} to {arm.ci_high:+.1f}"]
        row = predicted.get(arm.name)
        if row and row.gain_pp is not None:
            cells += [f"{row.gain_pp:+.1f}", f"{row.ci_low:+.1f} to {row.ci_high:+.1f}", row.verdict]
        elif row:
            cells += [f"{row.score:.4g}", "", ""]
        grid.add_row(*cells)
    for arm in truth.controls:
        interval = f"{arm.ci_low:+.1f} to {arm.ci_high:+.1f}"
        grid.add_row(f"control: {arm.name}", f"{arm.gain_pp:+.1f}", interval, *[""] * len(heads))
    console.print(grid)
    alone = ", ".join(f"{name} {value:.1f}" for name, value in truth.baselines.items())
    console.print(f"\ntarget alone, {truth.metric} in %: {alone}; gains are over {truth.baseline}")
    how = f"{truth.repeats} repeats of {truth.steps} steps, shots {truth.shots or 'all, cross-fitted'}"
    reliability = "not known" if truth.reliability is None else f"{truth.reliability:.2f}"
    console.print(f"{how}; reliability of the true gains (split-half): {reliability}")
    if order:
        console.print("agreement: " + ", ".join(f"{k} {_figure(v)}" for k, v in asdict(order).items()))
    if honesty:
        console.print("honesty: " + ", ".join(f"{k} {_figure(v)}" for k, v in asdict(honesty).items()))
    return out.getvalue()


def _figure(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"
