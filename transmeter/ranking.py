"""Rank sources for a target: scores, gains with intervals, ties, verdicts; JSON in and out."""

import inspect
import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from transmeter.gain.estimate import class_gains, explain_gain, is_better
from transmeter.gain.prior import Gain
from transmeter.gain.score import Score
from transmeter.network.source import Source
from transmeter.scorers import SHARED, needs, scorers
from transmeter.tables.data import MAX_ROWS, Table, Unusable, sample
from transmeter.tables.prepare import prepare
from transmeter.tables.splits import default_repeats
from transmeter.util import writing
from transmeter.util.arguments import one_of, option_values

if TYPE_CHECKING:
    from altair import LayerChart

LOG = logging.getLogger(__name__)
NESTED = ("evidence", "matches", "terms", "classes")  # fields of a row that hold several values


@dataclass(frozen=True)
class Row:
    """One source in a ranking; the fields of the gain are None for a scorer that only scores, rank too after an error.

    repeats: of the transfer that measured the gain, 0 where the screen alone speaks; baseline: the best learner of the
    target alone, which the gain is over; evidence: see `prior.PairFeatures`.
    matches: the source's columns that stand for columns of the target (fields of `matching.Match`); terms: what the
    gain is made of (`prior.explain`); classes: how many more rows of a class were right, in percentage points.
    """

    rank: int | None
    tie_group: int | None
    source: str
    score: float | None
    gain_pp: float | None
    ci_low: float | None
    ci_high: float | None
    p_negative: float | None
    verdict: str | None
    repeats: int | None
    baseline: str | None
    evidence: dict[str, float] | None
    seconds: float
    error: str | None
    matches: list[dict[str, object]] | None = None
    terms: dict[str, float] | None = None
    classes: dict[str, float] | None = None

    @property
    def gain(self) -> Gain | None:
        """The estimated gain, where the scorer gave one."""
        if self.gain_pp is None or self.ci_low is None or self.ci_high is None or self.p_negative is None:
            return None
        return Gain(self.gain_pp, self.ci_low, self.ci_high, self.p_negative)


@dataclass(frozen=True)
class Ranking:
    """Sources from best to worst with the settings that gave the order; command: the line that made it, if one did."""

    target: str
    metric: str
    shots: int | None
    repeats: int
    budget: float | None
    seed: int
    scorer: str
    options: dict[str, object]
    encoder: str | None
    match: str
    rows: list[Row]
    command: str | None = None

    @property
    def best(self) -> str | None:
        """Name of the first source, None unless it helps; of a scorer without verdicts simply the first."""
        first = next((row for row in self.rows if row.rank == 1), None)
        return first.source if first and first.verdict in ("helps", None) else None

    def to_frame(self) -> pd.DataFrame:
        """One row a source, in order, with the fields of `Row` that are one value."""
        names = [f.name for f in fields(Row) if f.name not in NESTED]
        return pd.DataFrame([[getattr(row, n) for n in names] for row in self.rows], columns=names)

    def plot(self) -> "LayerChart":
        """Every source with its interval, coloured and marked by verdict, tie groups apart, as notebooks show it."""
        from transmeter.report import charts

        return charts.dots(self).properties(title=f"sources for {self.target}", width=420)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from transmeter.report import tables as show

        return show.html(self)

    def save(self, path: str | Path) -> None:
        """Write a JSON file, complete or not at all. Raises OSError where it cannot be written."""
        writing.write_json(path, asdict(self))


