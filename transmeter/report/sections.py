"""What a report says of rankings and of the stores of `transmeter batch`: sections of plain text, tables and charts.

A section is a dict: title, lead (one sentence), notes (sentences), figures ({chart, alt, caption, table}), tables
({caption, heads, rows}), parts (sections inside it), commands. `compress.report.page` writes them.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from transmeter.batch import store
from transmeter.batch.listing import HELPFUL, settings_line
from transmeter.gain.metric_names import points, unit
from transmeter.gain.source_set import describe
from transmeter.result import Ranking, Row, chart, load, without_labels
from transmeter.tables.labels import R2
from transmeter.util import charts
from transmeter.util.counts import counted

CHARTED, LISTED, EXPLAINED = 100, 500, 20  # sources in a chart, in a table, and in what explains a ranking
CELLS = 6000  # of all heat maps of stores together
NAMED = 12  # columns of a source that are named
NOBODY = "no source helps"  # row of a map below the sources, in which targets are marked
WAYS = {
    "combination": "combination",
    "pooled_linear": "pooled, linear",
    "source_linear": "source alone, linear",
    "source_forest": "source alone, forest",
    "network": "network",
}
TERMS = {
    "usual": "average pair",
    "transfer": "probability gain",
    "likelihood": "likelihood of labels",
    "predictions": "predictions changed",
    "zero_shot": "zero-shot accuracy",
    "closeness": "closeness of classes",
    "ridge_gain": "gain of a ridge",
    "misfit": "reconstruction",
    "separation": "domain classifier",
    "shared": "share of columns",
    "mapped": "share of classes",
    "paired": "share of paired rows",
    "size": "rows of the source",
    "skill": "accuracy on itself",
}
FEATURES = {
    "classes": "classes",
    "shared": "share of columns",
    "mapped": "share of classes",
    "paired": "share of paired rows",
    "size": "log10 of rows",
    "skill": "accuracy on itself",
    "zero_shot": "zero-shot accuracy",
    "closeness": "closeness of classes",
    "separation": "domain classifier",
    "misfit": "misfit of reconstruction",
    "ridge_gain": "gain of a ridge, pp",
    "source_likelihood": "likelihood, source alone",
    "pooled_likelihood": "likelihood, both",
    "odds": "log-odds of the source",
    "confidence": "source's confidence",
    "own_confidence": "target's confidence",
    "expected": "gain expected of itself",
    "change": "predictions changed",
    "agreement": "agreement",
}
ZERO_SHOT = {
    "classes": "classes",
    "shared": "share of features",
    "size": "log10 of rows",
    "skill": "accuracy on itself",
    "weighted_skill": "the same, rows like the target's",
    "confidence": "confidence on the target",
    "own_confidence": "confidence on itself",
    "expected": "sure target rows",
    "shift": "shift of classes",
    "unit_agreement": "agreement of units",
    "neighbour_agreement": "agreement with neighbours",
    "outside": "target rows outside",
    "separation": "domain classifier",
    "distance": "distance of means",
    "misfit": "misfit of reconstruction",
    "smoothness": "smoothness of predictions",
    "rest": "told by other columns",
    "consensus": "agreement with other sources",
}  # features where no row of the target has a label

Section = dict[str, Any]
Cell = dict[str, Any]
ScoredPair = tuple[str, str, float, float | None, str | None]  # target, source, score, gain, verdict


def sections(inputs: Sequence[Path]) -> tuple[list[Section], list[Path]]:
    """Sections for rankings and stores.

    Parameters
    ----------
    inputs : sequence of Path
        Files and folders of any kind.

    Returns
    -------
    list of dict
        The sections.
    list of Path
        The inputs in which something else may stand.

    Raises
    ------
    ValueError
        For a ranking or store that cannot be read.
    """
    rankings: list[Ranking] = []
    stores: list[Path] = []
    rest: list[Path] = []
    for path in inputs:
        if _is_store(path):
            stores.append(path)
        elif path.is_dir():
            files = sorted(path.glob("ranking*.json"))
            rankings += map(load, files)
            if not files:
                rest.append(path)
        elif _is_ranking(path):
            rankings.append(load(path))
        else:
            rest.append(path)
    methods = [(path, method) for path in stores for method in _methods(path)]
    try:
        maps = [_store(path, *method, CELLS // len(methods)) for path, method in methods]
        return [*map(_ranking, rankings), *_joined(rankings), *maps], rest
    except (KeyError, TypeError, AttributeError) as error:
        names = ", ".join(str(path) for path in inputs if path not in rest)
        raise ValueError(f"one of {names} is not as this version writes it ({error!r}): make it anew") from None


def _is_store(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\x00"


def _is_ranking(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"rows", "scorer", "target", "shots"} <= set(content)


def _ranking(ranking: Ranking) -> Section:
    scored = ranking.scored
    gains = any(row.gain for row in scored)
    lead = _lead(ranking, scored)
    return {
        "title": f"Sources for {ranking.target}",
        "lead": lead,
        "notes": [
            _note(ranking, gains),
            *(f"{line.strip()}." for line in (describe(ranking.together) if ranking.together else ())),
            *(f"{line}." for line in (*ranking.about_metric, *ranking.about_labels, *ranking.caveats)),
        ],
        "figures": [_ranking_chart(ranking, lead, gains)] if scored else [],
        "tables": [_ranking_table(ranking, gains), *_decisions(ranking)],
        "parts": _why(scored[:EXPLAINED], unit(ranking.metric)),
        "commands": [ranking.command],
    }


def _note(ranking: Ranking, gains: bool) -> str:
    note = f"Scorer {ranking.scorer}, seed {ranking.seed}"
    if gains:
        if ranking.shots == 0:
            return " ".join([f"{note}.", *(f"{line[:1].upper()}{line[1:]}." for line in without_labels(ranking))])
        baseline = next((row.baseline for row in ranking.scored if row.baseline), "the target alone")
        repeats = f"up to {counted(ranking.repeats, 'repeat')}"
        gains_in = f"gains in {points(ranking.metric)} of {ranking.metric} over {baseline} alone"
        note += f"; {ranking.setting}; {repeats}; {gains_in}"
    return f"{note}."


def _ranking_chart(ranking: Ranking, lead: str, gains: bool) -> Section:
    caption = "Dots are estimates, bars 95 % intervals; the marker says what the colour says. " if gains else ""
    caption += "Sources of one tie group, shaded together, cannot be told apart."
    count = len(ranking.scored)
    caption += f" Shown are the first {CHARTED} of {count}." if count > CHARTED else ""
    return {"chart": chart(ranking, CHARTED), "alt": f"{lead} The table below holds every number.", "caption": caption}


def _ranking_table(ranking: Ranking, gains: bool) -> Section:
    scale = "pp" if points(ranking.metric) == "points" else unit(ranking.metric)
    heads = [f"gain, {scale}", "verdict", "95 % interval", "P(gain < 0)", "repeats"] if gains else ["score"]
    rows = [[row.source, *_figures(row, gains)] for row in ranking.rows[:LISTED]]
    rest = f", the first {LISTED} of {len(ranking.rows)}" if len(ranking.rows) > LISTED else ""
    caption = f"The ranking for {ranking.target}{rest}"
    return {"caption": caption, "heads": ["source", *heads, "rank", "tie group"], "rows": rows}


def _decisions(ranking: Ranking) -> list[Section]:
    """What was decided about the tables, and the classes of every source that stand for the target's."""
    said = (*ranking.about_metric, *ranking.about_labels, *ranking.caveats)
    notes = [list(note.partition(": ")[::2]) for note in ranking.notes if note not in said]
    maps = [
        [
            row.source,
            ", ".join(f"{theirs} = {ours}" for theirs, ours in (row.class_map or {}).items()) or "none by name",
        ]
        for row in ranking.scored
    ]
    return [
        {"caption": caption, "heads": heads, "rows": rows[:LISTED]}
        for caption, heads, rows in (
            ("What was decided about the tables", ["table", "decision"], notes),
            (f"Classes of the sources that stand for classes of {ranking.target}", ["source", "classes"], maps),
        )
        if rows and (rows is not maps or ranking.metric != R2)
    ]


