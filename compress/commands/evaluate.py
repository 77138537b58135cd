"""The command evaluate."""

import click

from compress.commands.options import FILE, PATH, PERPLEXITY_TOKENS, check_inputs, window_options
from transmeter.commands.options import configure_libraries, printing, reserve, shape_options, typed
from transmeter.util import writing
from transmeter.util.to_json import to_json

TASK = "Task of the lm-evaluation-harness, a task file (.yaml) or a folder of them, in the place of --data."
TOKENS = "Number of tokens that perplexity is measured on."


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--baseline", help="Another model to measure on the same data; changes are paired.")
@click.option("--data", type=PATH, help="TEXTS, or a labelled table, to measure on.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help=TASK)
@click.option("--metric", help="Metric, one of those listed above. Default: the first for what the model is for.")
@click.option("--tokens", default=PERPLEXITY_TOKENS, show_default=True, type=click.IntRange(2), help=TOKENS)
@window_options
@click.option("--latency", is_flag=True, help="Measure the time of a forward of one sequence.")
@click.option("--peak-memory", is_flag=True, help="Measure the memory that loading and one forward take.")
@click.option("--energy", is_flag=True, help="Estimate the energy of a forward (codecarbon).")
@click.option("--out", type=FILE, help="File to write the results to, as JSON.")
@shape_options("table", "json")
def evaluate(
    models, baseline, data, tasks, metric, tokens, window, stride, apart, latency, peak_memory, energy, out, shape
) -> None:
    """A metric with its 95 % interval, size, FLOPs and what it took to make MODEL...

    With --baseline also the paired change, and of tokens and classes the KL divergence of the predictions from the
    baseline's and how often both find the same token or class most likely.
    Metrics by what MODEL is for: perplexity (next tokens); masked_perplexity, masked_accuracy (15 % of the tokens
    masked); accuracy, f1, macro_f1 (classes); spearman, pearson (one value); f1, macro_f1 of the words not labelled O,
    accuracy (labels of tokens); f1, exact_match (answers). Of a model without a head, with --baseline:
    similarity_spearman (how similar texts are to each other), cosine (of a text's embedding in both models).
    --task runs tasks of the lm-evaluation-harness on models of next tokens, with --baseline also what is left of its
    results, in per cent.
    Columns: text, perhaps text_pair, and label; tokens and labels (lists); or question, context, answers.

    Example: transmeter evaluate small --baseline MODEL --data test.csv
    """
    configure_libraries()
    reserve(out, writing.check_file)
    check_inputs([*models, *([baseline] if baseline else [])], [data], quantized=True)
    if (data is None) == (not tasks):
        raise ValueError("evaluate needs something to measure on: give either --data or --task")

    import compress
    from compress.report import tables

    results = compress.evaluate(
        models,
        data,
        task=tasks or None,
        baseline=baseline,
        metric=metric,
        tokens=tokens,
        window=window,
        stride=stride,
        apart=apart,
        latency=latency,
        peak_memory=peak_memory,
        energy=energy,
    )
    results = [{**result, "command": typed()} for result in results]
    text = to_json(results if len(results) > 1 else results[0])
    with printing(text if shape == "json" else (tables.tasks if tasks else tables.evaluations)(results)):
        if out:
            writing.write_text(out, text)
