"""The command calibrate."""

import click

from compress.calibration.toolkits import CODE
from compress.commands.options import PATH, check_inputs, length_option, pack_option, tokens_option, weight_option
from transmeter.commands.options import configure_libraries, json_option, reserve, seed_option, typed, user_cache
from transmeter.util import writing
from transmeter.util.counts import counted
from transmeter.util.to_json import to_json

WAYS = "Way of choosing: measure (default with --target), uniform (default without), or another one listed above."
TEXTS = "[NAME=]TEXTS"


@click.command()
@click.argument("model")
@click.option("--target", "targets", multiple=True, metavar=TEXTS, help="Texts of a task to protect.")
@click.option("--candidate", "candidates", multiple=True, required=True, metavar=TEXTS, help="Texts to choose from.")
@click.option("--by", metavar="WAY", help=WAYS)
@weight_option
@click.option(
    "--protect",
    default="mean",
    show_default=True,
    type=click.Choice(["mean", "worst"]),
    help="How closeness to several targets counts.",
)
@click.option("--held-out", multiple=True, type=PATH, help="Texts of an evaluation, which no candidate may have.")
@tokens_option
@length_option
@pack_option
@seed_option
@click.option("--cache", type=PATH, help="Folder for hidden states, which are used again. Default: the user's cache.")
@click.option("--out", required=True, type=PATH, help="New folder for the data set.")
@click.option(
    "--for",
    "toolkit",
    multiple=True,
    type=click.Choice(list(CODE)),
    help="Also write the file that another toolkit reads, and show how it is used. May repeat.",
)
@json_option
def calibrate(
    model, targets, candidates, by, weights, protect, held_out, tokens, length, pack, seed, cache, out, toolkit, as_json
) -> None:
    """Choose calibration texts for MODEL by how close candidates come to the targets in the model's own states.

    TEXTS: .txt (documents separated by blank lines), .csv, .csv.gz, .parquet, .jsonl with a column text (or messages,
    chats), a data set folder, or as candidate self: what MODEL writes. Equal tokens per candidate. By measure a single
    set is taken, or a mixture where that is closer; by random, uniform, longest, lowest_perplexity, lexical_diversity,
    activation_coverage, embedding_similarity, activation_centroid or closeness texts of all candidates. Writes the
    texts and provenance.json to --out.

    Example: transmeter calibrate MODEL --target task.txt --candidate a.txt --candidate b.txt --out calibration
    """
    configure_libraries()
    from transmeter.tables import specs

    reserve(out, writing.check_new_folder)
    files = [*specs.paths(candidates).values(), *specs.paths(targets).values(), *held_out]
    check_inputs([model], [file for file in files if str(file) != "self"])

    import compress
    from compress.report.candidates import format_closeness, format_targets

    chosen = compress.calibrate(
        model,
        candidates,
        targets,
        tokens=tokens,
        length=length,
        by=by,
        protect=protect,
        weights=weights,
        held_out=held_out,
        pack=pack,
        seed=seed,
        cache=cache or user_cache(),
        out=out,
        toolkit=toolkit,
        command=typed(),
    )
    if as_json:
        about = {"out": out, "by": chosen.by, "length": chosen.length, "pack": chosen.pack}
        sure = {
            "intervals": chosen.intervals,
            "tied": chosen.tied,
            "chosen": chosen.chosen,
            "by_target": chosen.by_target,
        }
        result = {**about, "parts": chosen.parts, "scores": chosen.scores, **sure, "reason": chosen.reason}
        click.echo(to_json({**result, "notes": chosen.notes, "usage": chosen.usage}), nl=False)
        return
    if chosen.scores:
        shares = {part.name: part.share for part in chosen.parts}
        click.echo(format_closeness(chosen.scores, chosen.intervals, shares, chosen.chosen, chosen.tied), nl=False)
        click.echo(format_targets(chosen.by_target, chosen.scores, chosen.chosen), nl=False)
    for note in chosen.notes:
        click.echo(note)
    if chosen.reason:
        click.echo(chosen.reason)
    for part in chosen.parts:
        sizes = f"{counted(part.tokens, 'token')} in {counted(part.texts, 'text')}"
        click.echo(f"{out}: {sizes} of {part.name} ({part.share:.0%})")
    joined = ", texts joined" if chosen.pack else ""
    click.echo(f"{out}: sequences of at most {chosen.length} tokens{joined}")
    for name, usage in chosen.usage.items():
        click.echo(f"\nIn {name}:\n\n{usage}", nl=False)
