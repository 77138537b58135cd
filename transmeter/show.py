"""A ranking as text for people and programs."""

import csv
import io
import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table as Grid

from transmeter.ranking import Ranking


def text(ranking: Ranking, shape: str) -> str:
    """The ranking as `shape`: table, json or csv; ends with a line break."""
    if shape == "json":
        return json.dumps(asdict(ranking), indent=1) + "\n"
    rows = [asdict(row) for row in ranking.rows]
    matched = {row["source"]: [m for m in row.pop("matches") or [] if m["how"] == "meaning"] for row in rows}
    out = io.StringIO()
    if shape == "csv":
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()
    gains = any(row["gain_pp"] is not None for row in rows)
    heads = ["gain_pp", "95 % interval", "P(gain<0)", "verdict"] if gains else ["score"]
    grid = Grid("rank", "tie group", "source", *heads, "seconds", box=None, pad_edge=False)
    for row in rows:
        if row["error"]:
            grid.add_row("-", "-", row["source"], row["error"])
            continue
        cells = [f"{row['score']:.4g}"]
        if gains:
            interval = f"{row['ci_low']:+.1f} to {row['ci_high']:+.1f}"
            cells = [f"{row['gain_pp']:+.1f}", interval, f"{row['p_negative']:.2f}", row["verdict"]]
        grid.add_row(str(row["rank"]), str(row["tie_group"]), row["source"], *cells, f"{row['seconds']:.2f}")
    Console(file=out, width=120, markup=False, emoji=False).print(grid)
    for source, matches in matched.items():
        if matches:
            pairs = (f"{m['source']} = {m['target']} ({m['confidence']:.2f})" for m in matches)
            out.write(f"{source}, columns matched by meaning: {', '.join(pairs)}\n")
    return out.getvalue()
