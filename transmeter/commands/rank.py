"""The commands that need transmeter alone: rank, validate, transfer, scorers."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from transmeter.commands.options import (
    SECONDS,
    check_compared,
    compared,
    configure_libraries,
    json_option,
    listing,
    printing,
    reserve,
    seed_option,
    shape_options,
    tell,
    typed,
    user_cache,
)
from transmeter.gain.metric_names import METRICS
from transmeter.tables.specs import parse
from transmeter.util import writing
from transmeter.util.arguments import LARGEST_SEED, one_of
from transmeter.util.counts import counted
from transmeter.util.signatures import convert
from transmeter.util.suggestions import absent
from transmeter.util.to_json import to_json

metric_option = click.option(
    "--metric",
    type=click.Choice((*METRICS, "r2")),
    help="Metric that gains are measured in. Default: balanced_accuracy, or r2 where the label is a quantity.",
)


def _class_map(text: str) -> tuple[str, dict[str, str]]:
    """(source, {its class: class of the target}) of SOURCE:THEIRS=OURS,..."""
    source, colon, pairs = text.partition(":")
    split = [pair.partition("=") for pair in pairs.split(",")]
    if not source or not colon or not all(theirs and ours for theirs, _, ours in split):
        raise ValueError(f"--classes {text} is not understood: give SOURCE:THEIRS=OURS,..., such as a:1=0,2=1")
    return source, {theirs: ours for theirs, _, ours in split}


def _class_maps(texts: Sequence[str]) -> dict[str, dict[str, str]] | None:
    return dict(map(_class_map, texts)) or None


classes_option = click.option(
    "--classes",
    multiple=True,
    metavar="SOURCE:THEIRS=OURS,...",
    help="Classes of a source that stand for classes of TARGET, where names mislead. May repeat.",
)

learner_option = click.option(
    "--learner",
    metavar="CLASS",
    help="Estimator of scikit-learn's kind that joins the combination, such as 'lightgbm.LGBMClassifier(n_jobs=1)'.",
)


@click.command()
@compared
@classes_option
@click.option(
    "--min-class-rows",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Minimum number of rows of a class of TARGET; rows of smaller classes are left out.",
)
@click.option(
    "--shots",
    type=click.IntRange(1),
    help="Labelled rows per class, of a quantity in all, to train on; the others only measure.",
)
@click.option(
    "--repeats",
    type=click.IntRange(2),
    help="Maximum number of repeats of the comparison. Default: 40 with --shots, else 10.",
)
@click.option("--together", is_flag=True, help="Choose the set of sources to use at once, too.")
@click.option("--budget", type=SECONDS, help="Time after which no new round begins, such as 60s or 2m.")
@click.option("--scorer", default="transmeter", show_default=True, help="Scorer. List them by: transmeter scorers.")
@learner_option
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option of the scorer. May repeat.")
@metric_option
@seed_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write the ranking to, as JSON.")
@shape_options("table", "json", "csv")
def rank(target, sources, encoder, scorer, settings, out, shape, cache, classes, **options) -> None:
    """Rank SOURCE data sets by the gain that they bring to TARGET.

    TARGET and SOURCE are [NAME=]PATH[::LABEL_COLUMN]: csv, csv.gz, tsv, parquet, jsonl, npz, arff or a data set folder.
    Target rows with an empty label are unlabelled rows. Where none has a label, gains are those of a source's own model
    over guessing.

    Example: transmeter rank mine.csv a.csv b=other/b.csv::diagnosis
    """
    configure_libraries()
    from transmeter.scorers import SHARED, scorer_signatures

    reserve(out, writing.check_file)
    signatures = scorer_signatures()
    values = convert(signatures[one_of("scorer", scorer, signatures)], settings, SHARED)
    class_maps = _class_maps(classes)
    check_compared(target, sources, encoder)

    from transmeter import ranking
    from transmeter.report.tables import format_ranking

    cache = cache or user_cache()
    result = ranking.rank(
        target, sources, encoder=encoder, scorer=scorer, options=values, cache=cache, classes=class_maps, **options
    )
    with printing(format_ranking(result, shape)):
        if out:
            replace(result, command=typed()).save(out)
    chosen = result.together.sources if result.together else [result.best] if result.best else []
    if chosen and result.scored[0].verdict and shape == "table" and not options["learner"]:
        paths = {parse(spec)[0]: spec for spec in sources}
        tell(f"next: {_transfer_command(target, [paths[name] for name in chosen])}")


def _transfer_command(target: str, sources: Sequence[str]) -> str:
    """The command that trains with these sources, with the options of this one that it has too."""
    ctx, words = click.get_current_context(), ["transmeter", "transfer", target, *sources]
    shared = {param.name for param in transfer.params if isinstance(param, click.Option)}
    shared -= {"out", "shape", "repeats", "seed", "cache"}  # what the check of a transfer has of its own
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE
        if param.name in shared and given and not param.multiple:
            words += [param.opts[0], str(ctx.params[param.name])]
        elif param.name in shared and given:
            words += [word for value in ctx.params[param.name] for word in (param.opts[0], str(value))]
    return shlex.join([*words, "--out", "model"])


@click.command()
@compared
@classes_option
@click.option("--ranking", type=click.Path(path_type=Path), help="File of rank --out, to check it.")
@click.option("--shots", type=click.IntRange(1), help="As in rank. Default: that of --ranking.")
@click.option("--repeats", default=24, show_default=True, type=click.IntRange(2), help="Number of repeats per arm.")
@learner_option
@click.option("--steps", default=80, show_default=True, type=click.IntRange(1), help="Training steps of every network.")
@click.option("--metric", type=click.Choice((*METRICS, "r2")), help="As in rank. Default: that of --ranking.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0, LARGEST_SEED),
    help="Seed of all random choices, other than the ranking's.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write the gains to, as JSON.")
@json_option
def validate(target, sources, encoder, ranking, out, as_json, cache, classes, **options) -> None:
    """Measure what every SOURCE truly brings to TARGET, and check a ranking against it.

    Gains are those of the combination of learners, which rank predicts and transfer delivers. Beside them stand pooled
    logistic regression and Transmeter's network. Every arm has the same labelled rows; controls must not help: the
    first source with shuffled labels, and a Gaussian mixture.

    Example: transmeter validate mine.csv a.csv b.csv --ranking ranking.json
    """
    configure_libraries()
    reserve(out, writing.check_file)
    class_maps = _class_maps(classes)
    check_compared(target, sources, encoder)
    if ranking and not ranking.exists():
        raise ValueError(f"{absent(ranking)}: make it with transmeter rank --out")

    from transmeter import api
    from transmeter.report.tables import format_validation

    cache = cache or user_cache()
    validation = api.validate(target, sources, ranking, encoder=encoder, cache=cache, classes=class_maps, **options)
    with printing(to_json(validation.to_dict()) if as_json else format_validation(validation)):
        if out:
            validation.ground_truth.save(out)


@click.command()
@compared
@classes_option
@click.option(
    "--predict", type=click.Path(path_type=Path), metavar="FILE", help="File of rows to predict, with TARGET's columns."
)
@click.option(
    "--repeats",
    type=click.IntRange(2),
    help="Number of repeats of the check on held-out rows. Default: 10, of 5 folds.",
)
@learner_option
@metric_option
@seed_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the model.")
@shape_options("table", "json")
def transfer(target, sources, encoder, predict, out, shape, cache, classes, **options) -> None:
    """Train a classifier for TARGET with every SOURCE given, check it on held-out rows, and save it.

    It is the combination of learners whose gain rank predicts; of a label that is a quantity, a regressor.

    Writes classifier.safetensors and classifier.json (for transmeter.TransferClassifier.load), of a quantity
    regressor.safetensors and regressor.json (for transmeter.TransferRegressor.load), transfer.json with the check, the
    columns and classes that match and what was decided of the tables and, with --predict, predictions.csv, with the
    probability of every class. With --learner there is no model, only the check and the predictions.

    Example: transmeter transfer mine.csv a.csv --predict new.csv --out model
    """
    configure_libraries()
    reserve(out, writing.check_new_folder)
    if options["learner"] and not predict:
        raise ValueError(f"--learner {options['learner']} cannot be saved, as it is not plain arrays: add --predict")
    class_maps = _class_maps(classes)
    check_compared(target, [*sources, *([predict] if predict else [])], encoder)

    from transmeter import api
    from transmeter.report.tables import format_transfer

    cache = cache or user_cache()
    found = api.transfer(
        target, list(sources), predict=predict, encoder=encoder, cache=cache, classes=class_maps, **options
    )
    with printing(to_json(found.to_dict()) if shape == "json" else format_transfer(found)):
        found.save(out)
    predictions = "" if found.predictions is None else f", {counted(len(found.predictions), 'prediction')}"
    name, share = next(iter(found.model.members_.items()))
    learners = counted(len(found.model.members_), "learner")
    tell(f"{out}: {learners}, the heaviest: {name} ({share:.0%}){predictions}")


@click.command()
@json_option
def scorers(as_json) -> None:
    """The scorers with their options.

    Example: transmeter scorers
    """
    from transmeter.scorers import SHARED
    from transmeter.scorers import scorers as functions

    listing(functions(), SHARED, as_json)
