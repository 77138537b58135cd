"""Rank sources for a target: scores, gains with intervals, tie groups and verdicts."""

import inspect
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sklearn.base import BaseEstimator

from transmeter.checks import (
    caveats,
    counted_twice,
    describe,
    leakage,
    misleading,
    pair_lines,
    pair_oddities,
    unusable_lines,
)
from transmeter.gain.estimate import Outcome, class_gains, explain_gain, is_better, measure_mae
from transmeter.gain.measured import known_metric, like, measured_by, metric_notes
from transmeter.gain.metric_names import METRICS
from transmeter.gain.score import Score
from transmeter.gain.sets import choose
from transmeter.gain.source_set import SourceSet
from transmeter.gain.transfers import NETWORK
from transmeter.learners.estimator import UserEstimator, text_of, user_estimator
from transmeter.more_labels import more_labels
from transmeter.network.source import Source
from transmeter.result import CAVEAT, Ranking, Row
from transmeter.scorers import SHARED, needs, scorers
from transmeter.tables.classes import most_common
from transmeter.tables.data import MAX_ROWS, Table, Unusable, drop_small_classes, sample
from transmeter.tables.inputs import Given, as_table, as_tables, target_name
from transmeter.tables.labels import R2
from transmeter.tables.matching import Match
from transmeter.tables.prepare import MATCH, prepare
from transmeter.tables.specs import Dialect, parse
from transmeter.tables.splits import default_repeats
from transmeter.util.arguments import (
    column_name,
    folder,
    one_of,
    option_values,
    path,
    positive_number,
    seed_number,
    shown,
    whole_number,
)
from transmeter.zero_shot import score as zero_shot

LOG = logging.getLogger(__name__)
CANDIDATES = 20  # sources that a set is chosen from at most


