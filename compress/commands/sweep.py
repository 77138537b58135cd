"""The command sweep."""

import itertools
from collections.abc import Callable, Sequence

import click

from compress.commands import options
from compress.commands.options import PATH, check_inputs
from transmeter.commands.options import Ordered, configure_libraries, json_option, reserve, seed_option, tell, typed
from transmeter.util import writing
from transmeter.util.signatures import convert
from transmeter.util.to_json import to_json


def cells(methods: Sequence[tuple[str, Callable, Sequence[str]]]) -> list[tuple[str, Callable, tuple[str, ...]]]:
    """Every method with every combination of the values in its settings, OPTION=VALUE,VALUE,..."""
    found = []
    for method, function, settings in methods:
        choices = [[f"{s.partition('=')[0]}={v}" for v in s.partition("=")[2].split(",")] for s in settings]
        found.extend((method, function, chosen) for chosen in itertools.product(*choices))
    return found


@click.command(cls=Ordered)
@click.argument("model")
@options.method_option("Method to try, see: transmeter methods. Each of several is tried by itself.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    expose_value=False,
    metavar="OPTION=VALUE,VALUE",
    help="Values to try of an option of the --method before it.",
)
@options.calibration_option
@options.tokens_option
@options.length_option
@options.pack_option
@seed_option
@click.option("--data", required=True, type=PATH, help="TEXTS, or a labelled table, to measure the models on.")
@options.metric_option
@options.window_options
@click.option(
    "--latency", is_flag=True, help="Measure the time of a forward of one sequence, and chart quality by it too."
)
@click.option("--out", required=True, type=PATH, help="Folder for the models, new or of a stopped sweep.")
@json_option
@options.machine_options
def sweep(
    model, calibration, tokens, length, pack, seed, data, metric, window, stride, apart, latency, out, as_json
) -> None:
    """Compress MODEL by every method and value, and chart what is reached at which size.

    Writes a folder per model, sweep.json and front.svg to --out, with --latency also front_latency.svg; the same
    command goes on where it was stopped. What fails is listed with its reason.

    Example: transmeter sweep MODEL --method kprune --set ratio=0.2,0.4 --method gptq --set bits=3,4 --calibration DIR
    --data FILE --out sweep
    """
    configure_libraries()
    from compress.methods import SHARED

    reserve(out, writing.check_folder)
    tried = cells(options.methods_in_order())
    steps = [(method, convert(function, settings, SHARED)) for method, function, settings in tried]
    check_inputs([model], [data], calibration)

    from compress import pipeline
    from compress import sweep as sweeps
    from compress.evaluation.evaluate import evaluation_task
    from compress.report import tables

    measured = {"window": window, "stride": stride, "apart": apart, "reference": model}
    result = sweeps.run(
        model,
        [pipeline.Step(*step) for step in steps],
        calibration,
        out,
        evaluation_task(model, data, metric, tokens=options.PERPLEXITY_TOKENS, **measured),
        tokens=tokens,
        length=length,
        pack=pack,
        seed=seed,
        machine=options.machine(),
        latency=latency,
        command=typed(),
        tell=tell,
    )
    click.echo(to_json(result) if as_json else tables.sweep(result), nl=False)