def _lead(ranking: Ranking, scored: Sequence[Row]) -> str:
    if not scored:
        return "No source could be scored."
    best = scored[0]
    if not best.gain:
        return f"{best.source} comes first of {len(scored)}, by {ranking.scorer}."
    if not ranking.best:
        which = "The one source has not" if len(scored) == 1 else f"None of {len(scored)} sources has"
        return f"{which} been shown to help."
    gain = best.gain
    interval = f"{gain.mean:+z.1f} {points(ranking.metric)}, {gain.low:+z.1f} to {gain.high:+z.1f}"
    others = sum(row.verdict == "hurts" for row in scored)
    hurt = f" {others} of {len(scored)} sources {'hurts' if others == 1 else 'hurt'}." if others else ""
    return f"{best.source} {best.verdict}: {interval}.{hurt}"


def _figures(row: Row, gains: bool) -> list[str]:
    if row.error or row.score is None:
        return [row.error or "no score"]
    place = [str(row.rank), str(row.tie_group)]
    if not gains or not row.gain:
        return [f"{row.score:.4g}", *place]
    gain = row.gain
    reach = [f"{gain.low:+z.1f} to {gain.high:+z.1f}", f"{gain.p_negative:.2f}", str(row.repeats or 0)]
    return [f"{gain.mean:+z.1f}", row.verdict or "", *reach, *place]