def load(path: str | Path) -> Ranking:
    """What `Ranking.save` wrote. Raises ValueError for a file that is not a ranking."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        read = Ranking(**{**found, "rows": [Row(**row) for row in found["rows"]]})
        numbers = [v for row in read.rows for v in (row.score, row.gain_pp, row.ci_low, row.ci_high, row.p_negative)]
        if any(v is not None and not isinstance(v, int | float) for v in (*numbers, read.shots)):
            raise ValueError("a figure is not a number")
        return read
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: make it with transmeter rank --out") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a ranking ({error}): make one with transmeter rank --out") from None


def rank(
    target: Table,
    sources: Sequence[Table | Unusable],
    scorer: str = "transmeter",
    *,
    shots: int | None = None,
    repeats: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    metric: str = "balanced_accuracy",
    options: Mapping[str, object] | None = None,
    cache: Path | None = None,
    encoder: str | Path | None = None,
    match: str = "meaning",
) -> Ranking:
    """Score every source for the target and order them, best first.

    shots: labelled target rows a class that training may use (None: all, by cross-fitting); repeats: of the
    comparison with the target alone, at most (None: 40, or 10 of cross-fitting); budget: seconds after which no new
    round of repeats begins; options: of the scorer; cache: folder for source classifiers and texts' states; encoder,
    match: as for `prepare`. A source that fails is listed last with its reason. Raises ValueError for an unknown
    scorer or option, an encoder that cannot be loaded, or an unusable target.
    """
    repeats = default_repeats(shots) if repeats is None else repeats
    known = scorers()
    given = check_scorer(scorer, options)
    failed = [Row(None, None, s.name, *(None,) * 9, 0.0, s.reason) for s in sources if isinstance(s, Unusable)]
    if len(failed) == len(sources):
        raise ValueError(failed[0].error if failed else "no source is given: name at least one")
    target, *tables = (_sampled(t, seed) for t in (target, *(s for s in sources if isinstance(s, Table))))
    shared = {"seed": seed, "shots": shots, "repeats": repeats, "metric": metric, "budget": budget}
    settings = ("seed", *needs(scorer).settings)
    if shots is not None and "shots" not in settings:
        warnings.warn(f"scorer {scorer} looks at all labelled rows: shots are ignored", stacklevel=2)
        shots = None
    LOG.info("scorer %s, options %s, %s", scorer, given or "as they are", shared)
    arguments = given | {k: v for k, v in shared.items() if k in settings}
    target, tables, matches = prepare(target, tables, encoder, match, cache and cache / "texts")
    scored = _score(known[scorer], [Source(t, cache, seed) for t in tables], target, arguments)
    for table, (score, _) in zip(tables, scored):
        if isinstance(score, Score) and score.outcome:
            _warn_of_leakage(target, table)
    found = {t.name: [asdict(m) for m in ms] for t, ms in zip(tables, matches)}
    rows = [replace(row, matches=found[row.source]) for row in _rows(tables, scored, target.classes)]
    about = (metric, shots, repeats, budget, seed, scorer, given, str(encoder) if encoder else None, match)
    return Ranking(target.name, *about, rows + failed)


def check_scorer(scorer: str, given: Mapping[str, object] | None) -> dict[str, object]:
    """The options of a scorer. Raises ValueError for an unknown scorer or option, and a value of another type."""
    known = scorers()
    parameters = inspect.signature(known[one_of("scorer", scorer, known)]).parameters
    own = {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k not in SHARED}
    return option_values(f"scorer {scorer}", given, own)


def _score(
    function: Callable[..., list[Score]], sources: list[Source], target: Table, arguments: dict
) -> list[tuple[Score | str, float]]:
    """(score or reason of failure, seconds) of every source: all at once, one by one where one of them fails."""
    begin = time.perf_counter()
    try:
        scores = function(sources, target, **arguments)
        if not all(math.isfinite(s.value) for s in scores):
            raise ValueError(f"the score of {sources[0].table.name} is not finite: look at its values")
        return [(s, (time.perf_counter() - begin) / len(sources)) for s in scores]
    except ValueError:
        if len(sources) == 1:
            raise
    found: list[tuple[Score | str, float]] = []
    for source in sources:
        begin = time.perf_counter()
        try:
            result: Score | str = function([source], target, **arguments)[0]
        except ValueError as error:
            result = str(error)
        found.append((result, time.perf_counter() - begin))
    if all(isinstance(result, str) for result, _ in found):
        raise ValueError(found[0][0])
    return found


def _rows(tables: Sequence[Table], scored: Sequence[tuple[Score | str, float]], classes: Sequence[str]) -> list[Row]:
    done = [(t.name, s, seconds) for t, (s, seconds) in zip(tables, scored) if isinstance(s, Score)]
    done.sort(key=lambda item: -item[1].value)
    groups = tie_groups([s for _, s, _ in done])
    rows = []
    for position, ((name, score, seconds), group) in enumerate(zip(done, groups), start=1):
        gain, outcome = score.gain, score.outcome
        rows.append(
            Row(
                rank=position,
                tie_group=group,
                source=name,
                score=score.value,
                gain_pp=gain.mean if gain else None,
                ci_low=gain.low if gain else None,
                ci_high=gain.high if gain else None,
                p_negative=gain.p_negative if gain else None,
                verdict=gain.verdict if gain else None,
                repeats=len(outcome.difference) if outcome else 0 if gain else None,
                baseline=outcome.baseline if outcome else None,
                evidence=asdict(outcome.features) if outcome else None,
                seconds=seconds,
                error=None,
                terms=explain_gain(outcome) if outcome else None,
                classes={classes[c]: moved for c, moved in class_gains(outcome).items()} if outcome else None,
            )
        )
    failed = [(t.name, s, seconds) for t, (s, seconds) in zip(tables, scored) if isinstance(s, str)]
    return rows + [Row(None, None, n, *(None,) * 9, seconds, reason) for n, reason, seconds in failed]


def tie_groups(scores: Sequence[Score]) -> list[int]:
    """Group of every score, best first: a group holds what its best member does not beat beyond the interval."""
    groups: list[int] = []
    leader = 0
    for i, score in enumerate(scores):
        best = scores[leader]
        if best.outcome and score.outcome:
            beaten = i > leader and is_better(best.outcome, score.outcome)
        elif best.gain and score.gain:
            beaten = best.gain.low > score.gain.high
        else:
            beaten = not math.isclose(best.value, score.value, rel_tol=1e-9)
        if beaten:
            leader = i
        groups.append(1 if not groups else groups[-1] + beaten)
    return groups


def _sampled(table: Table, seed: int) -> Table:
    if len(table) > MAX_ROWS:
        warnings.warn(f"{table.name}: {MAX_ROWS} of {len(table)} rows are used, drawn at random", stacklevel=3)
    return sample(table, MAX_ROWS, seed)


def _warn_of_leakage(target: Table, source: Table) -> None:
    """Warn where target rows stand in the source as well."""
    there = set(source.columns)
    columns = [c for c in target.columns if c in there]
    if len(columns) < max(3, len(target.columns) / 2):  # few columns repeat by chance
        return
    hashes = [pd.util.hash_pandas_object(t.features[columns].astype(str), index=False) for t in (target, source)]
    copied = int(hashes[0].isin(hashes[1]).sum())
    if copied > max(2, 0.02 * len(target)):
        message = f"{copied} of {len(target)} rows of {target.name} stand in {source.name} too: its gain is overstated"
        warnings.warn(message, stacklevel=3)
