"""Which calibration data were chosen, and how what was predicted of them compares with what was measured."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from compress.report.candidates import UNIT, closest, shown, sureness
from compress.report.charts import SHAPES, legend, shares, styles, with_intervals
from compress.report.inputs import Folder, Inputs, Json
from compress.report.quality import is_of
from compress.report.tables import KNOWN, interval
from transmeter.util.charts import COLOURS, short
from transmeter.util.counts import counted

SHOWN = 160  # characters of a text
USED, REST = "texts of it were used", "not used"


def sections(found: Inputs) -> list[Json]:
    """Sections on the choice of calibration data.

    Parameters
    ----------
    found
        What the report is made from.

    Returns
    -------
    list
        One for every choice, of a folder or in a model's card, and one for models that differ in calibration only.
    """
    choices, examples = list(found.calibrations), list(found.examples)
    for folder in found.folders:
        used = (folder.card.get("calibration") or {}).get("provenance")
        if used and used not in choices:
            choices.append(used)
            examples.append([])
    return [*map(_choice, choices, examples), *_outcomes(found, choices)]


def _choice(made: Json, examples: Sequence[tuple[str, str]]) -> Json:
    parts, scores = {p["name"]: p for p in made["parts"]}, made.get("scores") or {}
    names = sorted({**scores, **parts}, key=lambda name: -scores.get(name, 0.0))
    targets = made.get("targets") or {}
    aims = " and ".join(str(t) for t in targets.values()) or "no target"
    listed = ", ".join(f"{p['share']:.0%} {name}" for name, p in parts.items())
    note = f"For the model {made['model']} and {aims}, chosen by {made.get('by', 'measure')}, seed {made['seed']}."
    if made.get("length"):
        note += f" Sequences of at most {made['length']:,} tokens{', texts joined' if made.get('pack') else ''}."
    notes = [note, f"Not the closest: {made['reason']}."] if made.get("reason") else [note]
    intervals = made.get("intervals") or {}
    sure = sureness(scores, intervals, made.get("chosen"), made.get("tied") or [])
    sure += made.get("notes") or []
    notes += [f"{line[0].upper()}{line[1:]}." for line in (*sure, *([UNIT.rstrip(".")] if scores else []))]
    charts = []
    if scores:
        caption = "How close every candidate comes to the target in the model's states, and its share of the tokens."
        caption += " Mixtures have texts of all candidates."
        chart = _chart(names, scores, parts, made.get("chosen"))
        charts.append({"chart": chart, "caption": caption, "alt": f"{caption} The table below holds every figure."})
    rows = []
    for name in names:
        part = parts.get(name)
        about = [f"{part['share']:.0%}", f"{part['tokens']:,}", str(part["texts"]), part["hash"][:16]] if part else []
        close = [f"{scores[name]:.3g}", shown(intervals.get(name))] if name in scores else ["", ""]
        rows.append([name, *close, *(about or [""] * 4)])
    heads = [
        "candidate",
        "closeness",
        "95 % interval",
        "share",
        "tokens",
        "texts",
        "SHA-256 of the tokens, its beginning",
    ]
    tables = [{"caption": "Candidates and what was taken from them", "heads": heads, "rows": rows}]
    if len(by_target := made.get("by_target") or {}) > 1:
        each = [
            [n, *(f"{by_target[t][n]:.3g}" for t in by_target)] for n in closest(scores, made["chosen"], [*by_target])
        ]
        tables.append({"caption": "Closeness to every target", "heads": ["candidate", *by_target], "rows": each})
    if examples:
        begun = [[source, text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " ..."] for source, text in examples]
        tables.append({"caption": "Some of the texts, their beginnings", "heads": ["candidate", "text"], "rows": begun})
    return {
        "title": f"Calibration data for {' and '.join(targets)}" if targets else "Calibration data",
        "lead": f"Chosen: {listed}, {counted(sum(p['tokens'] for p in parts.values()), 'token')}.",
        "notes": notes,
        "figures": charts,
        "tables": tables,
        "commands": [made.get("command")],
    }


def _chart(names: Sequence[str], scores: Mapping[str, float], parts: Mapping[str, Json], chosen: str | None) -> Any:
    values = []
    for name in names:
        share = parts[name]["share"] if name in parts else 0.0
        kind, label = USED if name == chosen or name in parts else REST, f"{share:.0%}" if share else ""
        values.append({"name": name, "closeness": scores.get(name), "share": share, "kind": kind, "label": label})
    data, height = alt.Data(values=values), alt.Step(19)
    axis = alt.Axis(labelExpr=short(names), labelLimit=0, ticks=False, labelPadding=6)
    y = alt.Y("name:N", sort=names, title=None, axis=axis)
    x = alt.X("closeness:Q", title="closeness, higher is closer", axis=alt.Axis(tickCount=4))
    style = legend("kind", [USED, REST], [COLOURS[0], COLOURS[-1]], [SHAPES[2], SHAPES[0]])
    dots = alt.Chart(data).mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, **style)
    bars = shares(alt.Chart(data).encode(y=alt.Y("name:N", sort=names, title=None, axis=None)), "share of the tokens")
    return alt.hconcat(dots.properties(width=150, height=height), bars.properties(width=60, height=height), spacing=12)


def _outcomes(found: Inputs, choices: Sequence[Json]) -> list[Json]:
    """Closeness against what was measured, for models of the same steps from the same model."""
    groups: dict[tuple[str, str, str], dict[str, tuple[float, Json]]] = {}
    for folder in found.folders:
        name, closeness = _predicted(folder, choices)
        steps = json.dumps([[s["method"], s["options"]] for s in folder.card["steps"]])
        for metric, data, estimate in _measured(folder, found.results) if closeness is not None else ():
            title = f"{metric} on {data}" if data else metric
            groups.setdefault((str(folder.card["base_model"]), steps, title), {})[name] = closeness, estimate
    return [_outcome(title, models) for (_, _, title), models in groups.items() if len(models) > 1]


def _predicted(folder: Folder, choices: Sequence[Json]) -> tuple[str, float | None]:
    """Name and closeness of what a model was calibrated with, as far as any choice for its base model says."""
    used = folder.card.get("calibration") or {}
    own = used.get("provenance") or {}
    parts = [p["name"] for p in own.get("parts", [])]
    stem = str(used.get("texts", "")).rpartition("/")[2].partition(".")[0]
    name = own.get("chosen") or (parts[0] if len(parts) == 1 else stem)
    known = [own, *(c for c in choices if c["model"] == folder.card["base_model"])]
    return name, next((c["scores"][name] for c in known if name in (c.get("scores") or {})), None)


def _measured(folder: Folder, results: Sequence[Json]) -> list[tuple[str, str, Json]]:
    """(metric, data, estimate) of a model by the results, else by its own card."""
    own = [r for r in results if is_of(r, folder)]
    found = [(m, str(r["data"]), r[m]) for r in own for m in KNOWN if m in r]
    after = folder.card["steps"][-1].get("after") or {} if folder.card["steps"] else {}
    return found or [(m, "", after[m]) for m in KNOWN if m in after]


def _outcome(title: str, models: Mapping[str, tuple[float, Json]]) -> Json:
    sign = -1 if title.startswith("perplexity") else 1
    pairs = [(a, b) for a, b in itertools.combinations(models.values(), 2) if a[0] != b[0]]
    held = sum((a[0] > b[0]) == (sign * a[1]["value"] > sign * b[1]["value"]) for a, b in pairs)
    sets = f"{counted(len(pairs), 'pair')} of calibration sets"
    lead = f"Of {sets} {held} came out in the order that closeness predicted."
    caption = f"Closeness of the calibration data against the {title} of models that differ in nothing else."
    rows = [
        [name, f"{close:.3g}", interval(e)] for name, (close, e) in sorted(models.items(), key=lambda item: -item[1][0])
    ]
    heads = ["calibration data", "closeness", f"{title} (95 %)"]
    table = {"caption": "What was predicted and what was measured", "heads": heads, "rows": rows}
    chart = scatter(title, models, sign < 0)
    figure = {"chart": chart, "caption": caption, "alt": f"{lead} The table has the figures."}
    return {"title": "Calibration: predicted and measured", "lead": lead, "figures": [figure], "tables": [table]}


def scatter(title: str, models: Mapping[str, tuple[float, Json]], lower: bool) -> Any:
    """Closeness of calibration data against what models reach that were made with them.

    Parameters
    ----------
    title
        Metric, and " on " with the data.
    models
        By the name of their calibration data: its closeness, and the estimate of the metric.
    lower
        Whether the metric is better when lower.

    Returns
    -------
    LayerChart
        With 95 % intervals.
    """
    names = list(models)
    values = [
        {"name": name, "closeness": close, "value": e["value"], "low": e["ci_low"], "high": e["ci_high"]}
        for name, (close, e) in models.items()
    ]
    horizontal = alt.Scale(zero=False, padding=12)
    x = alt.X("closeness:Q", title="closeness, higher is closer", scale=horizontal, axis=alt.Axis(tickCount=6))
    label = title.partition(" on ")[0] + (", axis turned: up is better" if lower else "")
    scale, axis = alt.Scale(zero=False, reverse=lower), alt.Axis(grid=True, tickCount=5)
    base = alt.Chart(alt.Data(values=values)).encode(x=x)
    points = with_intervals(
        base, alt.Y("value:Q", title=label, scale=scale, axis=axis), legend("name", names, *styles(names))
    )
    return alt.layer(*points).properties(width=310, height=190)
