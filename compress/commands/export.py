"""The command export."""

import click

from compress.commands.options import PATH, check_inputs, print_written, push_option
from transmeter.commands.options import configure_libraries, json_option, reserve, tell
from transmeter.util import writing

FORMATS = ("compressed-tensors", "torchao", "torchao-dynamic", "onnx", "gguf")
WEIGHTS = ("f16", "bf16", "q8_0", "q5_1", "q4_1", "q4_0")


@click.command()
@click.argument("model")
@click.option("--format", "shape", required=True, type=click.Choice(FORMATS), help="Format to write, see above.")
@click.option("--weights", type=click.Choice(WEIGHTS), help="Type of the weights of gguf. Default: f16.")
@click.option("--out", required=True, type=PATH, help="New folder for the model.")
@push_option
@json_option
def export(model, shape, weights, out, repo, as_json) -> None:
    """Write MODEL in a format that other tools read, and compare what is read there.

    compressed-tensors: quantized models, for plain transformers and vLLM. torchao: weights in 8 bits; torchao-dynamic:
    activations too, which makes large models faster on a CPU. onnx: encoders, for onnxruntime. gguf: decoders of types
    llama, mistral, qwen2, qwen3, smollm3, granite and gemma3_text, for llama.cpp and what is built on it.

    Example: transmeter export small --format onnx --out exported
    """
    configure_libraries()
    reserve(out, writing.check_new_folder)
    check_inputs([model], [])

    from compress import export as exports
    from compress import hub

    if repo:
        hub.check(repo)
    size = exports.export(model, shape, out, weights, tell)
    print_written(
        model, out, size, f"as {shape}, reread{'' if shape == 'gguf' else ' in a new process'}", repo, as_json
    )
