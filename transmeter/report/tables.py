"""Rankings, validations and checks of a transfer as text, for people and programs."""

import csv
import io
from dataclasses import asdict

from rich.table import Table as Grid

from transmeter.api import Transfer, Validation
from transmeter.gain.ground_truth import Arm
from transmeter.gain.metric_names import level
from transmeter.gain.source_set import describe
from transmeter.result import NESTED, Ranking, Row, setting, without_labels
from transmeter.tables.labels import R2
from transmeter.util.counts import counted
from transmeter.util.grid import text_of
from transmeter.util.intervals import Interval
from transmeter.util.to_json import to_json


def format_ranking(ranking: Ranking, form: str = "table") -> str:
    """A ranking as text.

    Parameters
    ----------
    ranking : Ranking
        With at least one row.
    form : str
        "table", "json" or "csv".

    Returns
    -------
    str
        Ends with a line break.
    """
    return {"table": _ranking_table, "json": to_json, "csv": _ranking_csv}[form](ranking)


def _ranking_csv(ranking: Ranking) -> str:
    out = io.StringIO()
    rows = [asdict(row) for row in ranking.rows]
    writer = csv.DictWriter(out, [name for name in rows[0] if name not in NESTED], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _ranking_table(ranking: Ranking) -> str:
    gains = any(row.gain for row in ranking.rows)
    heads = ["gain_pp", "95 % interval", "P(gain<0)", "verdict"] if gains else ["score"]
    heads += ["gain in MAE"] if any(row.mae for row in ranking.rows) else []
    grid = Grid("rank", "tie", "source", *heads, box=None, pad_edge=False)
    for row in ranking.rows:
        if row.error:
            grid.add_row("-", "-", row.source, row.error)
        else:
            grid.add_row(str(row.rank), str(row.tie_group), row.source, *_cells(row))
    text = _printed(grid)
    baseline = next((row.baseline for row in ranking.rows if row.baseline), None)
    if baseline and ranking.shots == 0:
        text += "".join(f"{line}\n" for line in without_labels(ranking))
    elif baseline:
        text += f"gains on the rows of {ranking.target} over {baseline} alone; {ranking.setting}; {ranking.metric}\n"
        text += "gain_pp is in R2 points, gain in MAE in the unit of the label\n" if ranking.metric == R2 else ""
        if screened := [row.source for row in ranking.scored if row.repeats == 0]:
            text += f"not measured, so that features alone tell what to expect: {', '.join(screened)}\n"
    text += "".join(f"{line}\n" for line in ranking.about_metric)
    text += "".join(f"{line}\n" for line in ranking.about_labels)
    for row in ranking.rows:
        meant = [m for m in row.matches or [] if m["how"] == "meaning"]
        if meant:
            pairs = (f"{m['source']} = {m['target']} ({m['confidence']:.2f})" for m in meant)
            text += f"{row.source}, columns matched by meaning: {', '.join(pairs)}\n"
    text += "".join(f"{line}\n" for line in describe(ranking.together)) if ranking.together else ""
    return text + "".join(f"{line}\n" for line in ranking.caveats)


def _cells(row: Row) -> list[str]:
    """The gain of a row, or its score."""
    if not row.gain:
        return [f"{row.score:.4g}"]
    interval = f"{row.ci_low:+z.1f} to {row.ci_high:+z.1f}"
    cells = [f"{row.gain_pp:+z.1f}", interval, f"{row.p_negative:.2f}", row.verdict or ""]
    return cells + ([f"{row.mae['mean']:+z.3g}"] if row.mae else [])


def _mae(gain: Interval) -> str:
    """By how much the mean absolute error is smaller, in the label's unit."""
    return f"{gain.mean:+z.3g} ({gain.low:+z.3g} to {gain.high:+z.3g})"


def format_transfer(transfer: Transfer) -> str:
    """Held-out accuracy with a source and without, and what was decided of both tables.

    Parameters
    ----------
    transfer : Transfer
        With its check.

    Returns
    -------
    str
        A table, and lines below it; ends with a line break.
    """
    check = transfer.check
    grid = Grid("", level(check.metric), "95 % interval", "", box=None, pad_edge=False)
    for name, interval, note in (
        (f"with {' + '.join(check.sources)}", check.reached, ""),
        ("target alone" if check.shots != 0 else "no model", check.alone, check.baseline),
        ("gain", check.gain, f"P(gain<0) {check.gain.p_negative:.2f}, {check.verdict}"),
    ):
        sign = "+" if name == "gain" else ""
        limits = f"{interval.low:{sign}z.1f} to {interval.high:{sign}z.1f}"
        grid.add_row(name, f"{interval.mean:{sign}z.1f}", limits, note)
    lines = _printed(grid)
    if mae := check.mae:
        lines += f"gain in MAE {_mae(mae)}, in the unit of the label\n"
    classes = []
    for source, mapped in transfer.class_maps.items():
        pairs = ", ".join(f"{theirs} = {ours}" for theirs, ours in (mapped or {}).items())
        classes.append(f"classes of {source}: {pairs or 'assigned by their means, where it has as many'}")
    rows = f"held-out rows of {check.target}, {counted(check.repeats, 'repeat')}; {setting(check.shots, check.metric)}"
    if check.shots == 0:
        rows = f"{check.target} has no label: what is reached is predicted, not measured"
    return lines + "".join(f"{line}\n" for line in (rows, *classes, *transfer.notes))


def format_validation(validation: Validation) -> str:
    """Measured gains beside the predicted ones, and how well they agree.

    Parameters
    ----------
    validation : Validation
        With a ranking or without.

    Returns
    -------
    str
        Ends with a line break.
    """
    measured, predicted = validation.ground_truth, validation.predicted
    heads = ["predicted", "its 95 % interval", "verdict"] if predicted else []
    grid = Grid("source", "true gain_pp", "95 % interval", *measured.others, *heads, box=None, pad_edge=False)
    for place in sorted(range(len(measured.sources)), key=lambda i: -measured.sources[i].gain_pp):
        arm = measured.sources[place]
        others = [f"{arms[place].gain_pp:+z.1f}" for arms in measured.others.values()]
        grid.add_row(*_arm_cells(arm.name, arm), *others, *_predicted_cells(predicted.get(arm.name)))
    grid.add_row(*_arm_cells("all sources together", measured.together))
    for arm in measured.controls:
        grid.add_row(*_arm_cells(f"control: {arm.name}", arm))
    alone = ", ".join(f"{name} {value:.1f}" for name, value in measured.baselines.items())
    reliability = "not known" if measured.reliability is None else f"{measured.reliability:.2f}"
    lines = [
        "",
        f"target alone, {level(measured.metric)}: {alone}; gains are over {measured.baseline}",
        f"{counted(measured.repeats, 'repeat')}, shots {measured.shots or 'all, cross-fitted'};"
        f" true gains are those of the combination of learners; their reliability (split-half): {reliability}",
    ]
    for name, figures in (("agreement", validation.agreement), ("interval coverage", validation.interval_coverage)):
        if figures:
            numbers = ", ".join(f"{k} {'not known' if v is None else f'{v:.3g}'}" for k, v in asdict(figures).items())
            lines.append(f"{name}: {numbers}")
    return _printed(grid, *lines)


def _arm_cells(name: str, arm: Arm) -> list[str]:
    return [name, f"{arm.gain_pp:+z.1f}", f"{arm.ci_low:+z.1f} to {arm.ci_high:+z.1f}"]


def _predicted_cells(row: Row | None) -> list[str]:
    """What was predicted of a source, and the verdict."""
    return [] if row is None else _cells(row) if not row.gain else [*_cells(row)[:2], row.verdict or ""]


def _printed(*parts: Grid | str) -> str:
    """Tables and lines, wrapped at 120 characters."""
    return "".join(text_of(part, width=120) for part in parts)
