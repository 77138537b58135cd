"""Which calibration data were chosen, and how what was predicted of them compares with what came of it."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.charts import SHAPES, styles
from compress.report.inputs import Folder, Inputs, Json
from compress.report.quality import KNOWN, is_of
from transmeter.util.charts import BAND, COLOURS, INK, short

DRAWN, REST = "texts of it were drawn", "not drawn"


def sections(found: Inputs) -> list[Json]:
    """One for every choice, of a folder or in a model's card, and one for models that differ in calibration only."""
    choices = list(found.calibrations)
    for folder in found.folders:
        used = (folder.card.get("calibration") or {}).get("provenance")
        if used and used not in choices:
            choices.append(used)
    return [*map(_choice, choices), *_outcomes(found, choices)]


def _choice(made: Json) -> Json:
    parts, scores = {p["name"]: p for p in made["parts"]}, made.get("scores") or {}
    aims = " and ".join(str(t) for t in (made.get("targets") or {}).values()) or "no target"
    drawn = ", ".join(f"{p['share']:.0%} {name}" for name, p in parts.items())
    lead = f"Drawn: {drawn}, {sum(p['tokens'] for p in parts.values()):,} tokens."
    note = f"For the model {made['model']} and {aims}, chosen by {made.get('by', 'measure')}, seed {made['seed']}."
    section = {"title": "Calibration data drawn", "lead": lead, "notes": [note], "figures": []}
    if scores:
        caption = "How close every candidate comes to the target in the model's states, and the share that was drawn."
        caption += " Mixtures draw from all candidates."
        alt = f"{caption} The table below holds every figure."
        section["figures"] = [{"chart": _chart(scores, parts, made.get("chosen")), "caption": caption, "alt": alt}]
    rows = []
    for name in sorted({**scores, **parts}, key=lambda n: -scores.get(n, 0.0)):
        part = parts.get(name)
        drawn = (
            [f"{part['share']:.0%}", f"{part['tokens']:,}", str(part["texts"]), part["hash"][:16]] if part else [""] * 4
        )
        rows.append([name, f"{scores[name]:.3g}" if name in scores else "", *drawn])
    heads = ["candidate", "closeness", "share", "tokens", "texts", "SHA-256 of the tokens, its beginning"]
    section["tables"] = [{"caption": "Candidates and what was drawn from them", "heads": heads, "rows": rows}]
    return section | {"commands": [made.get("command")]}


def _chart(scores: Mapping[str, float], parts: Mapping[str, Json], chosen: str | None) -> Any:
    import altair as alt

    names = sorted({**scores, **parts}, key=lambda n: -scores.get(n, 0.0))
    values = []
    for name in names:
        share = parts[name]["share"] if name in parts else 0.0
        values.append({"name": name, "closeness": scores.get(name), "share": share})
        values[-1] |= {"kind": DRAWN if name == chosen or name in parts else REST}
        values[-1] |= {"label": f"{share:.0%}" if share else ""}
    data = alt.Data(values=values)
    y = alt.Y(
        "name:N",
        sort=names,
        title=None,
        axis=alt.Axis(labelExpr=short(names), labelLimit=0, ticks=False, labelPadding=6),
    )
    scale = {"domain": [DRAWN, REST]}
    legend = alt.Legend(title=None, orient="bottom")
    colour = alt.Color("kind:N", scale=alt.Scale(**scale, range=[COLOURS[0], COLOURS[-1]]), legend=legend)
    shape = alt.Shape("kind:N", scale=alt.Scale(**scale, range=[SHAPES[2], SHAPES[0]]), legend=legend)
    x = alt.X("closeness:Q", title="closeness, higher is closer", axis=alt.Axis(tickCount=4))
    dots = alt.Chart(data).mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    bare = alt.Y("name:N", sort=names, title=None, axis=None)
    bars = alt.Chart(data).encode(y=bare)
    axis = alt.Axis(format="%", values=[0, 1])
    share = alt.X("share:Q", title="share drawn", scale=alt.Scale(domain=[0, 1]), axis=axis)
    track = bars.mark_bar(color=BAND).encode(x=alt.value(0), x2=alt.value("width"))
    filled = bars.mark_bar(color=COLOURS[0]).encode(x=share)
    text = bars.mark_text(align="left", dx=4, color=INK).encode(x=alt.value("width"), text="label:N")
    height = alt.Step(19)
    return alt.hconcat(
        dots.properties(width=150, height=height),
        alt.layer(track, filled, text).properties(width=60, height=height),
        spacing=12,
    )


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
    lead = f"Of {len(pairs)} pairs of calibration sets {held} came out in the order that closeness predicted."
    caption = f"Closeness of the calibration data against the {title} of models that differ in nothing else."
    rows = [
        [name, f"{close:.3g}", f"{e['value']:.4g} ({e['ci_low']:.4g} to {e['ci_high']:.4g})"]
        for name, (close, e) in sorted(models.items(), key=lambda item: -item[1][0])
    ]
    table = {
        "caption": "What was predicted and what was measured",
        "heads": ["calibration data", "closeness", f"{title} (95 %)"],
        "rows": rows,
    }
    figure = {
        "chart": _scatter(title, models, sign < 0),
        "caption": caption,
        "alt": f"{lead} The table has the figures.",
    }
    return {"title": "Calibration: predicted and measured", "lead": lead, "figures": [figure], "tables": [table]}


def _scatter(title: str, models: Mapping[str, tuple[float, Json]], lower: bool) -> Any:
    import altair as alt

    values = [
        {"name": name, "closeness": close, "value": e["value"], "low": e["ci_low"], "high": e["ci_high"]}
        for name, (close, e) in models.items()
    ]
    x = alt.X(
        "closeness:Q",
        title="closeness, higher is closer",
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y(
        "value:Q",
        title=title.partition(" on ")[0] + (", axis turned: up is better" if lower else ""),
        scale=alt.Scale(zero=False, reverse=lower),
        axis=alt.Axis(grid=True, tickCount=5),
    )
    names = list(models)
    legend = alt.Legend(title=None, orient="bottom", labelExpr=short(names))
    colours, shapes = styles(names)
    colour = alt.Color("name:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    shape = alt.Shape("name:N", scale=alt.Scale(domain=names, range=shapes), legend=legend)
    base = alt.Chart(alt.Data(values=values)).encode(x=x)
    rules = base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q", color=colour)
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(y=y, color=colour, shape=shape)
    return alt.layer(rules, dots).properties(width=310, height=190)
