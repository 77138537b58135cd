"""The commands that need transmeter alone: rank, validate, transfer, scorers."""

import warnings
from dataclasses import asdict, replace
from pathlib import Path

import click

from transmeter.commands.options import (
    SECONDS,
    check_compared,
    compared,
    convert,
    json_option,
    listing,
    printing,
    quiet,
    refuse_same_file,
    reserve,
    seed_option,
    shape_options,
    tell,
    typed,
    user_cache,
    warn_of_same_file,
)
from transmeter.util import writing
from transmeter.util.arguments import LARGEST_SEED, one_of
from transmeter.util.suggestions import absent
from transmeter.util.to_json import to_json

METRICS = ("balanced_accuracy", "accuracy")


@click.command()
@compared
@click.option("--shots", type=click.IntRange(1), help="Labelled rows a class to train on; the rest only measures.")
@click.option(
    "--repeats", type=click.IntRange(2), help="Of the comparison, at most. Default: 40 of shots, 10 of folds."
)
@click.option("--budget", type=SECONDS, help="Time after which no new round begins, such as 60s or 2m.")
@click.option("--scorer", default="transmeter", show_default=True, help="See: transmeter scorers.")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option of the scorer.")
@click.option(
    "--metric", default="balanced_accuracy", show_default=True, type=click.Choice(METRICS), help="That gains are of."
)
@seed_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write ranking.json.")
@shape_options("table", "json", "csv")
def rank(
    target,
    sources,
    label,
    cache,
    key,
    match,
    encoder,
    shots,
    repeats,
    budget,
    scorer,
    settings,
    metric,
    seed,
    out,
    shape,
) -> None:
    """Rank SOURCE data sets by the gain that they bring to TARGET.

    TARGET and SOURCE are [NAME=]PATH[::LABEL_COLUMN]: csv, csv.gz, tsv, parquet, jsonl, npz, arff or a data set folder.
    Target rows with an empty label are unlabelled rows.

    Example: transmeter rank mine.csv a.csv b=other/b.csv::diagnosis
    """
    from transmeter.scorers import SHARED, scorer_signatures

    reserve(out, writing.check_file)
    options = convert(scorer_signatures()[one_of("scorer", scorer, scorer_signatures())], settings, SHARED)
    check_compared(target, sources, encoder)

    from transmeter import ranking
    from transmeter.report import tables as show
    from transmeter.tables import data, inputs

    quiet()
    warn_of_same_file(target, sources)
    found = ranking.rank(
        data.load(target, label, key=key),
        inputs.as_tables(sources, label, key),
        scorer,
        shots=shots,
        repeats=repeats,
        budget=budget,
        seed=seed,
        metric=metric,
        options=options,
        cache=cache or user_cache(),
        encoder=encoder,
        match=match,
    )
    with printing(show.text(found, shape)):
        if out:
            replace(found, command=typed()).save(out)