def rank(
    target: Given,
    sources: Mapping[str, Given] | Sequence[Given | Unusable] | Given,
    scorer: str = "transmeter",
    *,
    label: str | int | None = None,
    key: str | int | None = None,
    shots: int | None = None,
    repeats: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    metric: str | None = None,
    options: Mapping[str, object] | None = None,
    cache: str | Path | None = None,
    encoder: str | Path | None = None,
    match: str = "meaning",
    classes: Mapping[str, Mapping[str, str]] | None = None,
    min_class_rows: int = 1,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    together: bool = False,
    learner: str | BaseEstimator | None = None,
) -> Ranking:
    """Rank sources by the gain that they bring to a target over the best that it can do alone.

    Parameters
    ----------
    target : table
        A data frame, (X, y), a data set of `datasets`, a path ([NAME=]PATH[::LABEL_COLUMN]) or a `Table`. X may be a
        sparse matrix, which is made dense. Rows with an empty label are unlabelled. Without any label, or a
        label column, gains are those of a source's own model over guessing, and what needs labels is refused.
    sources : table, sequence or mapping
        Tables as `target`: a list, {name: table}, or one alone.
    scorer : str
        See `transmeter scorers`.
    label : str, int or None
        Label column, where columns have names; None: "label".
    key : str, int or None
        Column that says what a row is about; sources may have it too.
    shots : int or None
        Labelled rows per class to train on, of a quantity in all, which gains are then about; None: all, by
        cross-fitting.
    repeats : int or None
        Maximum number of repeats of the comparison with the target alone; None: 40, or 10 of cross-fitting.
    budget : float or None
        Seconds after which no new round of repeats begins.
    seed : int
        Of all random choices.
    metric : str or None
        "balanced_accuracy", "accuracy", "roc_auc", "average_precision", "macro_f1", "log_loss" or, of a quantity, "r2",
        that gains are of; None: balanced accuracy, or r2 where the label is a quantity. Classes are
        measured of a quantity by its terciles, r2 of labels that are numbers.
    options : mapping or None
        Options of the scorer by name.
    cache : str, Path or None
        Folder in which source classifiers are kept for the next call; None: nothing is kept.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names; None: TF-IDF and n-grams.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    classes : mapping or None
        By name of the source: {its class: class of the target}, for what names and rows would decide otherwise.
    min_class_rows : int
        Rows of classes of the target with fewer rows are left out.
    sep : str or None
        Separator of columns in .csv and .tsv; None: as the file's name says, or guessed where sure.
    decimal : str or None
        Decimal mark of numbers that are written as texts, "," or "."; None: decided per column where sure.
    encoding : str or None
        Of text files; None: UTF-8, or UTF-16 where a file begins with its mark.
    together : bool
        Whether the set of sources to use at once is chosen too.
    learner : str, BaseEstimator or None
        Of scorer transmeter: an estimator of scikit-learn's kind that joins the combination of learners, with and
        without every source, or as a text its class and arguments, such as "lightgbm.LGBMClassifier(n_jobs=1)";
        "network": Transmeter's network in the place of the combination. Short for its option `learner`.

    Returns
    -------
    Ranking
        A source that cannot be used is listed last with its reason.

    Raises
    ------
    ValueError
        For an unusable target, an unknown scorer or option, an argument of another type or out of range, a missing
        file, and where no source can be used.
    """
    shots = None if shots is None else whole_number("shots", shots, 1)
    measuring = [name for name, value in (("repeats", repeats), ("budget", budget)) if value is not None]
    repeats = default_repeats(shots) if repeats is None else whole_number("repeats", repeats, 2)
    budget = None if budget is None else positive_number("budget", budget)
    seed, metric = seed_number("seed", seed), known_metric(metric)
    cache, encoder, match = check_preparing(cache, encoder, match)
    label, key = column_name("label", label), column_name("key", key)
    values, dialect = check_scorer(scorer, with_learner(options, learner)), Dialect(sep, decimal, encoding)
    warn_of_same_file(target, sources)
    min_class_rows = whole_number("min_class_rows", min_class_rows, 1)
    table = as_table(target, target_name(target), label, key, dialect=dialect, unlabelled=True)
    if unlabelled := table.unlabelled:
        check_unlabelled(table, sources, scorer, values, shots, metric, together)
        shots, repeats = 0, 0
        for name in measuring:
            warnings.warn(f"{table.name} has no labelled row to measure on: {name} is left aside", stacklevel=2)
    target, metric = measured_by(table, metric, needs(scorer).quantities)
    if table.quantity is not None and not needs(scorer).quantities:
        warnings.warn(f"scorer {scorer} tells classes apart: the terciles of {table.name} are ranked for", stacklevel=2)
    estimator = check_learner(values.get("learner"), metric)
    target = drop_small_classes(target, min_class_rows)
    sources = [like(target, source) for source in as_tables(sources, label, key, dialect)]
    failed = [Row(source=s.name, error=s.reason) for s in sources if isinstance(s, Unusable)]
    if len(failed) == len(sources):
        raise ValueError(failed[0].error if failed else "no source is given: name at least one")
    target, *tables = (_sampled(t, seed) for t in (target, *(s for s in sources if isinstance(s, Table))))
    if unlabelled:
        target = replace(target, classes=most_common(tables))
    shared = {"seed": seed, "shots": shots, "repeats": repeats, "metric": metric, "budget": budget}
    function = zero_shot.score if unlabelled and scorer == "transmeter" else scorers()[scorer]
    settings = ("seed",) if unlabelled else ("seed", *needs(scorer).settings)
    if shots and "shots" not in settings:
        warnings.warn(f"scorer {scorer} uses all labelled rows: shots are ignored", stacklevel=2)
        shots = None
    LOG.info("scorer %s, options %s, %s", scorer, values or "as they are", shared)
    arguments = values | {k: v for k, v in shared.items() if k in settings}
    arguments |= {"learner": estimator} if estimator else {}
    for table in (target, *tables):
        _log(table)
    odd = _warned([f"{target.name}: {line}" for line in misleading(target)])
    target, tables, matches = prepare(target, tables, encoder, match, cache and cache / "texts", classes)
    for table, columns in zip(tables, matches):
        _log_pair(table, target, columns)
    unmatched = [note for t, m in zip(tables, matches) for note in _unmatched(target, t, m)]
    prepared = [Source(t, cache, seed) for t in tables]
    begin = time.monotonic()
    scored = _score(function, prepared, target, arguments)
    candidates = _candidates(prepared, scored) if together else []
    left = None if budget is None else budget - (time.monotonic() - begin)
    chosen = _choose(candidates, target, shared | {"shots": shots, "budget": left, "learner": estimator})
    for table, (score, _) in zip(tables, scored):
        if isinstance(score, Score) and score.gain:
            _warn_of_leakage(target, table)
    matched = {t.name: [asdict(m) for m in ms] for t, ms in zip(tables, matches)}
    mapped = {t.name: dict(t.class_map) or None for t in tables}
    rows = [
        replace(row, matches=matched[row.source], class_map=mapped[row.source])
        for row in _rows(tables, scored, target.classes)
    ]
    return Ranking(
        target=target.name,
        metric=metric,
        shots=shots,
        repeats=repeats,
        budget=budget,
        seed=seed,
        scorer=scorer,
        options=values | ({"learner": text_of(values["learner"])} if estimator else {}),
        encoder=str(encoder) if encoder else None,
        match=match,
        rows=rows + failed,
        notes=[
            *(f"{CAVEAT}{line}" for line in caveats(target, repeats if "repeats" in settings else None)),
            *(metric_notes(target, metric) if "metric" in settings else ()),
            *(_warned(zero_shot.about(target, tables, [score for score, _ in scored])) if unlabelled else ()),
            *(f"{t.name}: {note}" for t in (target, *tables) for note in t.notes),
            *odd,
            *unmatched,
            *(estimator.notes() if estimator else ()),
            *(more_labels(_best_first(tables, scored)) if shots is None else ()),
            *(_shared_rows(candidates, chosen) if chosen else ()),
            *(_about_set(scorer, values, candidates) if together else ()),
        ],
        together=chosen,
    )


