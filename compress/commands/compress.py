"""The commands compress and run, which write one model, and methods, which lists what they can do."""

import click

from compress.commands import options
from compress.commands.options import FILE, PATH, check_inputs, machine_options
from transmeter.commands.options import Ordered, configure_libraries, json_option, listing, seed_option, tell
from transmeter.util import writing
from transmeter.util.signatures import convert


@click.command(cls=Ordered)
@click.argument("model")
@options.method_option("Method of a step, see: transmeter methods. Several are steps in the order given.")
@options.set_option
@options.calibration_option
@options.tokens_option
@options.length_option
@options.pack_option
@seed_option
@click.option("--data", type=PATH, help="TEXTS, or a labelled table, to measure the model on after every step.")
@options.metric_option
@options.window_options
@click.option("--out", required=True, type=PATH, help="New folder for the model.")
@options.resume_option
@options.push_option
@json_option
@machine_options
def compress(
    model, calibration, tokens, length, pack, seed, data, metric, window, stride, apart, out, resume, repo, as_json
) -> None:
    """Make MODEL smaller and write a folder that reloads exactly.

    Example: transmeter compress MODEL --method kprune --set ratio=0.5 --calibration DIR --out small
    """
    configure_libraries()
    from compress.recipe import Recipe, Step

    steps = [Step(method=name, settings=given) for name, _, given in options.methods_in_order()]
    recipe = Recipe.model_construct(  # click has checked the values
        model=model,
        steps=steps,
        out=out,
        calibration=calibration,
        tokens=tokens,
        length=length,
        pack=pack,
        seed=seed,
        data=data,
        metric=metric,
        window=window,
        stride=stride,
        apart=apart,
    )
    _compress(recipe, resume, repo, as_json)


@click.command()
@click.argument("recipe", type=FILE)
@options.resume_option
@options.push_option
@json_option
@machine_options
def run(recipe, resume, repo, as_json) -> None:
    """Compress as RECIPE says, a YAML file: model, calibration, steps, out; perhaps tokens, length, pack, seed,
    data, metric, window, stride, apart.

    Every step has a method and its options. Paths are relative to the file.

    Example: transmeter run examples/small_math.yaml
    """
    configure_libraries()
    from compress import recipe as recipes
    from compress.methods import method_signatures

    _compress(recipes.read(recipe, method_signatures()), resume, repo, as_json)


def _compress(recipe, resume, repo, as_json) -> None:
    """What compress and run have in common."""
    from compress.methods import SHARED, method_signatures

    writing.check_new_folder(recipe.out)
    known = method_signatures()
    steps = [(step.method, convert(known[step.method], step.settings, SHARED)) for step in recipe.steps]
    check_inputs([recipe.model], [recipe.data], recipe.calibration)

    from compress import hub, pipeline
    from compress.evaluation.evaluate import evaluation_task
    from transmeter.util.checkpoint import bytes_of

    if repo:
        hub.check(repo)
    task = None
    if recipe.data:
        students = [given["student"] for _, given in steps if given.get("student")]
        task = evaluation_task(
            [recipe.model, *students],
            recipe.data,
            recipe.metric,
            tokens=options.PERPLEXITY_TOKENS,
            window=recipe.window,
            stride=recipe.stride,
            apart=recipe.apart,
            reference=recipe.model,
        )
    pipeline.run(
        recipe.model,
        [pipeline.Step(*step) for step in steps],
        recipe.calibration,
        recipe.out,
        tokens=recipe.tokens,
        length=recipe.length,
        pack=recipe.pack,
        seed=recipe.seed,
        machine=options.machine(),
        task=task,
        resume=resume,
        tell=tell,
    )
    size = bytes_of(recipe.out)
    options.print_written(recipe.model, recipe.out, size, "reloaded with equal logits", repo, as_json)


@click.command()
@json_option
def methods(as_json) -> None:
    """The compression methods with their options.

    Example: transmeter methods
    """
    from compress.methods import SHARED
    from compress.methods import methods as known

    listing(known(), SHARED, as_json)
