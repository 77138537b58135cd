"""The command line: parse, call, print. Results go to stdout, everything else to stderr."""

import warnings
from pathlib import Path

import click

from compress.commands.options import machine_options, push_option, resume_option, tokens_option
from transmeter.commands import batch as scale
from transmeter.commands import config as defaults
from transmeter.commands import rank as commands
from transmeter.commands.options import (
    Group,
    Ordered,
    in_order,
    json_option,
    listen,
    listing,
    printing,
    quiet,
    reserve,
    seed_option,
    shape_options,
    tell,
    typed,
    user_cache,
    weighted,
)
from transmeter.util import writing
from transmeter.util.signatures import convert
from transmeter.util.to_json import to_json

EXPORTS = ("compressed-tensors", "torchao", "torchao-dynamic", "onnx")
TOKENS = 100_000  # that perplexity is measured on


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transmeter")
@click.option("-q", "--quiet", "silent", is_flag=True, help="Nothing on stderr but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is decided, and why.")
@click.option("--config", type=click.Path(path_type=Path), help="Defaults of options. [default: ./transmeter.toml]")
@click.pass_context
def main(ctx, silent, verbose, config) -> None:
    """Which data should I use? Rank source data sets, choose calibration data, and compress models with it.

    Example: transmeter rank mine.csv a.csv b.csv --shots 5

    \b
    transmeter.toml sets defaults, a section a command:
      [rank]
      shots = 5

    \b
    To complete commands and options by Tab (bash; zsh and fish likewise), in ~/.bashrc:
      eval "$(_TRANSMETER_COMPLETE=bash_source transmeter)"
    """
    listen(silent, verbose)
    ctx.default_map = defaults.read(config, main)


own = (commands.rank, commands.validate, commands.transfer, commands.scorers, scale.batch, scale.results, scale.status)
for command in own:
    main.add_command(command)