def check_unlabelled(
    target: Table,
    sources: object,
    scorer: str,
    options: Mapping[str, object],
    shots: int | None,
    metric: str | None,
    together: bool,
) -> None:
    """Refuse what cannot be had of a target without labels.

    Parameters
    ----------
    target : Table
        Without labels.
    sources, scorer, options, shots, metric, together
        As in `rank`.

    Raises
    ------
    ValueError
        For a scorer that looks at labels, settings and options that need them, and a target whose label column is not
        named, though that of a source is.
    """
    for column in {parse(str(s))[2] for s in _paths(sources)} & set(target.columns):
        raise ValueError(
            f"{target.name} is given without labels and has a column '{column}', which holds those of a source: name"
            f" it as PATH::{column}, or leave it out"
        )
    lacks = f"{target.name} has no labelled row"
    if needs(scorer).target_labels and scorer != "transmeter":
        free = [name for name in scorers() if not needs(name).target_labels]
        raise ValueError(f"{lacks}, and scorer {scorer} needs them: use transmeter, or one of {', '.join(free)}")
    asked = {k: v for k, v in options.items() if k != "independent"} if scorer == "transmeter" else {}
    asked |= {"shots": shots, "together": together or None}
    asked |= {"metric": metric if metric != METRICS[0] else None}
    for name, value in asked.items():
        if value is not None:
            raise ValueError(f"{lacks}, and {name} {shown(value)} needs them: leave {name} out, or label some rows")


def check_preparing(cache: object, encoder: object, match: object) -> tuple[Path | None, Path | None, str]:
    """The settings of how tables are prepared.

    Parameters
    ----------
    cache, encoder, match
        As in `rank`.

    Returns
    -------
    tuple
        The same, as paths and a known way to match.

    Raises
    ------
    ValueError
        For another type, a cache that is a file, and an unknown way.
    """
    encoder = None if encoder is None else path("encoder", encoder)
    return folder("cache", cache), encoder, one_of("match", match, MATCH)


def is_same_file(target: object, source: object) -> bool:
    """Whether both are paths of one file.

    Parameters
    ----------
    target, source : table
        As in `rank`.

    Returns
    -------
    bool
    """
    if not (isinstance(target, str | Path) and isinstance(source, str | Path)):
        return False
    return parse(str(source))[1].resolve() == parse(str(target))[1].resolve()


def same_files(target: object, sources: object) -> list[str | Path]:
    """The sources that are the target's own file.

    Parameters
    ----------
    target, sources
        As in `rank`.

    Returns
    -------
    list
        Of those that are paths.
    """
    return [s for s in _paths(sources) if is_same_file(target, s)]


