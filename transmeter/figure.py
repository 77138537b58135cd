"""A ranking as a picture and as HTML, for notebooks."""

import html as markup
from typing import TYPE_CHECKING

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from transmeter.ranking import Ranking

# colour and marker: apart for every kind of colour vision (Okabe & Ito 2008), and in grey
VERDICTS = {"helps": ("#0072B2", "^"), "no evidence": ("#767676", "o"), "hurts": ("#D55E00", "v")}
SHOWN = {"gain_pp": "{:+.1f}", "ci_low": "{:+.1f}", "ci_high": "{:+.1f}", "p_negative": "{:.2f}", "score": "{:.4g}"}


def draw(ranking: "Ranking", ax: "Axes | None" = None) -> "Axes":
    """The sources from top to bottom, gains in percentage points with 95 % intervals, or plain scores; the axes."""
    rows = [row for row in ranking.rows if row.error is None]
    if ax is None:
        ax = plt.subplots(figsize=(7, 1.2 + 0.35 * len(rows)), layout="constrained")[1]
    gains = any(row.gain for row in rows)
    for place, row in enumerate(rows):
        colour, marker = VERDICTS.get(row.verdict or "", ("black", "o"))
        label = row.verdict if row.verdict not in ax.get_legend_handles_labels()[1] else None
        gain, value = row.gain, row.score or 0.0
        if gain:
            value = gain.mean
            ax.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2)
        ax.plot(value, place, marker, color=colour, markersize=8, label=label)
    ax.set_yticks(range(len(rows)), [row.source.replace("$", r"\$") for row in rows])  # $ would begin a formula
    ax.set_ylim(len(rows) - 0.5, -0.5)
    if gains:
        ax.axvline(0, color="black", linewidth=0.8)
        ax.legend()
    ax.set_xlabel(f"gain in {ranking.metric}, percentage points (95 %)" if gains else f"score by {ranking.scorer}")
    ax.set_title(f"sources for {ranking.target}".replace("$", r"\$"))
    return ax


def html(ranking: "Ranking") -> str:
    """The ranking as an HTML table, every text in it escaped."""
    frame = ranking.to_frame().drop(columns="seconds").dropna(axis=1, how="all")
    shown = {c: shape.format for c, shape in SHOWN.items() if c in frame}
    table = frame.to_html(index=False, border=0, formatters=shown, na_rep="")
    picked = f"best: {ranking.best}" if ranking.best else "no source has been shown to help"
    shots = f"{ranking.shots} labelled rows a class" if ranking.shots else "all labelled rows"
    line = f"sources for {ranking.target}, {ranking.metric}, {shots}; {picked}"
    return f"<p>{markup.escape(line)}</p>\n{table}"
