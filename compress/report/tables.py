"""Evaluations and sweeps as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.evaluation import pareto
from compress.evaluation.metrics import METRICS
from transmeter.util.grid import fitted

KNOWN = tuple(dict.fromkeys(metric for names in METRICS.values() for metric in names))
AREA = "area under the Pareto front"
SCREEN = 80  # characters of a line of a terminal


def _latency(speed: Mapping[str, float]) -> str:
    return f"{1e3 * speed['median']:.1f} ({1e3 * speed['q1']:.1f} to {1e3 * speed['q3']:.1f})"


# columns of a table of models: the key in a result, and how its value is written
COLUMNS = {
    "MB": ("bytes", lambda size: f"{size / 1e6:.2f}"),
    "parameters": ("parameters", "{:,}".format),
    "MFLOPs": ("flops", lambda flops: f"{flops / 1e6:,.0f}"),
    "latency ms (quartiles)": ("latency_seconds", _latency),
    "memory MB": ("peak_memory_bytes", lambda size: f"{size / 1e6:,.0f}"),
    "compressed in s": ("compression_seconds", "{:.0f}".format),
    "energy J (estimate)": ("energy_joules_estimate", "{:.3g}".format),
    "helps": ("helps", str),
}


# columns of how near predictions are to the baseline's: the key in a result, and the format of its numbers
NEAR = {"KL, nats (95 %)": ("kl_divergence_nats", ".3g"), "same first choice (95 %)": ("top1_agreement", ".3f")}


def near(column: str, result: Mapping[str, Any]) -> str:
    """One cell of how near predictions are to the baseline's.

    Parameters
    ----------
    column
        One of `NEAR`.
    result
        Of a model.

    Returns
    -------
    str
        With its interval; empty where there is none.
    """
    key, shape = NEAR[column]
    return interval(result[key], shape) if key in result else ""


def cell(column: str, result: Mapping[str, Any], missing: str = "") -> str:
    """One cell of a table of models.

    Parameters
    ----------
    column
        One of `COLUMNS`.
    result
        Of a model.
    missing
        What stands for a value that the result lacks.

    Returns
    -------
    str
        The value in the unit of the column.
    """
    key, write = COLUMNS[column]
    return missing if result.get(key) is None else write(result[key])


def is_change(key: str) -> bool:
    """Tell whether a key of a result is that of the paired change.

    Parameters
    ----------
    key
        Of a result.

    Returns
    -------
    bool
    """
    return key.endswith("_change") or key == "loss_change_nats"


def change(result: Mapping[str, Any]) -> str:
    """The paired change against the baseline.

    Parameters
    ----------
    result
        Of a model.

    Returns
    -------
    str
        With its interval; empty where there is none.
    """
    key = next(filter(is_change, result), None)
    unit = " nats" if key == "loss_change_nats" else ""
    return interval(result[key], "+z.3f") + unit if key else ""


def windows(result: Mapping[str, Any]) -> str:
    """How texts were read for perplexity.

    Parameters
    ----------
    result
        Of a model or a sweep, or what the model card says of the data.

    Returns
    -------
    str
        To stand behind the data; empty where nothing is recorded.
    """
    if not result.get("window"):
        return ""
    text = f", windows of {result['window']:,} tokens"
    if result["stride"] != result["window"]:
        text += f" every {result['stride']:,}"
    masked = f", {result['masked']:.0%} masked, seed {result['mask_seed']}" if result.get("masked") else ""
    return text + (", every text by itself" if result["apart"] else ", texts joined") + masked


def options(step: Mapping[str, Any]) -> str:
    """Options of a step in one line.

    Parameters
    ----------
    step
        Of a card or a sweep.

    Returns
    -------
    str
        OPTION=VALUE, separated by spaces.
    """
    return " ".join(f"{k}={v}" for k, v in step["options"].items())


def evaluations(results: Sequence[Mapping[str, Any]]) -> str:
    """Results of `evaluate` as a table, a row per model, or where a row is wider than a terminal a column per model.

    Parameters
    ----------
    results
        With the same baseline or with none.

    Returns
    -------
    str
        The baseline first; ends with a line break.
    """
    baseline = results[0].get("baseline")
    rows = [*([baseline] if baseline else []), *results]
    metric, *others = [key for key in rows[0] if key in KNOWN]
    columns = {f"{metric} (95 %)": lambda r: interval(r[metric])}
    for name in others:
        columns[f"{name} (95 %)"] = lambda r, name=name: interval(r[name]) if name in r else "-"
    if baseline and not results[0].get("pooling"):
        columns["change (95 %)"] = lambda r: change(r) or "-"
    for name in (name for name in NEAR if any(NEAR[name][0] in r for r in results)):
        columns[name] = lambda r, name=name: near(name, r) or "-"
    columns["MB"] = lambda r: cell("MB", r, "-")
    if baseline:
        columns["times smaller"] = lambda r: _times_smaller(baseline["bytes"], r["bytes"])
    if any("mean_depth" in r for r in rows):
        columns["mean depth"] = lambda r: f"{r.get('mean_depth', 1.0):.2f}"
    for name in list(COLUMNS)[1:]:
        if any(cell(name, r) for r in rows):
            columns[name] = lambda r, name=name: cell(name, r, "" if name == "helps" else "-")
    text = fitted(["model", *columns], [[r["model"], *(write(r) for write in columns.values())] for r in rows], SCREEN)
    if results[0].get("window"):
        text += f"{metric} on {results[0]['data']}{windows(results[0])}\n"
    if results[0].get("pooling"):
        text += f"embeddings of the texts of {results[0]['data']} beside those of the baseline; "
        text += f"pooling: {results[0]['pooling']}\n"
    if baseline and baseline["bytes"]:
        points = [pareto.point("", baseline, r, metric) for r in results if r["bytes"]]
        text += f"{AREA} of {metric} by bytes: {pareto.area(points):.3f} (dense alone 0, at best 1)\n"
    return text


def tasks(results: Sequence[Mapping[str, Any]]) -> str:
    """Results of `evaluate` on the lm-evaluation-harness: a table for every task and metric, a row per model.

    Parameters
    ----------
    results
        With the same baseline or with none.

    Returns
    -------
    str
        The baseline first; ends with a line break.
    """
    baseline = results[0].get("baseline")
    heads = ["model", "value (95 %)", *(["recovery, % (95 %)"] if baseline else []), "MB"]
    rows = [*([baseline] if baseline else []), *results]
    blocks = []
    for task, metric in ((task, metric) for task, found in rows[0]["tasks"].items() for metric in found):
        cells = []
        for r in rows:
            left = r.get("recovery_percent", {}).get(task, {}).get(metric)
            paired = [interval(left, ".1f") if left else "-"] if baseline else []
            cells.append([r["model"], interval(r["tasks"][task][metric]), *paired, cell("MB", r, "-")])
        blocks.append(f"{task}, {metric}\n{fitted(heads, cells, SCREEN)}")
    return "\n".join(blocks)


def _times_smaller(before: int | None, after: int | None) -> str:
    return f"{before / after:.2f}" if before and after else "-"


def sweep(found: Mapping[str, Any]) -> str:
    """A sweep as a table, a row per model.

    Parameters
    ----------
    found
        Content of sweep.json.

    Returns
    -------
    str
        By size, with the Pareto fronts that a model is on, and what failed with the reason; ends with a line break.
    """
    metric, before = found["metric"], found["before"]
    whole = sorted((r for r in found["rows"] if "error" not in r), key=lambda r: -r["after"]["bytes"])
    timed = ["latency ms (quartiles)"] if "latency_seconds" in before else []
    heads = ["model", "front by", f"{metric} (95 %)", "MB", "times smaller", "change (95 %)", *timed, "made in s"]
    speeds = [cell(column, before) for column in timed]
    rows = [["dense", "", interval(before[metric]), cell("MB", before), "1.00", "", *speeds, ""]]
    for r in whole:
        after, smaller = r["after"], _times_smaller(before["bytes"], r["after"]["bytes"])
        about = [f"{r['method']} {options(r)}".strip(), ", ".join(fronts(r)), interval(after[metric])]
        speeds = [cell(column, after, "-") for column in timed]
        rows.append([*about, cell("MB", after), smaller, change(after) or "-", *speeds, f"{r['seconds']:.1f}"])
    areas = ", ".join(f"{m} {a:.3f}" for m, a in sorted(found["areas"].items(), key=lambda item: -item[1]))
    lines = f"{AREA} of {metric} by bytes: {found['area']:.3f}; by method: {areas}\n"
    lines += (
        f"change: paired, to the dense model on the same items of {found['data']}\n" if any(map(_paired, whole)) else ""
    )
    for r in found["rows"]:
        if "error" in r:
            lines += f"tried and failed: {' '.join([r['method'], options(r)]).strip()}: {r['error']}\n"
    return fitted(heads, rows, SCREEN) + lines


def _paired(row: Mapping[str, Any]) -> bool:
    return bool(change(row["after"]))


def fronts(row: Mapping[str, Any]) -> list[str]:
    """The Pareto fronts that a model is on.

    Parameters
    ----------
    row
        Of a sweep.

    Returns
    -------
    list
        "bytes", and "time" where latencies were measured.
    """
    return [name for name, key in (("bytes", "front"), ("time", "front_latency")) if row.get(key)]


def interval(estimate: Mapping[str, Any], shape: str = ".4g") -> str:
    """A value with its interval.

    Parameters
    ----------
    estimate
        value, ci_low and ci_high.
    shape
        Format of a number.

    Returns
    -------
    str
        VALUE (LOW to HIGH).
    """
    return f"{estimate['value']:{shape}} ({estimate['ci_low']:{shape}} to {estimate['ci_high']:{shape}})"
