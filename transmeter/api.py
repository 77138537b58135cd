"""What follows a ranking: `validate` measures what it predicted, `transfer` uses the picked source."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from sklearn.base import BaseEstimator

from transmeter.checks import counted_twice, leakage, unusable_lines
from transmeter.estimators import TransferClassifier, TransferRegressor
from transmeter.gain import ground_truth, heldout
from transmeter.gain.agreement import IntervalCoverage, RankAgreement, interval_coverage, rank_agreement
from transmeter.gain.ground_truth import GroundTruth
from transmeter.gain.heldout import HeldOutCheck
from transmeter.gain.measured import known_metric, like, measured_by, metric_notes
from transmeter.learners.estimator import UserEstimator, user_estimator
from transmeter.network.source import Source
from transmeter.ranking import check_learner, check_preparing, check_unlabelled, same_files, warn_of_same_file
from transmeter.result import Ranking, Row, load
from transmeter.tables.classes import most_common
from transmeter.tables.data import Table, Unusable, rows_like
from transmeter.tables.files import read
from transmeter.tables.inputs import Given, all_usable, as_pandas, as_table, as_tables, target_name
from transmeter.tables.labels import R2
from transmeter.tables.prepare import prepare
from transmeter.tables.specs import Dialect, parse
from transmeter.util import writing
from transmeter.util.arguments import column_name, path, seed_number, whole_number
from transmeter.zero_shot.score import expected

NOT_SAVED = "an estimator of the user is not plain arrays, and no pickle is written; leave learner out to save it"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Measured gains of sources, beside those that a ranking predicted.

    Attributes
    ----------
    ground_truth : GroundTruth
        Gains of the combination of learners, which `transfer` delivers, and those of other ways to use the sources and
        of controls, which must not help.
    predicted : dict
        Row of the ranking by name of the source; empty without a ranking.
    agreement : RankAgreement or None
        How well the ranking's order agrees; None without a ranking.
    interval_coverage : IntervalCoverage or None
        How well its intervals hold what was measured; None for a ranking by scores that are not gains.
    """

    ground_truth: GroundTruth
    predicted: dict[str, Row]
    agreement: RankAgreement | None
    interval_coverage: IntervalCoverage | None

    def to_dict(self) -> dict[str, object]:
        """What `transmeter validate --json` prints."""
        rest = {"predicted": self.predicted, "agreement": self.agreement, "honesty": self.interval_coverage}
        return {**asdict(self.ground_truth), **rest}


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A classifier or regressor that uses sources.

    Attributes
    ----------
    model : TransferClassifier or TransferRegressor
        Trained on all labelled rows.
    check : HeldOutCheck
        What such a model reaches on held-out rows, and the target alone.
    class_maps : dict
        By name of the source: its classes that stand for classes of the target; None: they are assigned by their
        means, where it has as many. Empty of a quantity.
    notes : list of str
        What was decided of all tables, a line each that begins with the name of the table, and rows that stand in two.
    predictions : DataFrame or None
        The class of every row to predict, and the probability of every class (`TransferClassifier.predictions`), or the
        quantity.
    """

    model: TransferClassifier | TransferRegressor
    check: HeldOutCheck
    class_maps: dict[str, dict[str, str] | None]
    notes: list[str]
    predictions: pd.DataFrame | None

    @property
    def classifier(self) -> TransferClassifier | TransferRegressor:
        """The model by its former name."""
        return self.model

    def to_dict(self) -> dict[str, object]:
        """What `transmeter transfer --json` prints, and transfer.json holds."""
        matches = self.model.matches_
        return {**asdict(self.check), "matches": matches, "class_maps": self.class_maps, "notes": self.notes}

    def save(self, path: str | Path) -> None:
        """Write a new folder: the model, transfer.json (`to_dict`), and predictions.csv if there are any.

        An estimator of the user is not plain arrays: with one the model is left out, which is warned of. Raises
        ValueError as `TransferClassifier.save`, and OSError where the disk is full; then nothing is left.
        """
        with writing.new_folder(writing.check_new_folder(Path(path))) as folder:
            if self.model.fitted_.estimators:
                warnings.warn(f"{path} holds no model: {NOT_SAVED}", stacklevel=2)
            else:
                self.model.save(folder)
            writing.write_json(folder / "transfer.json", self.to_dict())
            if self.predictions is not None:
                self.predictions.to_csv(folder / "predictions.csv", index=False)


def validate(
    target: Given,
    sources: Mapping[str, Given] | Sequence[Given] | Given,
    ranking: Ranking | str | Path | None = None,
    *,
    label: str | int | None = None,
    key: str | int | None = None,
    shots: int | None = None,
    repeats: int = 24,
    steps: int = 80,
    seed: int = 1,
    metric: str | None = None,
    cache: str | Path | None = None,
    encoder: str | Path | None = None,
    match: str = "meaning",
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    classes: Mapping[str, Mapping[str, str]] | None = None,
    learner: str | BaseEstimator | None = None,
) -> Validation:
    """Measure what every source brings to a target, and check a ranking against that.

    Gains are those of the combination of learners, which `rank` predicts and `transfer` delivers; beside them stand
    those of pooled logistic regression and of Transmeter's network. Every arm has the same labelled rows. Controls must
    not help: the first source with shuffled labels, and a Gaussian mixture.

    Parameters
    ----------
    target : table
        As in `rank`.
    sources : table, sequence or mapping
        As in `rank`. A source that cannot be used is left out with a warning.
    ranking : Ranking, str, Path or None
        A ranking of these sources for this target, or the file that it was saved to; None: gains are only measured.
    shots : int or None
        Labelled rows per class to train on; None: as in the ranking, without one all, by cross-fitting.
    repeats : int
        Of every arm.
    steps : int
        Of training, of every network.
    seed : int
        Of all random choices; another one than the ranking's.
    metric : str or None
        As in `rank`; None: that of the ranking, without one as in `rank`.
    label : str, int or None
        Label column; None: "label".
    key : str, int or None
        Column that says what a row is about.
    cache : str, Path or None
        Folder in which source classifiers are kept; None: nothing is kept.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    sep : str or None
        Separator of .csv files; None: guessed where sure.
    decimal : str or None
        Decimal mark of numbers, "." or ","; None: decided per column.
    encoding : str or None
        Of the characters of text files; None: UTF-8, or what the file's mark says.
    classes : mapping or None
        By name of the source: its classes with those of the target that they stand for, as in `rank`.
    learner : str, BaseEstimator or None
        An estimator that joins the combination, as in `rank`; None: that of the ranking.

    Returns
    -------
    Validation

    Raises
    ------
    ValueError
        As `rank`, and for settings that differ from the ranking's, the ranking's own seed, and a source that it does
        not hold.
    """
    shots = None if shots is None else whole_number("shots", shots, 1)
    repeats, steps = whole_number("repeats", repeats, 2), whole_number("steps", steps, 1)
    seed, metric = seed_number("seed", seed), known_metric(metric)
    cache, encoder, match = check_preparing(cache, encoder, match)
    label, key, dialect = column_name("label", label), column_name("key", key), Dialect(sep, decimal, encoding)
    if isinstance(ranking, str | Path):
        ranking = load(ranking)
    if ranking:
        if ranking.shots == 0:
            raise ValueError("the ranking was made without labels, so that its gains are over guessing: rank anew")
        _check_same_settings(ranking, shots, metric, match, encoder, seed)
        shots, metric = ranking.shots, ranking.metric
        learner = ranking.options.get("learner") if learner is None else learner
        name = target.name if isinstance(target, Table) else target_name(target) or parse(str(target))[0]
        if name != ranking.target:
            raise ValueError(f"the ranking is of sources for '{ranking.target}', not for '{name}': give its target")
    warn_of_same_file(target, sources)
    table = as_table(target, target_name(target), label, key, dialect=dialect, unlabelled=True)
    if table.unlabelled:
        raise ValueError(f"{table.name} has no labelled row to measure gains on: label some, or rank without labels")
    table, metric = measured_by(table, metric)
    estimator = check_learner(learner, metric)
    usable = _usable([like(table, source) for source in as_tables(sources, label, key, dialect)], ranking)
    table, usable, _ = prepare(table, usable, encoder, match, cache and cache / "texts", classes)
    for line in [*metric_notes(table, metric), *leakage(table, usable)]:
        warnings.warn(line, stacklevel=2)
    measured = ground_truth.measure(
        [Source(t, cache) for t in usable],
        table,
        shots=shots,
        repeats=repeats,
        seed=seed,
        metric=metric,
        steps=steps,
        learner=estimator,
    )
    return _compare(ranking, measured)


def _check_same_settings(
    ranking: Ranking, shots: int | None, metric: str | None, match: str, encoder: Path | None, seed: int
) -> None:
    if shots not in (None, ranking.shots):
        raise ValueError(f"shots {shots} differs from the ranking's {ranking.shots}: gains depend on it, leave it out")
    if metric not in (None, ranking.metric):
        raise ValueError(f"metric {metric} differs from the ranking's {ranking.metric}: leave it out")
    if (match, encoder) != (ranking.match, ranking.encoder and Path(ranking.encoder)):
        settings = f"match {ranking.match}" + (f" and encoder {ranking.encoder}" if ranking.encoder else "")
        raise ValueError(f"the ranking was made with {settings}: give the same")
    if seed == ranking.seed:
        raise ValueError(f"seed {seed} is the ranking's own, so that both see the same rows: give another")


def _usable(tables: Sequence[Table | Unusable], ranking: Ranking | None) -> list[Table]:
    """The tables among them, a warning for each other one. Raises ValueError for one that the ranking lacks."""
    for table in tables:
        if isinstance(table, Unusable):
            warnings.warn(f"{table.name} is left out: {table.reason}", stacklevel=3)
    usable = [t for t in tables if isinstance(t, Table)]
    if not usable:
        raise ValueError("no source is usable: give others")
    ranked = {row.source for row in ranking.scored} if ranking else {t.name for t in usable}
    if missing := [t.name for t in usable if t.name not in ranked]:
        raise ValueError(f"the ranking does not hold '{missing[0]}': leave that source out")
    return usable


def _compare(ranking: Ranking | None, measured: GroundTruth) -> Validation:
    """What was measured beside what was predicted."""
    predicted = {row.source: row for row in ranking.scored} if ranking else {}
    rows = [predicted[arm.name] for arm in measured.sources] if ranking else []
    gains = [row.gain for row in rows if row.gain]
    true_gains = [arm.gain_pp for arm in measured.sources]
    return Validation(
        ground_truth=measured,
        predicted=predicted,
        agreement=rank_agreement([row.score or 0.0 for row in rows], true_gains) if rows else None,
        interval_coverage=interval_coverage(gains, true_gains, [a.error_pp for a in measured.sources])
        if gains
        else None,
    )


def transfer(
    target: Given,
    sources: Mapping[str, Given] | Sequence[Given] | Given,
    *,
    label: str | int | None = None,
    key: str | int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    metric: str | None = None,
    cache: str | Path | None = None,
    encoder: str | Path | None = None,
    match: str = "meaning",
    predict: pd.DataFrame | str | Path | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    classes: Mapping[str, Mapping[str, str]] | None = None,
    learner: str | BaseEstimator | None = None,
) -> Transfer:
    """Train a classifier for a target with one source or several, and check it on held-out rows.

    Of a label that is a quantity it is a regressor. It is the combination of learners whose gain `rank` predicts; where
    no row of the target has a label, it is the model of one source alone, and the check is what `rank` expects of it.

    Parameters
    ----------
    target : table
        As in `rank`.
    sources : table, sequence or mapping
        As in `rank`: the ones to use, such as the first of a ranking or its set.
    repeats : int or None
        Of the check on held-out rows; None: 10 of 5 folds.
    seed : int
        Of all random choices.
    metric : str or None
        As in `rank`, that the check is of.
    predict : data frame, str, Path or None
        Rows to predict, with the target's columns; others are left out. None: none, or the target's own without labels.
    label : str, int or None
        Label column; None: "label".
    key : str, int or None
        Column that says what a row is about.
    cache : str, Path or None
        Folder in which source classifiers are kept; None: nothing is kept.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    sep : str or None
        Separator of .csv files; None: guessed where sure.
    decimal : str or None
        Decimal mark of numbers, "." or ","; None: decided per column.
    encoding : str or None
        Of the characters of text files; None: UTF-8, or what the file's mark says.
    classes : mapping or None
        By name of the source: its classes with those of the target that they stand for, as in `rank`.
    learner : str, BaseEstimator or None
        An estimator that joins the combination, as in `rank`.

    Returns
    -------
    Transfer

    Raises
    ------
    ValueError
        As `rank`, for a source that is the target's own file, and for rows to predict that lack a column or hold
        texts where the target has numbers.
    """
    repeats = None if repeats is None else whole_number("repeats", repeats, 2)
    seed, metric = seed_number("seed", seed), known_metric(metric)
    cache, encoder, match = check_preparing(cache, encoder, match)
    label, key, dialect = column_name("label", label), column_name("key", key), Dialect(sep, decimal, encoding)
    for source in same_files(target, sources):
        raise ValueError(f"{parse(str(source))[1]} is the target's own file: give another one as the source")
    table = as_table(target, target_name(target), label, key, dialect=dialect, unlabelled=True)
    if table.unlabelled:
        check_unlabelled(table, sources, "transmeter", {"learner": learner}, None, metric, False)
    table, metric = measured_by(table, metric)
    estimator = user_estimator(learner, metric == R2)
    others = all_usable([like(table, source) for source in as_tables(sources, label, key, dialect)])
    if table.unlabelled and len(others) > 1:
        raise ValueError(
            f"{table.name} has no labelled row to weigh {len(others)} sources by: give the first of a ranking"
        )
    rows = table.features if table.unlabelled else None
    if predict is not None:
        given = as_pandas(predict, "predict")
        frame = given if isinstance(given, pd.DataFrame) else read(path("predict", given), dialect=dialect)
        rows = rows_like(table, "predict" if frame is given else str(predict), frame)
    with warnings.catch_warnings():
        names = "|".join(re.escape(name) for name in ("X", *(other.name for other in others)))
        for begin in (f"({names}): ", r"\d+ of \d+ rows of "):  # said of the target, or below
            warnings.filterwarnings("ignore", begin)
        model = _model(
            table, others, classes, match=match, encoder=encoder, random_state=seed, cache=cache, learner=estimator
        )
    model.readings_ = dict(table.readings)  # so that it reads rows as the target's file was read
    known = replace(table, classes=most_common(others)) if table.unlabelled else table
    prepared, others, matched = prepare(known, others, encoder, match, cache and cache / "texts", classes)
    used = [Source(other, cache, seed) for other in others]
    if table.unlabelled:
        check = expected(used[0], prepared, seed)
    else:
        check = heldout.check(used, prepared, repeats=repeats, seed=seed, metric=metric, learner=estimator)
    predictions = None if rows is None else model.predictions(rows)
    odd = [f"{t.name}: {line}" for t, m in zip(others, matched) for line in unusable_lines(t, prepared, m)]
    odd += leakage(prepared, others) + counted_twice(others)
    for line in odd:
        warnings.warn(line, stacklevel=2)
    return Transfer(
        model=model,
        check=check,
        class_maps={} if metric == R2 else {t.name: dict(t.class_map) or None for t in others},
        notes=[
            *metric_notes(prepared, metric),
            *(f"{t.name}: {note}" for t in (prepared, *others) for note in t.notes),
            *odd,
            *(estimator.notes() if estimator else ()),
        ],
        predictions=predictions,
    )


def _model(
    table: Table,
    sources: Sequence[Table],
    classes: Mapping[str, Mapping[str, str]] | None,
    match: str,
    encoder: Path | None,
    random_state: int,
    cache: Path | None,
    learner: UserEstimator | None,
) -> TransferClassifier | TransferRegressor:
    """What is fitted on all labelled rows, by the kind of the label."""
    if table.quantity is not None:
        regressor = TransferRegressor(
            sources, match=match, encoder=encoder, random_state=random_state, cache=cache, learner=learner
        )
        return regressor.fit(table.features, table.quantity, keys=table.keys)
    classifier = TransferClassifier(
        sources, match=match, encoder=encoder, random_state=random_state, cache=cache, classes=classes, learner=learner
    )
    return classifier.fit(table.features, table.labels, keys=table.keys)
