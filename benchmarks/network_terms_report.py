"""From the cells of network_terms.py to figures and a table."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from transmeter.util import writing
from transmeter.util.intervals import around

PLAIN = "plain"
Value = Callable[[dict], Sequence[float]]  # of a source of a cell: one number per repeat


def report(
    chosen_on: list[dict], cells: list[dict], chosen: list[tuple[str, str, float]], folder: Path, seconds: float
) -> None:
    """Write network_terms.json and .md to `folder`, and print the table; chosen: (variant, setting, prior weight)."""
    shots = sorted({c["shots"] for c in cells})
    levels = {"all": cells} | {f"{k} labels per class": [c for c in cells if c["shots"] == k] for k in shots}
    summary = {
        "about": "percentage points of balanced accuracy, mean and 95 % interval over targets",
        "seconds": round(seconds),
        "chosen_on": sorted({c["target"] for c in chosen_on}),
        "choosing": _choosing(chosen_on),
        "chosen": [dict(zip(("variant", "setting", "prior"), row)) for row in chosen],
        "targets": sorted({c["target"] for c in cells}),
        "pairs": sum(len(c["sources"]) for c in cells if c["shots"] == shots[0]),
        "levels": {level: _level(part, chosen) for level, part in levels.items()},
        "kinds": {kind: _level(part, chosen) for kind, part in _by_kind(cells).items()},
        "by_target": _by_target(cells, chosen),
    }
    writing.write_json(folder / "network_terms.json", summary)
    text = _table(summary)
    writing.write_text(folder / "network_terms.md", text)
    click.echo(text)


def _choosing(cells: list[dict]) -> dict[str, dict[str, float]]:
    """Setting -> prior weight -> mean change of the combination."""
    arms = [arm["networks"] for c in cells for arm in c["sources"]]
    return {
        name: {p: round(float(np.mean([a[name]["change"][p] for a in arms])), 3) for p in arms[0][name]["change"]}
        for name in arms[0]
    }


def _by_kind(cells: list[dict]) -> dict[str, list[dict]]:
    """The cells with the sources of one kind alone."""
    kinds = dict.fromkeys(arm["kind"].partition(":")[0] for c in cells for arm in c["sources"])
    parts = {}
    for kind in kinds:
        only = [c | {"sources": [a for a in c["sources"] if a["kind"].startswith(kind)]} for c in cells]
        parts[kind] = [c for c in only if c["sources"]]
    return parts


def _level(cells: list[dict], chosen: list[tuple[str, str, float]]) -> dict[str, object]:
    """The figures of some cells."""
    plain = next(row for row in chosen if row[0] == PLAIN)
    before = _over_targets(cells, lambda arm: arm["with_source"])
    found: dict[str, object] = {"targets": len(before), "combination": round(float(before.mean()), 2), "variants": {}}
    for row in chosen:
        found["variants"][row[0]] = {
            "change": _three(_over_targets(cells, _change(row))),
            "over_plain": _three(_over_targets(cells, _difference(_change(row), _change(plain)))),
            "without_source": _three(_over_targets(cells, _of_network(row, "change_without_source"))),
            "network_over_plain": _three(
                _over_targets(cells, _difference(_of_network(row, "network"), _of_network(plain, "network")))
            ),
            "share": round(float(_over_targets(cells, _of_network(row, "share")).mean()), 3),
        }
    return found


def _change(row: tuple[str, str, float]) -> Value:
    """Of the combination, as the network joins it."""
    return lambda arm: arm["networks"][row[1]]["change"][f"{row[2]:g}"]


def _of_network(row: tuple[str, str, float], what: str) -> Value:
    return lambda arm: arm["networks"][row[1]][what]


def _difference(first: Value, then: Value) -> Value:
    return lambda arm: np.subtract(first(arm), then(arm))


def _over_targets(cells: list[dict], value: Value) -> np.ndarray:
    """(targets,) means over shots, sources and repeats."""
    targets = dict.fromkeys(c["target"] for c in cells)
    return np.array([_mean([c for c in cells if c["target"] == t], value) for t in targets])


def _mean(cells: list[dict], value: Value) -> float:
    return float(np.mean([np.mean([value(arm) for arm in c["sources"]]) for c in cells]))


def _by_target(cells: list[dict], chosen: list[tuple[str, str, float]]) -> list[dict]:
    """Change of the combination by every variant, for every target and number of shots."""
    return [
        {"target": c["target"], "shots": c["shots"]} | {row[0]: round(_mean([c], _change(row)), 2) for row in chosen}
        for c in cells
    ]


def _three(values: np.ndarray) -> list[float]:
    found = around(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), len(values) - 1)
    return [round(v, 2) for v in (found.mean, found.low, found.high)]


def _table(summary: dict) -> str:
    """The figures as Markdown."""
    lines = [f"Settings chosen on {len(summary['chosen_on'])} other targets:", ""]
    lines += [f"- {row['setting']}; prior weight {row['prior']:g}" for row in summary["chosen"]]
    heads = (
        "| loss | joins the combination, pp | over plain | without the source | alone, over plain | share of weight |"
    )
    for part, found in (summary["levels"] | summary["kinds"]).items():
        lines += ["", f"### {part}, {found['targets']} targets, combination {found['combination']} %", ""]
        lines += [heads, "|---|---|---|---|---|---|"]
        for name, v in found["variants"].items():
            cells = [_cell(v[k]) for k in ("change", "over_plain", "without_source", "network_over_plain")]
            lines.append(f"| {name} | " + " | ".join([*cells, str(v["share"])]) + " |")
    return "\n".join(lines) + "\n"


def _cell(three: list[float]) -> str:
    return f"{three[0]:+.2f} ({three[1]:+.2f} to {three[2]:+.2f})"