def _paths(sources: object) -> list[str | Path]:
    """The sources that are paths."""
    several = list(sources.values()) if isinstance(sources, Mapping) else sources
    several = several if isinstance(several, list | tuple) else [several]
    return [s for s in several if isinstance(s, str | Path)]


def warn_of_same_file(target: object, sources: object) -> None:
    """Warn of sources that are the target's own file.

    Parameters
    ----------
    target, sources
        As in `rank`.
    """
    for source in same_files(target, sources):
        message = f"{parse(str(source))[0]} is the target's own file: its gain is leakage, not transfer"
        warnings.warn(message, stacklevel=3)


def with_learner(options: Mapping[str, object] | None, learner: object) -> Mapping[str, object] | None:
    """Options of a scorer with a learner among them.

    Parameters
    ----------
    options : mapping or None
        As in `rank`.
    learner : str, BaseEstimator or None
        As in `rank`.

    Returns
    -------
    mapping or None

    Raises
    ------
    ValueError
        Where both name a learner.
    """
    if learner is None or not isinstance(options, Mapping | None):
        return options
    if options and "learner" in options:
        raise ValueError(f"learner is given twice, {shown(learner)} and as an option: leave one out")
    return {**(options or {}), "learner": learner}


def check_learner(learner: object, metric: str) -> UserEstimator | None:
    """The estimator that joins the combination.

    Parameters
    ----------
    learner : str, BaseEstimator or None
        As in `rank`; "network" stands for none.
    metric : str
        Of gains, which says whether classes or a quantity are predicted.

    Returns
    -------
    UserEstimator or None

    Raises
    ------
    ValueError
        As by `user_estimator`.
    """
    return None if learner == NETWORK else user_estimator(learner, metric == R2)


def check_scorer(scorer: str, options: Mapping[str, object] | None) -> dict[str, object]:
    """The options of a scorer.

    Parameters
    ----------
    scorer : str
        Its name.
    options : mapping or None
        Values by name.

    Returns
    -------
    dict
        Numbers are Python's own.

    Raises
    ------
    ValueError
        For an unknown scorer or option, and a value of another type.
    """
    functions = scorers()
    parameters = inspect.signature(functions[one_of("scorer", scorer, functions)]).parameters
    allowed = {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k not in SHARED}
    return option_values(f"scorer {scorer}", options, allowed)


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
    return _score_each(function, sources, target, arguments)


def _score_each(
    function: Callable[..., list[Score]], sources: list[Source], target: Table, arguments: dict
) -> list[tuple[Score | str, float]]:
    results: list[tuple[Score | str, float]] = []
    for source in sources:
        begin = time.perf_counter()
        try:
            result: Score | str = function([source], target, **arguments)[0]
        except ValueError as error:
            result = str(error)
        results.append((result, time.perf_counter() - begin))
    if all(isinstance(result, str) for result, _ in results):
        raise ValueError(results[0][0])
    return results


def _candidates(sources: Sequence[Source], scored: Sequence[tuple[Score | str, float]]) -> list[Source]:
    """The sources that a set is chosen from, best first: those that do not hurt, CANDIDATES of them at most."""
    usable = [(score, s) for s, (score, _) in zip(sources, scored) if isinstance(score, Score)]
    usable.sort(key=lambda item: -item[0].value)
    return [s for score, s in usable if not (score.gain and score.gain.verdict == "hurts")][:CANDIDATES]


def _choose(candidates: list[Source], target: Table, settings: dict) -> SourceSet | None:
    """The set; None without a candidate and, with a warning, where the user interrupts the first round."""
    try:
        return choose(candidates, target, **settings) if candidates else None
    except KeyboardInterrupt:
        warnings.warn("interrupted: no set of sources is chosen", stacklevel=3)
        return None


def _about_set(scorer: str, options: Mapping[str, object], candidates: Sequence[Source]) -> list[str]:
    """Notes, of which is warned, where there is no candidate, or the sources are ranked by another measure."""
    notes = []
    if not candidates:
        notes.append("no set of sources is chosen: every source hurts")
    elif (ranked := NETWORK if options.get("learner") == NETWORK else scorer) != "transmeter":
        notes.append(f"the set is chosen and measured by the combination of learners, the ranking is by {ranked}")
    return _warned(notes)


