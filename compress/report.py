"""Rankings, calibration choices and evaluations as one self-contained HTML page: no script, no network."""

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  the backend comes first

from compress.metrics import METRICS  # noqa: E402
from compress.show import interval  # noqa: E402

plt.rcParams |= {"svg.fonttype": "none", "text.parse_math": False}  # names may hold dollar signs

# Okabe & Ito 2008: told apart by colour-blind readers; the marker says the same
VERDICTS = {"helps": ("#0072B2", "^"), "no evidence": ("#666666", "o"), "hurts": ("#D55E00", "v")}
KNOWN = tuple(dict.fromkeys(metric for names in METRICS.values() for metric in names))
KEYS = {"ranking": {"rows", "scorer", "target", "shots"}, "result": {"parameters", "bytes", "model", "data"}}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>transmeter report</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
       background: #fff }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd; white-space: nowrap }}
svg {{ max-width: 100%; height: auto }} h2 {{ margin-top: 2.5rem }} .note {{ color: #555 }}
</style></head><body><h1>Which data, and what came of it</h1>
{body}
</body></html>
"""


def write(inputs: Sequence[Path], out: Path) -> None:
    """Write the page for rankings, evaluations, and folders of calibrate and compress.

    Raises ValueError for an input that is none of these.
    """
    found = [part for path in inputs for part in _read(path)]
    results = {m: [c for kind, c in found if kind == "result" and m in c] for m in KNOWN}
    sections = [_ranking(content) for kind, content in found if kind == "ranking"]
    sections += [_results(metric, measured) for metric, measured in results.items() if measured]
    sections += [_provenance(content) for kind, content in found if kind == "provenance"]
    sections += [_card(content) for kind, content in found if kind == "card"]
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(PAGE.format(body="\n".join(sections)), encoding="utf-8")
    partial.rename(out)


def _read(path: Path) -> list[tuple[str, dict]]:
    """(kind, content) of everything at `path`."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: give ranking.json, result.json or a folder of a command")
    if path.is_dir():
        files = [(file, "ranking") for file in sorted(path.glob("ranking*.json"))]
        files += [(path / "provenance.json", "provenance"), (path / "compression.json", "card")]
        found = [(kind, _json(file)) for file, kind in files if file.is_file()]
    else:
        content = _json(path)
        parts = content if isinstance(content, list) else [content]
        kinds = [next((k for k, keys in KEYS.items() if isinstance(p, dict) and keys <= set(p)), None) for p in parts]
        found = [(kind, part) for kind, part in zip(kinds, parts) if kind]
    if not found:
        raise ValueError(f"{path} is nothing to report: give ranking.json, result.json or a folder of a command")
    return found


def _json(path: Path) -> dict | list:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from None
    return content if isinstance(content, dict | list) else {}


def _ranking(ranking: dict) -> str:
    rows = ranking["rows"]
    scored = [r for r in rows if r["error"] is None]
    gains = bool(scored) and scored[0]["gain_pp"] is not None
    shots = f"{ranking['shots']} labelled rows a class" if ranking["shots"] else "all labelled rows, cross-fitted"
    note = f"Scorer {ranking['scorer']}, seed {ranking['seed']}"
    if gains:
        note += f", {shots}, up to {ranking['repeats']} repeats; gain in points of {ranking['metric']}"
        note += " over the target alone"
    picture = _dots(scored, gains) if scored else ""
    heads = ["rank", "tie group", "source"]
    heads += ["gain (pp)", "95 % interval", "P(gain&lt;0)", "verdict"] if gains else ["score"]
    cells = []
    for r in rows:
        name = html.escape(r["source"])
        if r["error"]:
            cells.append(["-", "-", name, html.escape(r["error"])])
        elif gains:
            reach = f"{r['ci_low']:+.1f} to {r['ci_high']:+.1f}"
            values = [f"{r['gain_pp']:+.1f}", reach, f"{r['p_negative']:.2f}", r["verdict"]]
            cells.append([str(r["rank"]), str(r["tie_group"]), name, *values])
        else:
            cells.append([str(r["rank"]), str(r["tie_group"]), name, f"{r['score']:.4g}"])
    title = f"Sources for {html.escape(ranking['target'])}"
    return f'<h2>{title}</h2><p class="note">{html.escape(note)}.</p>{picture}{_table(heads, cells)}'


def _dots(rows: list[dict], gains: bool) -> str:
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.34 * len(rows)))
    for y, r in enumerate(rows):
        colour, marker = VERDICTS[r["verdict"]] if gains else ("#0072B2", "o")
        if gains:
            axes.plot([r["ci_low"], r["ci_high"]], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(r["gain_pp"] if gains else r["score"], y, marker, color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [r["source"] for r in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if gains:
        axes.axvline(0, color="#999999", linewidth=1)
        used = {r["verdict"] for r in rows}
        shown = [plt.Line2D([], [], color=c, marker=m, label=v) for v, (c, m) in VERDICTS.items() if v in used]
        axes.legend(handles=shown, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set_xlabel("gain over the target alone, percentage points" if gains else "score, higher is better")
    return _svg(figure)


def _results(metric: str, results: list[dict]) -> str:
    measured = {(r["model"], result["data"]): r for result in results for r in (result.get("baseline"), result) if r}
    figure, axes = plt.subplots(figsize=(8, 3.6))
    cells = []
    for (name, data), r in measured.items():
        value, megabytes = r[metric], (r["bytes"] or 0) / 1e6
        reach = [[value["value"] - value["ci_low"]], [value["ci_high"] - value["value"]]]
        axes.errorbar(megabytes, value["value"], yerr=reach, fmt="o", color="#0072B2", capsize=3)
        axes.annotate(Path(name).name, (megabytes, value["value"]), xytext=(8, 6), textcoords="offset points")
        speed = r["latency_seconds"]
        milliseconds = f"{1e3 * speed['median']:.1f} ({1e3 * speed['q1']:.1f} to {1e3 * speed['q3']:.1f})"
        memory = f"{r['peak_memory_bytes'] / 1e6:,.0f}" if r["peak_memory_bytes"] else "-"
        sizes = [f"{megabytes:.2f}", f"{r['parameters']:,}", f"{r['flops'] / 1e6:,.0f}" if r["flops"] else "-"]
        cells.append([html.escape(name), html.escape(Path(data).name), interval(value), *sizes, milliseconds, memory])
    axes.set_xlabel("size of the weights on disk, MB")
    title = metric.replace("_", " ").capitalize()
    axes.set_ylabel(title)
    axes.set_xlim(left=0)
    axes.margins(x=0.2, y=0.2)
    heads = [
        "model",
        "data",
        f"{title} (95 %)",
        "MB",
        "parameters",
        "MFLOPs",
        "latency, ms (quartiles)",
        "peak memory, MB",
    ]
    changes = [
        f"{html.escape(r['model'])}: {key.replace('_', ' ')} {c['value']:+.4f} ({c['ci_low']:+.4f} to"
        f" {c['ci_high']:+.4f}, 95 %, paired, n = {c['n']})"
        for r in results
        for key, c in r.items()
        if key in (f"{metric}_change", "loss_change_nats")
    ]
    note = "".join(f"<p>{line}</p>" for line in changes)
    return f"<h2>{title} and size</h2>{_svg(figure)}{_table(heads, cells)}{note}"


def _provenance(found: dict) -> str:
    heads = ["candidate", "share", "tokens", "texts", "SHA-256 of the tokens"]
    cells = [
        [html.escape(p["name"]), f"{p['share']:.0%}", str(p["tokens"]), str(p["texts"]), p["hash"]]
        for p in found["parts"]
    ]
    aims = " and ".join(found["targets"].values()) or "no target"
    note = f"For the model {found['model']} and {aims}, chosen by {found['by']}, seed {found['seed']}."
    return f"<h2>Calibration data drawn</h2><p>{html.escape(note)}</p>{_table(heads, cells)}"


def _card(card: dict) -> str:
    measured = [card.get("before") or {}, *(step.get("after") or {} for step in card["steps"])]
    metric = next((m for m in KNOWN if m in measured[0]), None)
    heads = [
        "step",
        "options",
        "seconds",
        "MB",
        "times smaller",
        "parameters",
        *([metric + " (95 %)"] if metric else []),
    ]
    cells = []
    for step, found in zip([None, *card["steps"]], measured):
        name, options, seconds = "before", "", ""
        if step:
            name, options = step["method"], " ".join(f"{k}={v}" for k, v in step["options"].items())
            seconds = f"{step['seconds']:.1f}"
        row = [html.escape(name), html.escape(options), seconds]
        if "bytes" in found:
            times = measured[0]["bytes"] / found["bytes"]
            row += [f"{found['bytes'] / 1e6:.2f}", f"{times:.2f}", f"{found['parameters']:,}"]
        else:
            row += ["-"] * 3
        if metric:
            row.append(
                f"{found[metric]['value']:.4g} ({found[metric]['ci_low']:.4g} to {found[metric]['ci_high']:.4g})"
            )
        cells.append(row)
    used = card["calibration"]
    data = f"calibrated on {used['tokens']} tokens of {used['texts']}" if used else "no calibration data"
    note = f"Base model {card['base_model']}; {data}."
    return f"<h2>Compression</h2><p>{html.escape(note)}</p>{_table(heads, cells)}"


def _table(heads: list[str], cells: list[list[str]]) -> str:
    top = "".join(f'<th scope="col">{h}</th>' for h in heads)
    rows = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


def _svg(figure) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight")
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