@main.command()
@click.argument("model")
@click.option("--target", "targets", multiple=True, metavar="[NAME=]TEXTS", help="Texts of the task to protect.")
@click.option("--candidate", "candidates", multiple=True, required=True, metavar="[NAME=]TEXTS", help="May repeat.")
@click.option("--by", help="measure (default with --target), uniform (default without), or another way: see above.")
@click.option(
    "--weight", "weights", multiple=True, metavar="NAME=NUMBER", help="Of a --target beside others. Default: 1."
)
@click.option("--protect", default="mean", show_default=True, type=click.Choice(["mean", "worst"]), help="Of several.")
@click.option("--held-out", multiple=True, type=click.Path(path_type=Path), help="Texts that must not be among them.")
@click.option("--pack", is_flag=True, help="Texts one behind the other, no padding (next-token models).")
@tokens_option
@seed_option
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for what is reused. Default: user cache.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the data set.")
@json_option
def calibrate(
    model, targets, candidates, by, weights, protect, held_out, pack, tokens, seed, cache, out, as_json
) -> None:
    """Choose calibration texts for MODEL by how close candidates come to the targets in the model's own states.

    TEXTS: .txt (documents separated by blank lines), .csv, .csv.gz, .parquet, .jsonl with a column text (or messages,
    chats), a data set folder, or as candidate self: what MODEL writes. Equal tokens a candidate. By measure a single
    set is taken, or a mixture where that is closer; by random, uniform, longest, lowest_perplexity, lexical_diversity,
    activation_coverage, embedding_similarity or closeness texts of all candidates. Writes the texts, provenance.json
    and, where it measured, ranking.json to --out.

    Example: transmeter calibrate MODEL --target task.txt --candidate a.txt --candidate b.txt --out calibration
    """
    from transmeter.tables import specs

    reserve(out, writing.check_new_folder)
    pools, wanted = specs.paths(candidates), specs.paths(targets)
    by = by or ("measure" if targets else "uniform")
    shares = weighted(weights, wanted)
    _check_inputs([model], [p for p in (*pools.values(), *wanted.values(), *held_out) if str(p) != "self"])

    from compress.calibration import candidates as calibration
    from compress.calibration import contamination
    from compress.calibration.texts import read_texts
    from compress.model import io
    from transmeter import ranking
    from transmeter.report.tables import format_ranking
    from transmeter.result import Ranking
    from transmeter.tables import data

    quiet()
    tokenizer = io.skeleton(model)[1]
    read = {n: None if str(p) == "self" else read_texts(p, tokenizer) for n, p in pools.items()}
    texts = contamination.without_copies({name: found for name, found in read.items() if found is not None})
    contamination.refuse_held_out(texts, {str(path): read_texts(path, tokenizer) for path in held_out})
    rankings: list[Ranking] = []

    def closeness(target, sets, cheap):
        tables = [data.from_arrays(name, *calibration.features(view)) for name, view in sets.items()]
        options = {"coverage": 0.0} if cheap else {}
        aim = data.from_arrays(target.origins[0], *calibration.features(target))
        rankings.append(ranking.rank(aim, tables, "alignment", seed=seed, options=options))
        return {row.source: row.score for row in rankings[-1].rows if row.error is None}

    chosen, scores, tokenizer = calibration.calibrate(
        model,
        {name: texts.get(name) for name in pools},
        {name: (read_texts(path, tokenizer), shares[name]) for name, path in wanted.items()},
        closeness,
        tokens=tokens,
        by=by,
        protect=protect,
        pack=pack,
        seed=seed,
        cache=(cache or user_cache()) / "hidden_states",
    )
    about = {"model": model, "targets": {n: str(p) for n, p in wanted.items()}, "by": by, "tokens": tokens}
    about |= {"seed": seed, "protect": protect, "scores": scores, "command": typed()}
    about |= {"chosen": calibration.pick(scores) if scores else by}
    last = rankings[-len(wanted) :] if by == "measure" else []
    with writing.new_folder(out) as folder:
        calibration.save(chosen, tokenizer, folder, about)
        for found in last:
            found.save(folder / ("ranking.json" if len(wanted) == 1 else f"ranking-{found.target}.json"))
    drawn = calibration.parts(chosen)
    if sum(part.tokens for part in drawn) < 0.95 * tokens:
        warnings.warn(f"the texts drawn hold fewer than {tokens} tokens", stacklevel=2)
    if as_json:
        click.echo(to_json({"out": out, "by": by, "parts": drawn, "scores": scores, "rankings": last}), nl=False)
        return
    for found in last:
        click.echo(format_ranking(found), nl=False)
    for part in drawn:
        click.echo(f"{out}: {part.tokens} tokens in {part.texts} texts of {part.name} ({part.share:.0%})")


@main.command(cls=Ordered)
@click.argument("model")
@click.option("--method", "methods", multiple=True, required=True, help="May repeat: steps run in order.")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option of the --method before it.")
@click.option("--calibration", help="Folder of calibrate, TEXTS, self, random, or several as WHAT:TOKENS,...")
@tokens_option
@seed_option
@click.option("--data", "file", type=click.Path(path_type=Path), help="Measure the model on it after every step.")
@click.option("--metric", help="As in evaluate.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the model.")
@resume_option
@push_option
@json_option
@machine_options
@click.pass_context
def compress(
    ctx,
    model,
    methods,
    settings,
    calibration,
    tokens,
    seed,
    file,
    metric,
    out,
    resume,
    device,
    dtype,
    batch_size,
    memory,
    repo,
    as_json,
) -> None:
    """Make MODEL smaller and write a folder that reloads exactly.

    Example: transmeter compress MODEL --method kprune --set ratio=0.5 --calibration DIR --out small
    """
    from compress.methods import method_signatures
    from compress.recipe import Recipe, Step

    steps = [Step(name, given) for name, _, given in in_order(ctx.meta["order"], method_signatures())]
    machine = (device, dtype, batch_size, memory)
    recipe = Recipe(model, steps, out, calibration, tokens, seed, file, metric)
    _compress(recipe, machine, resume, repo, as_json)


@main.command()
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@resume_option
@push_option
@json_option
@machine_options
def run(recipe, resume, device, dtype, batch_size, memory, repo, as_json) -> None:
    """Compress as RECIPE says, a YAML file: model, calibration, steps, out; perhaps tokens, seed, data, metric.

    Every step has a method and its options. Paths are relative to the file.

    Example: transmeter run examples/small_math.yaml
    """
    from compress import recipe as recipes
    from compress.methods import method_signatures

    machine = (device, dtype, batch_size, memory)
    _compress(recipes.read(recipe, method_signatures()), machine, resume, repo, as_json)