def _why(rows: Sequence[Row], scale: str) -> list[Section]:
    """Columns, classes and terms of the sources, as far as the ranking holds them; gains on a scale."""
    figures, tables = [], []
    summed = [row for row in rows if row.terms]
    if summed:
        named = [t for t in TERMS if any(abs((row.terms or {}).get(t, 0.0)) >= 0.05 for row in summed)]
        cells = [_cell(row.source, c, v) for row in summed for c, v in _sum(row, named).items()]
        caption = "What the gains are made of, in percentage points: what the features add up to is expected; that"
        caption += " and what was measured on held-out rows, weighed by how sure each is, give the gain."
        columns = [*_sum(summed[0], named)]
        figures.append(_map(cells, [row.source for row in summed], columns, "percentage points", caption))
    moved = [row for row in rows if row.classes]
    classes = list(dict.fromkeys(c for row in moved for c in row.classes or {}))[:EXPLAINED]
    if moved:
        changes = [(row.source, row.classes or {}) for row in moved]
        cells = [_cell(source, f"class {c}", change[c]) for source, change in changes for c in classes if c in change]
        caption = "Which classes moved: how many more of their held-out rows are right with the source."
        columns = [f"class {c}" for c in classes]
        figures.append(_map(cells, [row.source for row in moved], columns, "percentage points", caption))
    compared = [(row.source, row.over_itself) for row in rows if row.over_itself]
    if compared:
        ways = list(dict.fromkeys(way for _, gains in compared for way in gains))
        cells = [_cell(source, WAYS.get(w, w), gains[w]) for source, gains in compared for w in ways if w in gains]
        caption = "What every way to use a source gains over the same learner without it."
        columns = [WAYS.get(way, way) for way in ways]
        figures.append(_map(cells, [source for source, _ in compared], columns, scale, caption))
    matched = [[row.source, *_columns(row)] for row in rows if row.matches is not None]
    if matched:
        heads = ["source", "columns matched", "by name", "by meaning (confidence)"]
        caption = "Columns of the sources that stand for columns of the target"
        tables.append({"caption": caption, "heads": heads, "rows": matched})
    described = [r for r in rows if r.evidence]
    if described:
        features = ZERO_SHOT if all("outside" in (r.evidence or {}) for r in described) else FEATURES
        heads = ["feature", *(r.source for r in described)]
        listed = [[name, *(_number((r.evidence or {}).get(e)) for r in described)] for e, name in features.items()]
        caption = "Features of the pairs before any transfer; shares and accuracies above chance lie between 0 and 1"
        tables.append({"caption": caption, "heads": heads, "rows": listed})
    return [{"title": "Why they rank so", "figures": figures, "tables": tables}] if figures or tables else []


