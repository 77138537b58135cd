"""What `import transmeter` offers: `rank` for whatever a Python user has at hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transmeter import ranking
from transmeter.gain.metrics import METRICS
from transmeter.ranking import Ranking
from transmeter.tables.data import Table
from transmeter.tables.inputs import Given, as_table, as_tables
from transmeter.tables.prepare import MATCH
from transmeter.util.arguments import column_name, folder, one_of, path, positive_number, seed_number, whole_number


def rank(
    target: Given,
    sources: Mapping[str, Given] | Sequence[Given] | Given,
    *,
    label: str | int | None = None,
    key: str | int | None = None,
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

    target, sources: tables, data frames, (X, y), data sets of datasets, or paths ([NAME=]PATH[::LABEL_COLUMN]); X may
    be a sparse matrix, which is made dense; the sources as {name: data}, a list, or one of them alone. label: label
    column where there are names of columns (None: "label"); rows with an empty label are unlabelled ones. key: column
    that says what a row is about. cache: folder in which source classifiers are kept for the next call (None:
    nowhere). The rest is as in `ranking.rank`: with shots, gains are
    those of that many labelled rows a class; without, of all, by cross-fitting.

    A source that cannot be used is listed last with its reason. Raises ValueError for an unusable target, an unknown
    scorer or option, an argument of another type or out of range, a missing file, and where no source can be used.
    """
    shots = None if shots is None else whole_number("shots", shots, 1)
    repeats = None if repeats is None else whole_number("repeats", repeats, 2)
    budget = None if budget is None else positive_number("budget", budget)
    seed, metric = seed_number("seed", seed), one_of("metric", metric, METRICS)
    match, cache = one_of("match", match, MATCH), folder("cache", cache)
    encoder = None if encoder is None else path("encoder", encoder)
    label, key = column_name("label", label), column_name("key", key)
    options = ranking.check_scorer(scorer, options)
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
        cache=cache,
        encoder=encoder,
        match=match,
    )