def _shared_rows(candidates: Sequence[Source], chosen: SourceSet) -> list[str]:
    """A note, of which is warned, for rows that stand in two sources of the set."""
    return _warned(counted_twice([s.table for s in candidates if s.table.name in chosen.sources]))


def _best_first(tables: Sequence[Table], scored: Sequence[tuple[Score | str, float]]) -> list[tuple[str, Score]]:
    """Name and score of the sources that have one."""
    done = [(t.name, score) for t, (score, _) in zip(tables, scored) if isinstance(score, Score)]
    return sorted(done, key=lambda item: -item[1].value)


def _rows(tables: Sequence[Table], scored: Sequence[tuple[Score | str, float]], classes: Sequence[str]) -> list[Row]:
    done = [(t.name, s, seconds) for t, (s, seconds) in zip(tables, scored) if isinstance(s, Score)]
    done.sort(key=lambda item: -item[1].value)
    groups = tie_groups([s for _, s, _ in done])
    rows = [_row(rank, group, *item, classes) for rank, (item, group) in enumerate(zip(done, groups), start=1)]
    failed = [(t.name, s, seconds) for t, (s, seconds) in zip(tables, scored) if isinstance(s, str)]
    return rows + [Row(source=name, seconds=seconds, error=reason) for name, reason, seconds in failed]


def _row(rank: int, group: int, source: str, score: Score, seconds: float, classes: Sequence[str]) -> Row:
    row = Row(rank=rank, tie_group=group, source=source, score=score.value, seconds=seconds)
    if gain := score.gain:
        row = replace(
            row,
            gain_pp=gain.mean,
            ci_low=gain.low,
            ci_high=gain.high,
            p_negative=gain.p_negative,
            verdict=gain.verdict,
            repeats=0,
        )
    if score.evidence is not None:
        row = replace(row, baseline=zero_shot.GUESSING, evidence=score.evidence)
    if outcome := score.outcome:
        row = replace(
            row,
            repeats=len(outcome.difference),
            baseline=outcome.baseline,
            over_itself=outcome.over_itself,
        )
        row = _explained(row, outcome, classes)
    return row


def _explained(row: Row, outcome: Outcome, classes: Sequence[str]) -> Row:
    """The row with what its gain is made of."""
    if outcome.features is None:
        mae = measure_mae(outcome)
        return replace(row, mae=asdict(mae) if mae else None)
    return replace(
        row,
        evidence=asdict(outcome.features),
        terms=explain_gain(outcome),
        classes={classes[c]: change for c, change in class_gains(outcome).items()},
    )


def tie_groups(scores: Sequence[Score]) -> list[int]:
    """Groups of what cannot be told apart: a group holds what its best member does not beat beyond the interval.

    Parameters
    ----------
    scores : sequence of Score
        Best first.

    Returns
    -------
    list of int
        Number of every score's group, from 1.
    """
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
    if len(table) <= MAX_ROWS:
        return table
    note = f"{MAX_ROWS} of {len(table)} rows are used, a random sample"
    warnings.warn(f"{table.name}: {note}", stacklevel=3)
    return replace(sample(table, MAX_ROWS, seed), notes=(*table.notes, note))


def _warn_of_leakage(target: Table, source: Table) -> None:
    """Warn where target rows stand in the source as well."""
    _warned(leakage(target, [source]))


def _log(table: Table) -> None:
    """Log how a table is read, but for what was said while it was read."""
    for line in describe(table).lines if LOG.isEnabledFor(logging.INFO) else ():
        if line.removeprefix(f"{table.name}: ") not in table.notes:
            LOG.info("%s", line)


def _log_pair(source: Table, target: Table, matches: Sequence[Match]) -> None:
    """Log what both have in common, and what is odd."""
    if LOG.isEnabledFor(logging.INFO):
        odd = [f"odd: {line}" for line in pair_oddities(source, target, matches)]
        for line in (*pair_lines(source, target, matches), *odd):
            LOG.info("%s: %s", source.name, line)


def _unmatched(target: Table, source: Table, matches: Sequence[Match]) -> list[str]:
    """Notes, of which is warned, for a source that tells nothing."""
    return _warned([f"{source.name}: {line}" for line in unusable_lines(source, target, matches)])


def _warned(notes: list[str]) -> list[str]:
    """The notes, after a warning of each that names the caller of `rank`."""
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return notes