@click.command()
@compared
@click.option("--ranking", "ranked", type=click.Path(path_type=Path), help="ranking.json of these sources to check.")
@click.option("--shots", type=click.IntRange(1), help="As in rank; default: as in --ranking.")
@click.option("--repeats", default=24, show_default=True, type=click.IntRange(2))
@click.option("--steps", default=80, show_default=True, type=click.IntRange(1), help="Of training, in every arm.")
@click.option("--metric", type=click.Choice(METRICS), help="Default: that of --ranking, else balanced_accuracy.")
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0, LARGEST_SEED), help="Other than the ranking's."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write truth.json.")
@json_option
def validate(
    target, sources, label, cache, key, match, encoder, ranked, shots, repeats, steps, metric, seed, out, as_json
) -> None:
    """Measure what every SOURCE truly brings to TARGET by full transfer, and check a ranking against it.

    Every arm has the same labelled rows, fresh layers and steps; controls must not help: permuted weights, shuffled
    labels, a Gaussian mixture, no source with another seed.

    Example: transmeter validate mine.csv a.csv b.csv --ranking ranking.json
    """
    reserve(out, writing.check_file)
    check_compared(target, sources, encoder)
    if ranked and not ranked.exists():
        raise ValueError(f"{absent(ranked)}: make it with transmeter rank --out")

    from transmeter import ranking
    from transmeter.gain import agreement, ground_truth
    from transmeter.network.source import Source
    from transmeter.report import tables as show
    from transmeter.tables import data, inputs
    from transmeter.tables.prepare import prepare
    from transmeter.tables.specs import parse

    found = ranking.load(ranked) if ranked else None
    predicted = {row.source: row for row in found.rows if row.error is None} if found else {}
    if found and shots is not None and shots != found.shots:
        raise ValueError(f"--shots {shots} differs from the ranking's {found.shots}: gains depend on it, leave it out")
    if found and metric is not None and metric != found.metric:
        raise ValueError(f"--metric {metric} differs from the ranking's {found.metric}: leave it out")
    if found and parse(target)[0] != found.target:
        raise ValueError(f"{ranked} ranks sources for '{found.target}', not for '{parse(target)[0]}'")
    if found and (match, encoder) != (found.match, found.encoder):
        used = f"--match {found.match}" + (f" --encoder {found.encoder}" if found.encoder else "")
        raise ValueError(f"the ranking was made with {used}: give the same")
    if found and seed == found.seed:
        raise ValueError(f"--seed {seed} is the ranking's own, so that both see the same draws: give another")
    warn_of_same_file(target, sources)
    wanted, tables = data.load(target, label, key=key), inputs.as_tables(sources, label, key)
    for table in tables:
        if isinstance(table, data.Unusable):
            warnings.warn(f"{table.name} is left out: {table.reason}", stacklevel=2)
    usable = [t for t in tables if isinstance(t, data.Table)]
    missing = [t.name for t in usable if found and t.name not in predicted]
    if missing or not usable:
        raise ValueError(f"{ranked} does not rank '{missing[0]}'" if missing else "no source is usable")
    cache = cache or user_cache()
    wanted, usable, _ = prepare(wanted, usable, encoder, match, cache / "texts")
    true = ground_truth.measure(
        [Source(t, cache) for t in usable],
        wanted,
        shots=found.shots if found else shots,
        repeats=repeats,
        seed=seed,
        metric=found.metric if found else metric or METRICS[0],
        steps=steps,
    )
    rows = [predicted[arm.name] for arm in true.sources] if found else []
    order = agreement.rank_agreement([r.score for r in rows], [a.gain_pp for a in true.sources]) if rows else None
    gains = [row.gain for row in rows if row.gain]
    true_gains = [(a.gain_pp, a.error_pp) for a in true.sources]
    honesty = agreement.interval_coverage(gains, *zip(*true_gains)) if gains else None
    known = {"predicted": predicted, "agreement": order, "honesty": honesty}
    told = to_json({**asdict(true), **known}) if as_json else show.truth_text(true, predicted, order, honesty)
    with printing(told):
        if out:
            true.save(out)


@click.command()
@compared
@click.option(
    "--predict", type=click.Path(path_type=Path), metavar="FILE", help="Rows to predict, with TARGET's columns."
)
@click.option("--repeats", type=click.IntRange(2), help="Of the check on held-out rows. Default: 10 of 5 folds.")
@click.option(
    "--metric", default="balanced_accuracy", show_default=True, type=click.Choice(METRICS), help="That gains are of."
)
@seed_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the model.")
@shape_options("table", "json")
def transfer(target, sources, label, cache, key, match, encoder, predict, repeats, metric, seed, out, shape) -> None:
    """Train a classifier for TARGET that starts from SOURCE, check it on held-out rows, and save it.

    Writes classifier.safetensors and classifier.json (for transmeter.TransferClassifier.load), transfer.json with the
    check and, with --predict, predictions.csv with the probability of every class.

    Example: transmeter transfer mine.csv a.csv --predict new.csv --out model
    """
    reserve(out, writing.check_new_folder)
    if len(sources) > 1:
        raise ValueError(f"{len(sources)} sources are given: rank them, then transfer from the best one")
    check_compared(target, [*sources, *([predict] if predict else [])], encoder)
    refuse_same_file(target, sources[0])

    from transmeter.estimators import TransferClassifier
    from transmeter.gain import heldout
    from transmeter.network.source import Source
    from transmeter.report import tables as show
    from transmeter.tables import data
    from transmeter.tables.files import read
    from transmeter.tables.prepare import prepare

    quiet()
    wanted, source = data.load(target, label, key=key), data.load(sources[0], label, strict=False, key=key)
    rows = data.rows_like(wanted, str(predict), read(predict)) if predict else None
    cache = cache or user_cache()
    settings = {"match": match, "encoder": encoder, "random_state": seed, "cache": cache}
    classifier = TransferClassifier(source, **settings).fit(wanted.features, wanted.labels, keys=wanted.keys)
    prepared, (table,), _ = prepare(wanted, [source], encoder, match, cache / "texts")
    check = heldout.check(Source(table, cache, seed), prepared, repeats=repeats, seed=seed, metric=metric)
    predicted = None if rows is None else classifier.predictions(rows)
    told = to_json(check) if shape == "json" else show.check_text(check)
    with printing(told), writing.new_folder(out) as folder:
        classifier.save(folder)
        writing.write_json(folder / "transfer.json", asdict(check))
        if predicted is not None:
            predicted.to_csv(folder / "predictions.csv", index=False)
    tell(f"{out}: {classifier.learner_}" + (f", {len(rows)} predictions" if predict else ""))


@click.command()
@json_option
def scorers(as_json) -> None:
    """The scorers with their options.

    Example: transmeter scorers
    """
    from transmeter.ranking import SHARED
    from transmeter.scorers import scorers as known

    listing(known(), SHARED, as_json)