def _compress(recipe, machine, resume, repo, as_json) -> None:
    """What compress and run have in common."""
    from compress.methods import SHARED, method_signatures

    device, dtype, batch_size, memory = machine
    writing.check_new_folder(recipe.out)
    known = method_signatures()
    steps = [(s.method, convert(known[s.method], s.settings, SHARED)) for s in recipe.steps]
    _check_inputs([recipe.model], [recipe.data], recipe.calibration)

    import torch

    from compress import hub, pipeline
    from compress.evaluation import evaluate
    from transmeter.util.checkpoint import bytes_of

    quiet()
    if repo:
        hub.check(repo)
    pipeline.run(
        recipe.model,
        [pipeline.Step(*step) for step in steps],
        recipe.calibration,
        recipe.out,
        tokens=recipe.tokens,
        seed=recipe.seed,
        machine=pipeline.Machine(device, getattr(torch, dtype), batch_size, memory),
        task=evaluate.evaluation_task(recipe.model, recipe.data, recipe.metric, TOKENS) if recipe.data else None,
        resume=resume,
        tell=tell,
    )
    size = bytes_of(recipe.out)
    _written(recipe.model, recipe.out, size, "reloaded with equal logits", repo, as_json)


def _check_inputs(models, files, calibration=None, quantized=False) -> None:
    """Raise ValueError for models and texts that are not there or broken, before torch is imported."""
    from compress.calibration import spec
    from transmeter.util import checkpoint

    for file in files:
        if file:
            spec.check_exists(file)
    if calibration:
        spec.parse(calibration)
    for model in models:
        checkpoint.check(model, quantized=quantized)


def _written(model, out, size, checked, repo, as_json) -> None:
    """What compress, run and export end with: the folder, its size before and after, and where it was uploaded to."""
    from compress import hub
    from transmeter.util.checkpoint import bytes_of

    before, address = bytes_of(model), hub.push(out, repo) if repo else None
    if as_json:
        found = {"model": model, "out": out, "bytes_before": before, "bytes": size, "checked": checked}
        click.echo(to_json(found | {"uploaded": address}), nl=False)
        return
    click.echo(f"{out}: {before or 0:,} -> {size:,} bytes, {checked}")
    if address:
        click.echo(f"{out}: uploaded to {address}")


@main.command(cls=Ordered)
@click.argument("model")
@click.option("--method", "methods", multiple=True, required=True, help="May repeat: each is tried by itself.")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE,VALUE", help="Of the --method before it.")
@click.option("--calibration", help="Folder of calibrate, TEXTS, self, random, or several as WHAT:TOKENS,...")
@tokens_option
@seed_option
@click.option("--data", "file", required=True, type=click.Path(path_type=Path), help="TEXTS, or a labelled table.")
@click.option("--metric", help="As in evaluate.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder, new or of a stopped sweep.")
@json_option
@machine_options
@click.pass_context
def sweep(
    ctx,
    model,
    methods,
    settings,
    calibration,
    tokens,
    seed,
    file,
    metric,
    out,
    device,
    dtype,
    batch_size,
    memory,
    as_json,
) -> None:
    """Compress MODEL by every method and value, and draw what is reached at which size.

    Writes a folder a model, sweep.json and front.svg to --out; the same command goes on where it was stopped.

    Example: transmeter sweep MODEL --method kprune --set ratio=0.2,0.4 --method gptq --set bits=3,4 --calibration DIR
    --data FILE --out sweep
    """
    from compress.methods import SHARED, method_signatures
    from compress.methods import methods as known

    reserve(out, writing.check_folder)
    for _, function, given in in_order(ctx.meta["order"], method_signatures()):
        for name, values in (setting.split("=", 1) for setting in given if "=" in setting):
            convert(function, tuple(f"{name}={value}" for value in values.split(",")), SHARED)
    _check_inputs([model], [file], calibration)

    import torch

    from compress import pipeline, sweep
    from compress.evaluation import evaluate
    from compress.report import tables as show

    quiet()
    found = sweep.run(
        model,
        [
            pipeline.Step(method, convert(function, chosen, pipeline.SHARED))
            for method, function, chosen in sweep.cells(in_order(ctx.meta["order"], known()))
        ],
        calibration,
        out,
        evaluate.evaluation_task(model, file, metric, TOKENS),
        tokens=tokens,
        seed=seed,
        machine=pipeline.Machine(device, getattr(torch, dtype), batch_size, memory),
        command=typed(),
        tell=tell,
    )
    click.echo(to_json(found) if as_json else show.sweep(found), nl=False)


