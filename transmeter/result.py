"""Rankings as plain data, with the views that notebooks show and the JSON file that they are kept in."""

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from transmeter.gain.metric_names import unit
from transmeter.gain.prior import Gain
from transmeter.gain.source_set import SourceSet
from transmeter.tables.labels import R2
from transmeter.util import charts, writing
from transmeter.util.counts import counted
from transmeter.util.intervals import Interval

if TYPE_CHECKING:
    from altair import LayerChart

# fields of a row that hold several values
NESTED = ("over_itself", "evidence", "matches", "terms", "classes", "class_map", "mae")
MORE = "more labels: "  # how a note begins that says what more labelled rows would settle
CAVEAT = "caveat: "  # how notes begin that lower the trust in a ranking
FORMATS = {
    "gain_pp": "{:+z.1f}",
    "ci_low": "{:+z.1f}",
    "ci_high": "{:+z.1f}",
    "p_negative": "{:.2f}",
    "score": "{:.4g}",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One source in a ranking.

    Attributes
    ----------
    rank : int or None
        From 1, the best; None after an error.
    tie_group : int or None
        Number of the group of sources that cannot be told apart, from 1; None after an error.
    source : str
        Its name.
    score : float or None
        By which sources are ordered: the gain, where the scorer estimates one; None after an error.
    gain_pp, ci_low, ci_high : float or None
        Estimated gain over the target alone with its 95 % interval, in percentage points, of log loss in hundredths of
        a nat; None for a scorer that only scores.
    p_negative : float or None
        P(gain < 0).
    verdict : str or None
        "helps", "likely helps", "no evidence" or "hurts".
    repeats : int or None
        In which the gain was measured; 0 where it was predicted without one.
    baseline : str or None
        The best learner of the target alone, which the gain is over; "guessing" where no row has a label.
    over_itself : dict or None
        Per learner its gain over the same learner without the source, in the unit of `gain_pp`.
    evidence : dict or None
        Features of the pair of source and target.
    seconds : float
        That scoring it took.
    error : str or None
        Why it could not be scored.
    matches : list of dict or None
        The source's columns that stand for columns of the target (fields of `matching.Match`).
    terms : dict or None
        What the gain is made of (`prior.explain`); None of a metric for which no prior is fitted.
    classes : dict or None
        Per class how many more rows were right, in percentage points.
    class_map : dict or None
        The source's classes that stand for classes of the target by name, by hand or by the rows; None: by class means.
    mae : dict or None
        By how much the mean absolute error is smaller with the source, in the unit of a quantity: mean, and low and
        high of its 95 % interval; None of classes.
    """

    rank: int | None = None
    tie_group: int | None = None
    source: str
    score: float | None = None
    gain_pp: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_negative: float | None = None
    verdict: str | None = None
    repeats: int | None = None
    baseline: str | None = None
    over_itself: dict[str, float] | None = None
    evidence: dict[str, float] | None = None
    seconds: float = 0.0
    error: str | None = None
    matches: list[dict[str, object]] | None = None
    terms: dict[str, float] | None = None
    classes: dict[str, float] | None = None
    class_map: dict[str, str] | None = None
    mae: dict[str, float] | None = None

    @property
    def gain(self) -> Gain | None:
        """The estimated gain, where the scorer gave one."""
        if self.gain_pp is None or self.ci_low is None or self.ci_high is None or self.p_negative is None:
            return None
        return Gain(self.gain_pp, self.ci_low, self.ci_high, self.p_negative)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Sources from best to worst with the settings that gave the order; sources that failed come last.

    Attributes
    ----------
    target : str
        Name of the target.
    metric : str
        That gains are of: one of `gain.metric_names.METRICS`, of a quantity "r2".
    shots : int or None
        Labelled target rows per class to train on, of a quantity in all; None: all, by cross-fitting; 0: no row has a
        label, and gains are those of a source's own model over guessing.
    repeats : int
        Maximum number of repeats of the comparison with the target alone.
    budget : float or None
        Seconds after which no new round of repeats begins.
    seed : int
        Of all random choices.
    scorer : str
        Name of the scorer.
    options : dict
        Of the scorer, where they are not the defaults.
    encoder : str or None
        Of texts and column names.
    match : str
        How columns are matched: "meaning" or "name".
    rows : list of Row
        One per source.
    command : str or None
        The command line that made it, if one did.
    notes : list of str
        What lowers the trust in it (`caveats`), and what was decided of the tables: how columns and labels are read,
        rows sampled, classes matched, a source without a column in common.
    together : SourceSet or None
        The set of sources to use at once, where it was asked for.
    """

    target: str
    metric: str = "balanced_accuracy"
    shots: int | None = None
    repeats: int
    budget: float | None = None
    seed: int = 0
    scorer: str = "transmeter"
    options: dict[str, object] = field(default_factory=dict)
    encoder: str | None = None
    match: str = "meaning"
    rows: list[Row]
    command: str | None = None
    notes: list[str] = field(default_factory=list)
    together: SourceSet | None = None

    @property
    def caveats(self) -> list[str]:
        """What lowers the trust in it: very unequal classes, few rows, few repeats."""
        return [note for note in self.notes if note.startswith(CAVEAT)]

    @property
    def about_metric(self) -> list[str]:
        """What was decided of gains in its metric."""
        return [note for note in self.notes if note.startswith(f"{self.metric}: ")]

    @property
    def about_labels(self) -> list[str]:
        """What more labelled rows would settle, in a line."""
        return [note.removeprefix(MORE) for note in self.notes if note.startswith(MORE)]

    @property
    def best(self) -> str | None:
        """Name of the first source, None unless it helps or likely does; of a scorer without verdicts the first."""
        first = next((row for row in self.rows if row.rank == 1), None)
        return first.source if first and first.verdict in ("helps", "likely helps", None) else None

    @property
    def scored(self) -> list[Row]:
        """The rows without an error."""
        return [row for row in self.rows if row.error is None]

    @property
    def setting(self) -> str:
        """The labelled rows that gains are about, in words."""
        return setting(self.shots, self.metric)

    def to_frame(self) -> pd.DataFrame:
        """One row per source, in order, with the fields of `Row` that are one value."""
        names = [f.name for f in fields(Row) if f.name not in NESTED]
        return pd.DataFrame([[getattr(row, n) for n in names] for row in self.rows], columns=names)

    def plot(self) -> "LayerChart":
        """Every source with its interval, coloured and marked by verdict, tie groups apart, as notebooks show it."""
        return chart(self).properties(title=f"sources for {self.target}", width=420)

    def _repr_html_(self) -> str:
        """What a notebook shows: a table with every text in it escaped."""
        frame = self.to_frame().drop(columns="seconds").dropna(axis=1, how="all")
        formatters = {c: form.format for c, form in FORMATS.items() if c in frame}
        table = frame.to_html(index=False, border=0, formatters=formatters, na_rep="")
        best = f"best: {self.best}" if self.best else "no source has been shown to help"
        line = f"sources for {self.target}, {self.metric}, {self.setting}; {best}"
        return f"<p>{html.escape(line)}</p>\n{table}"

    def save(self, path: str | Path) -> None:
        """Write a JSON file, complete or not at all. Raises OSError where it cannot be written."""
        writing.write_json(path, asdict(self))


def setting(shots: int | None, metric: str) -> str:
    """The labelled rows that gains are about.

    Parameters
    ----------
    shots : int or None
        Labelled rows that train, per class or of a quantity in all; None: all, by cross-fitting; 0: none.
    metric : str
        That gains are of.

    Returns
    -------
    str
        In words.
    """
    if shots == 0:
        return "no labelled row"
    if shots is None:
        return "all labelled rows, cross-fitted"
    return counted(shots, "labelled row") + ("" if metric == R2 else " per class")


def without_labels(ranking: Ranking) -> list[str]:
    """What gains are where no row of the target has a label.

    Parameters
    ----------
    ranking : Ranking
        Of such a target.

    Returns
    -------
    list of str
        A line each.
    """
    even = sorted({round(100 / row.evidence["classes"], 1) for row in ranking.scored if row.evidence}, reverse=True)
    levels = " or ".join(f"{value:g}" for value in even)
    return [
        f"{ranking.target} has no label: gain_pp is what the model of a source alone is expected to reach on its rows,"
        f" in points of balanced accuracy over guessing ({levels} %)",
        "it is predicted, not measured: 20 labelled rows would tell what sources bring together with them",
    ]


def chart(ranking: Ranking, most: int | None = None) -> "LayerChart":
    """Gains in percentage points with 95 % intervals, or scores, from the best source down.

    Parameters
    ----------
    ranking : Ranking
        Whose sources are shown, but for those that failed.
    most : int or None
        Maximum number of sources.

    Returns
    -------
    altair.LayerChart
    """
    rows = ranking.scored[:most]
    gains = any(row.gain for row in rows)
    values: list[dict[str, Any]] = []
    for row in rows:
        first = not values or values[-1]["group"] != row.tie_group
        value = {
            "source": row.source,
            "group": row.tie_group,
            "verdict": row.verdict or "",
            "tie": f"tie {row.tie_group}" if first else "",
            "value": row.gain_pp if row.gain else row.score,
        }
        values.append({**value, "low": row.ci_low, "high": row.ci_high} if row.gain else value)
    title = f"gain in {ranking.metric}, {unit(ranking.metric)} (95 %)" if gains else f"score by {ranking.scorer}"
    return charts.dots(values, title, gains)


def load(path: str | Path) -> Ranking:
    """What `Ranking.save` wrote.

    Parameters
    ----------
    path : str or Path
        The JSON file.

    Returns
    -------
    Ranking

    Raises
    ------
    ValueError
        For a file that does not exist or is not a ranking.
    """
    try:
        return _parsed(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: make it with transmeter rank --out") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a ranking ({error}): make one with transmeter rank --out") from None


def _parsed(content: Any) -> Ranking:
    if not isinstance(content, dict):
        raise TypeError("it holds no object")
    together = content.get("together")
    parts = {"rows": [Row(**row) for row in content["rows"]], "together": together and _parsed_set(together)}
    ranking = Ranking(**{**content, **parts})
    numbers = [v for r in ranking.rows for v in (r.score, r.gain_pp, r.ci_low, r.ci_high, r.p_negative)]
    if any(v is not None and not isinstance(v, int | float) for v in (*numbers, ranking.shots)):
        raise ValueError("a score, an interval or shots is not a number")
    return ranking


def _parsed_set(content: Mapping[str, Any]) -> SourceSet:
    leads = {name: content[name] and Interval(**content[name]) for name in ("over_best", "over_all")}
    return SourceSet(**{**content, **leads, "gain": content["gain"] and Gain(**content["gain"])})