def _sum(row: Row, named: Sequence[str]) -> dict[str, float]:
    """The terms that count, what is expected by all, what was measured, and the gain."""
    terms = dict(row.terms or {})
    terms.pop("trust", None)
    measured = terms.pop("measured", 0.0)
    total = {"= expected": sum(terms.values()), "measured": measured, "gain": row.gain_pp or 0.0}
    return {**{TERMS[t]: terms.get(t, 0.0) for t in named}, **total}


def _columns(row: Row) -> list[str]:
    matches = row.matches or []
    named = [str(m["target"]) for m in matches if m["how"] == "name"]
    meant = [f"{m['source']} = {m['target']} ({m['confidence']})" for m in matches if m["how"] != "name"]
    return [str(len(matches)), _some(named), _some(meant)]


def _some(names: Sequence[str]) -> str:
    """The first names in one line."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:z.2f}"


def _cell(row: str, column: str, value: float, mark: str = "") -> Cell:
    return {"row": row, "column": column, "value": value, "label": f"{mark}{value:+z.1f}"}


def _map(
    cells: Sequence[Cell], rows: Sequence[str], columns: Sequence[str], scale: str, caption: str, signed: bool = True
) -> Section:
    """A heat map and the same as a table."""
    labels = {(c["row"], c["column"]): str(c["label"]) for c in cells}
    listed = [[row, *(labels.get((row, c), "") for c in columns)] for row in rows]
    table = {"caption": caption, "heads": ["source", *columns], "rows": listed}
    chart = charts.heat(cells, rows, columns, scale, signed)
    return {"chart": chart, "caption": caption, "alt": f"{caption} The same as a table follows.", "table": table}


def _methods(path: Path) -> list[tuple[str, str]]:
    """(scorer, its settings) of everything in a store."""
    with store.reading(path) as db:
        sql = "SELECT DISTINCT scorer, settings FROM results WHERE status = 'done' ORDER BY scorer, settings"
        methods = [(str(scorer), str(settings)) for scorer, settings in store.query(db, sql)[1]]
    if not methods:
        raise ValueError(f"{path} holds no pair that was scored: see transmeter status {path}")
    return methods


def _store(path: Path, scorer: str, settings: str, most: int) -> Section:
    """The pairs of a store by one scorer: of many the best sources, and the first targets."""
    where, method = "FROM results WHERE scorer = ? AND settings = ?", (scorer, settings)
    order = "GROUP BY source ORDER BY max(coalesce(gain_pp, score)) DESC, source LIMIT ?"
    with store.reading(path) as db:
        every = next(store.query(db, f"SELECT count(DISTINCT source), count(DISTINCT target) {where}", method)[1])
        counts = dict(store.query(db, f"SELECT status, count(*) {where} GROUP BY status", method)[1])
        ranked = f"SELECT source {where} AND status = 'done' {order}"
        sources = [r[0] for r in store.query(db, ranked, (*method, CHARTED))[1]]
        room = max(1, most // len(sources))
        listed = f"SELECT DISTINCT target {where} AND status = 'done' ORDER BY target LIMIT ?"
        targets = [r[0] for r in store.query(db, listed, (*method, room))[1]]
        marks = ", ".join("?" * len(targets)), ", ".join("?" * len(sources))
        sql = f"SELECT target, source, score, gain_pp, verdict {where} AND status = 'done'"
        sql += f" AND target IN ({marks[0]}) AND source IN ({marks[1]})"
        scored = list(store.query(db, sql, (*method, *targets, *sources))[1])
        helpful = f"{where} AND status = 'done' AND verdict IN ({', '.join('?' * len(HELPFUL))})"
        helped = {r[0] for r in store.query(db, f"SELECT DISTINCT target {helpful}", (*method, *HELPFUL))[1]}
        commands = store.commands(db)
        sql = f"SELECT error, count(*) {where} AND status = 'failed' GROUP BY error ORDER BY 2 DESC LIMIT 10"
        failed = [[str(count), str(error)] for error, count in store.query(db, sql, method)[1]]
    scale = unit(json.loads(settings).get("metric"))
    title = f"Sources for every target, by {scorer}"
    section = _pairs(title, scorer, scored, sources, targets, scale, helped)
    scored_pairs = ", ".join(f"{counted(n, 'pair')} {status}" for status, n in counts.items())
    section["notes"] = [f"{path.name}: {scored_pairs}."]
    chosen = settings_line(settings)
    section["notes"] += [f"Settings: {chosen}."] if chosen else []
    if every != (len(sources), len(targets)):
        which = f"{len(sources)} of {every[0]} sources, the best ones, and {len(targets)} of {every[1]} targets"
        section["notes"].append(f"Shown are {which}.")
    if failed:
        section["tables"].append({"caption": "Pairs that failed", "heads": ["pairs", "reason"], "rows": failed})
    return section | {"commands": commands or [None]}


def _joined(rankings: Sequence[Ranking]) -> list[Section]:
    """One map of all rankings by the same scorer in the same unit, where they are of several targets."""
    maps = []
    for scorer, scale in dict.fromkeys((r.scorer, unit(r.metric)) for r in rankings):
        scored: list[ScoredPair] = [
            (r.target, row.source, row.score, row.gain_pp, row.verdict)
            for r in rankings
            for row in r.rows
            if (r.scorer, unit(r.metric)) == (scorer, scale) and row.score is not None
        ]
        targets = list(dict.fromkeys(pair[0] for pair in scored))
        sources = list(dict.fromkeys(pair[1] for pair in scored))[:CHARTED]
        if len(targets) > 1:
            helped = {pair[0] for pair in scored if pair[-1] in HELPFUL}
            maps.append(_pairs(f"All rankings by {scorer}", scorer, scored, sources, targets, scale, helped))
    return maps


def _pairs(
    title: str,
    scorer: str,
    scored: Sequence[ScoredPair],
    sources: Sequence[str],
    targets: Sequence[str],
    gain_unit: str,
    helped: Collection[str],
) -> Section:
    """A map of gains in a unit, or of scores; `helped`: the targets that a source helps or likely helps."""
    gains = any(gain is not None for *_, gain, _ in scored)
    cells: dict[tuple[str, str], Cell] = {}
    for target in targets:
        pairs = sorted((p for p in scored if p[0] == target and p[1] in sources), key=lambda p: -p[2])
        for place, (_, source, score, gain, verdict) in enumerate(pairs):
            if gains and gain is not None:
                mark = {"helps": "\u25b2", "likely helps": "\u25b3", "hurts": "\u25bc"}.get(verdict or "", "")
                cells[source, target] = _cell(source, target, gain, mark)
            elif not gains:
                value = 1 - place / max(len(pairs) - 1, 1)
                cells[source, target] = {"row": source, "column": target, "value": value, "label": f"{score:.2g}"}
    lead = f"Sources: {len(sources)}; targets: {len(targets)}."
    if gains:
        scale = f"gain, {gain_unit}"
        caption = (
            f"Gain in {gain_unit}; \u25b2 helps, \u25bc hurts: the 95 % interval leaves out zero; \u25b3 likely helps."
        )
        lead += f" Targets that a source helps: {len({t for t, *_, verdict in scored if verdict == 'helps'})}."
        alone = [target for target in targets if target not in helped]
        cells |= {(NOBODY, t): {"row": NOBODY, "column": t, "value": 0.0, "label": "none"} for t in alone}
        if alone:
            sources = [*sources, NOBODY]
            caption += " none: no source is shown to help the target."
            lead += f" Targets that none is shown to help: {_some(alone)}."
    else:
        scale = "place among the sources of a target (1: the best)"
        caption = f"Scores by {scorer}; colours compare the sources of one target, since scores of two do not compare."
    chart = _map(list(cells.values()), sources, targets, scale, caption, gains)
    return {"title": title, "lead": lead, "notes": [], "figures": [chart], "tables": []}