@main.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--baseline", help="Another model, measured on the same data; changes are paired.")
@click.option("--data", "file", required=True, type=click.Path(path_type=Path), help="TEXTS, or a labelled table.")
@click.option("--metric", help="See above. Default: the first for what the model is for.")
@click.option(
    "--tokens",
    default=TOKENS,
    show_default=True,
    type=click.IntRange(2),
    help="Tokens that perplexity is measured on.",
)
@click.option("--energy", is_flag=True, help="Estimate the energy of a forward (codecarbon).")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write result.json.")
@shape_options("table", "json")
def evaluate(models, baseline, file, metric, tokens, energy, out, shape) -> None:
    """A metric with its 95 % interval, size, FLOPs, latency, peak memory and what it took to make MODEL...

    Metrics by what MODEL is for: perplexity (next tokens); accuracy, f1, macro_f1 (classes); spearman, pearson (one
    value); f1, macro_f1 of the words not labelled O, accuracy (labels of tokens); f1, exact_match (answers).
    Columns: text, perhaps text_pair, and label; tokens and labels (lists); or question, context, answers.

    Example: transmeter evaluate small --baseline MODEL --data test.csv
    """
    reserve(out, writing.check_file)
    _check_inputs([*models, *([baseline] if baseline else [])], [file], quantized=True)

    from compress.evaluation import evaluate as measure
    from compress.report import tables as show

    quiet()
    found = measure.report(models, baseline, measure.evaluation_task(models[0], file, metric, tokens), energy)
    found = [result | {"command": typed()} for result in found]
    text = to_json(found if len(found) > 1 else found[0])
    with printing(text if shape == "json" else show.evaluations(found)):
        if out:
            writing.write_text(out, text)


@main.command()
@click.argument("model")
@click.option("--format", "shape", required=True, type=click.Choice(EXPORTS))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@push_option
@json_option
def export(model, shape, out, repo, as_json) -> None:
    """Write MODEL in a format that other tools read, and compare what a new process reads there.

    compressed-tensors: quantized models, for plain transformers and vLLM. torchao: weights in 8 bits; torchao-dynamic:
    activations too, which makes large models faster on a CPU. onnx: encoders, for onnxruntime.

    Example: transmeter export small --format onnx --out exported
    """
    reserve(out, writing.check_new_folder)
    _check_inputs([model], [])

    from compress import export as exports
    from compress import hub

    quiet()
    if repo:
        hub.check(repo)
    size = exports.export(model, shape, out)
    _written(model, out, size, f"as {shape}, reread in a new process", repo, as_json)


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def report(inputs, out) -> None:
    """One HTML page from INPUT...: ranking.json, result.json, sweep.json, a store of batch, folders of calibrate,
    compress and sweep. It loads nothing, and reads on a phone, on paper, and in the dark.

    Example: transmeter report ranking.json small result.json --out report.html
    """
    from transmeter.util.suggestions import absent

    reserve(out, writing.check_file)
    for path in inputs:
        if not path.exists():
            raise ValueError(absent(path))

    from compress.report import page
    from transmeter.report import sections as rankings

    ranked, rest = rankings.sections(inputs)
    page.write([*ranked, *page.sections(rest)], out, typed())
    click.echo(str(out))


@main.command("methods")
@json_option
def list_methods(as_json) -> None:
    """The compression methods with their options.

    Example: transmeter methods
    """
    from compress.methods import methods
    from compress.pipeline import SHARED

    quiet()
    listing(methods(), SHARED, as_json)


if __name__ == "__main__":
    main()
