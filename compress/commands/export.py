"""The command export."""

import click

from compress.commands.options import PATH, check_inputs, print_written, push_option
from transmeter.commands.options import json_option, quiet, reserve
from transmeter.util import writing

FORMATS = ("compressed-tensors", "torchao", "torchao-dynamic", "onnx")


@click.command()
@click.argument("model")
@click.option("--format", "shape", required=True, type=click.Choice(FORMATS), help="Format to write, see above.")
@click.option("--out", required=True, type=PATH, help="New folder for the model.")
@push_option
@json_option
def export(model, shape, out, repo, as_json) -> None:
    """Write MODEL in a format that other tools read, and compare what a new process reads there.

    compressed-tensors: quantized models, for plain transformers and vLLM. torchao: weights in 8 bits; torchao-dynamic:
    activations too, which makes large models faster on a CPU. onnx: encoders, for onnxruntime.

    Example: transmeter export small --format onnx --out exported
    """
    reserve(out, writing.check_new_folder)
    check_inputs([model], [])

    from compress import export as exports
    from compress import hub

    quiet()
    if repo:
        hub.check(repo)
    size = exports.export(model, shape, out)
    print_written(model, out, size, f"as {shape}, reread in a new process", repo, as_json)
