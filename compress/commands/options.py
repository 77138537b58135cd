"""Options of the commands that work on a language model, the checks of their inputs, and what they end with."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from transmeter.commands.options import BYTES, in_order
from transmeter.util.to_json import to_json

if TYPE_CHECKING:
    from compress.pipeline import Machine

PERPLEXITY_TOKENS = 100_000  # number of tokens that perplexity is measured on
PATH = click.Path(path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
CALIBRATION = "Texts to calibrate on: folder of calibrate, TEXTS, self, random, or several as WHAT:TOKENS,..."


def _weight(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """NAME=NUMBER texts as numbers by name."""
    weights = {}
    for value in values:
        name, _, text = value.rpartition("=")
        try:
            weights[name] = float(text)
        except ValueError:
            weights[name] = math.nan
        if not (name and 0 < weights[name] < math.inf):
            raise ValueError(f"--weight {value} is not understood: give NAME=NUMBER with a number above 0")
    return weights


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Store an option for `machine`."""
    ctx.meta[param.name] = value


def _machine_option(*names: str, default: object = None, type: object = None, help: str) -> Callable:
    return click.option(
        *names, default=default, show_default=True, type=type, help=help, callback=_remember, expose_value=False
    )


weight_option = click.option(
    "--weight", "weights", multiple=True, callback=_weight, metavar="NAME=NUMBER", help="Weight of a target; else 1."
)
calibration_option = click.option("--calibration", metavar="WHAT", help=CALIBRATION)
tokens_option = click.option(
    "--tokens", default=20_000, show_default=True, type=click.IntRange(1), help="Number of tokens to calibrate on."
)
length_option = click.option(
    "--length",
    type=click.IntRange(2),
    help="Largest number of tokens of a calibration sequence. Default: 512 for models of next tokens, else 128.",
)
pack_option = click.option(
    "--pack", is_flag=True, help="Join texts so that every sequence is full, for models of next tokens."
)
_WINDOW = (
    click.option(
        "--window",
        type=click.IntRange(2),
        help="Number of tokens of a window of perplexity. Default: 2048, or the context where it is shorter.",
    ),
    click.option(
        "--stride", type=click.IntRange(1), help="Tokens from one window to the next. Default: the window, no overlap."
    ),
    click.option("--apart", is_flag=True, help="Cut every text into windows of its own. Default: all texts as one."),
)
metric_option = click.option("--metric", help="Metric, see evaluate. Default: the first for what the model is for.")
resume_option = click.option("--resume", is_flag=True, help="Go on with a run of the same options that was stopped.")
push_option = click.option(
    "--push-to-hub", "repo", metavar="REPO", help="Upload the folder too, as [USER/]REPO; a new one there is private."
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    expose_value=False,
    metavar="OPTION=VALUE",
    help="Option of the --method before it.",
)
_MACHINE = (
    _machine_option(
        "--memory", type=BYTES, help="Memory of the process, such as 2GB; beyond it the model streams. Default: all."
    ),
    _machine_option("--batch-size", default=32, type=click.IntRange(1), help="Number of sequences in a batch."),
    _machine_option(
        "--dtype", default="float32", type=click.Choice(["float32", "bfloat16"]), help="Type of numbers to compute in."
    ),
    _machine_option("--device", default="cpu", help="Device: cpu, cuda, cuda:1, or auto (all GPUs and the memory)."),
)


def method_option(help: str) -> Callable:
    """--method, which may be given several times; `methods_in_order` gives what was typed."""
    return click.option("--method", "methods", multiple=True, required=True, expose_value=False, help=help)


def window_options(command: Callable) -> Callable:
    """Options of how texts are read for perplexity."""
    for option in reversed(_WINDOW):
        command = option(command)
    return command


def machine_options(command: Callable) -> Callable:
    """Options of what a compression runs on, which `machine` gives."""
    for option in _MACHINE:
        command = option(command)
    return command


def machine() -> "Machine":
    """What the command was told to run on."""
    import torch

    from compress.pipeline import Machine

    told = click.get_current_context().meta
    return Machine(told["device"], getattr(torch, told["dtype"]), told["batch_size"], told["memory"])


def methods_in_order() -> list[tuple[str, Callable, tuple[str, ...]]]:
    """(method, a function of its signature, its settings) from --method and --set in the order given."""
    from compress.methods import method_signatures

    return in_order(click.get_current_context().meta["order"], method_signatures())


def check_inputs(
    models: Sequence[str], files: Sequence[Path | None], calibration: str | None = None, quantized: bool = False
) -> None:
    """Raise ValueError for models and texts that are not there or broken, before torch is imported."""
    from compress.calibration import spec
    from compress.model.gguf import reading as gguf_reading
    from transmeter.util import checkpoint

    for file in files:
        if file:
            spec.check_exists(file)
    if calibration:
        spec.parse(calibration)
    for model in models:
        if checkpoint.is_gguf(model):
            gguf_reading.check(model)
        else:
            checkpoint.check(model, quantized=quantized)


def print_written(model: str, out: Path, size: int, checked: str, repo: str | None, as_json: bool) -> None:
    """What compress, run and export end with: the folder, its bytes before and after, and where it was uploaded to."""
    from compress import hub
    from transmeter.util.checkpoint import bytes_of

    before, address = bytes_of(model), hub.push(out, repo) if repo else None
    if as_json:
        result = {"model": model, "out": out, "bytes_before": before, "bytes": size, "checked": checked}
        click.echo(to_json({**result, "uploaded": address}), nl=False)
        return
    click.echo(f"{out}: {before or 0:,} -> {size:,} bytes, {checked}")
    if address:
        click.echo(f"{out}: uploaded to {address}")
