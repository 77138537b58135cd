"""What a source's own model is expected to be worth on a target of which no row is labelled.

The gain is balanced accuracy over guessing the source's classes evenly, in percentage points: the model of the source
alone (`model.py`) predicts the target's rows, and what that is worth is predicted from features that need no label. It
is a statement about this model, not about the combination of learners, which labelled rows weigh.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from transmeter.gain.heldout import HeldOutCheck
from transmeter.gain.metric_names import BALANCED
from transmeter.gain.prior import Gain
from transmeter.gain.score import Score
from transmeter.network.source import Encoded, Source
from transmeter.tables.columns import listed
from transmeter.tables.data import Table
from transmeter.util.intervals import Interval
from transmeter.zero_shot.features import agreement_of, consensus, regressors, zero_shot_features
from transmeter.zero_shot.model import SourceModel, fit_source_model
from transmeter.zero_shot.prior import ROWS, gain_of, load_prior

GUESSING = "guessing"  # what the gain is over
FAR = 0.3  # share of target rows outside of a source from which on it is said


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, independent: bool = False) -> list[Score]:
    """Expected gain of every source's model over guessing, its value in percentage points.

    Parameters
    ----------
    sources : sequence of Source
        With columns and classes named as the target's.
    target : Table
        Without labels; its classes are those that sources are compared by.
    seed : int
        Changes nothing.
    independent : bool
        Whether every source is judged as if it were the only one; otherwise what the others' models predict counts.

    Returns
    -------
    list of Score
        With gains and what they are predicted from; a gain of 0 without a column in common, as all rows are guessed.
    """
    encoded, prior = Encoded(target), load_prior()
    models = [fit_source_model(source, encoded) for source in sources]
    seen = [i for i, model in enumerate(models) if model is not None]
    scores = [Score(0.0, Gain(0.0, 0.0, 0.0, 0.0), evidence={}) for _ in sources]
    if not seen:
        return scores
    features = [zero_shot_features(sources[i], encoded, models[i]) for i in seen]
    evidence, x = [asdict(f) for f in features], regressors(features)
    means, deviations = prior.alone.predict(x)
    if len(seen) > 1 and not independent:
        named = [in_classes(sources[i].table, models[i], target.classes) for i in seen]
        others = consensus(agreement_of(named), means)
        means, deviations = prior.among.predict(np.column_stack([x, others]))
        evidence = [told | {"consensus": float(agreed)} for told, agreed in zip(evidence, others[:, 1])]
    for i, mean, deviation, told in zip(seen, means, deviations, evidence):
        counts = len(sources[i].table.classes), len(target), len(models[i].codes)
        gain = gain_of(float(mean), float(deviation), *counts)
        scores[i] = Score(gain.mean, gain, evidence=told)
    return scores


def expected(source: Source, target: Table, seed: int = 0) -> HeldOutCheck:
    """What the model of one source is expected to reach, in the place of a check on held-out rows.

    Parameters
    ----------
    source, target : Source, Table
        As for `score`.
    seed : int
        That the check names.

    Returns
    -------
    HeldOutCheck
        Beside guessing; shots and repeats are 0, as nothing is measured.
    """
    gain, even = score([source], target)[0].gain, 100 / len(source.table.classes)
    return HeldOutCheck(
        target=target.name,
        sources=[source.table.name],
        metric=BALANCED,
        shots=0,
        repeats=0,
        seed=seed,
        reached=Interval(even + gain.mean, even + gain.low, even + gain.high),
        alone=Interval(even, even, even),
        baseline=GUESSING,
        gain=gain,
        verdict=gain.verdict,
    )


def about(target: Table, sources: Sequence[Table], scores: Sequence[Score | str]) -> list[str]:
    """What lowers the trust in gains.

    Parameters
    ----------
    target : Table
        Without labels.
    sources : sequence of Table
        That were scored.
    scores : sequence of Score or str
        Of every source, or why it has none.

    Returns
    -------
    list of str
        One of few rows, one per source whose classes are not those of most, and one per source that many target rows
        lie outside of.
    """
    few = f"{target.name}: what a model reaches on {len(target)} rows is chance to a good part"
    lines = [few] if len(target) < ROWS else []
    for source, score in zip(sources, scores):
        evidence = (score.evidence or {}) if isinstance(score, Score) else {}
        if set(source.classes) != set(target.classes):
            others = f"that of others {listed(target.classes)}"
            lines.append(f"{source.name}: its model tells {listed(source.classes)} apart, {others}: compare with care")
        if evidence.get("outside", 0.0) >= FAR:
            share = f"{evidence['outside']:.0%}".replace("%", " %")
            lines.append(f"{source.name}: {share} of the rows of {target.name} are unlike its own: less is sure there")
    return lines


def in_classes(source: Table, model: SourceModel, classes: Sequence[str]) -> np.ndarray:
    """What a model predicts, by the names of classes.

    Parameters
    ----------
    source : Table
        Whose classes the model predicts.
    model : SourceModel
        Of the source.
    classes : sequence of str
        Names.

    Returns
    -------
    ndarray of shape (n, classes)
        Probabilities of the target's rows, 0 for a class that the source does not have.
    """
    places = {name: place for place, name in enumerate(source.classes)}
    there = [name in places for name in classes]
    found = model.probabilities[:, [places.get(name, 0) for name in classes]]
    return np.where(there, found, 0.0)
