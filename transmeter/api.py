"""What `import transmeter` offers: `rank` for whatever a Python user has at hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transmeter import ranking
from transmeter.data import Table
from transmeter.inputs import Given, as_table, as_tables
from transmeter.ranking import Ranking


def rank(
    target: Given,
    sources: Mapping[str, Given] | Sequence[Given],
    *,
    label: str | None = None,
    key: str | None = None,
    scorer: str = "transmeter",
    shots: int | None = None,
    repeats: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    metric: str = "balanced_accuracy",
    options: Mapping[str, object] | None = None,
    cache: str | Path | None = None,
    encoder: str | Path | None = None,
    match: str = "meaning",
) -> Ranking:
    """Rank `sources` by the gain that they bring to `target` over the best that it can do alone.

    target, sources: tables, data frames, (X, y), data sets of datasets, or paths ([NAME=]PATH[::LABEL_COLUMN]); the
    sources as {name: data} or a list. label: label column where there are names of columns (None: "label"); rows with
    an empty label are unlabelled ones. key: column that says what a row is about. cache: folder in which source
    classifiers are kept for the next call (None: nowhere). The rest is as in `ranking.rank`: with shots, gains are
    those of that many labelled rows a class; without, of all, by cross-fitting.

    A source that cannot be used is listed last with its reason. Raises ValueError for an unusable target, an unknown
    scorer or option, a missing file, and where no source can be used.
    """
    return ranking.rank(
        as_table(target, None if isinstance(target, str | Path | Table) else "target", label, key),
        as_tables(sources, label, key),
        scorer,
        shots=shots,
        repeats=repeats,
        budget=budget,
        seed=seed,
        metric=metric,
        options=options,
        cache=Path(cache) if cache else None,
        encoder=encoder,
        match=match,
    )
